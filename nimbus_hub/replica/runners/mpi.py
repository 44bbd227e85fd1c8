"""Runs `mpiexec` without ssh: it says how its proxies are started, and they start themselves.

The replica with ``mpiexec`` hears from it a command for each proxy and answers the others, who
come for theirs with a proof that they are of the same job. A rank writes to its own replica's
log, whose descriptor the proxy passes on, and not through ``mpiexec``.

Python 3.6 and later, standard library only.
"""

import hashlib
import hmac
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from nimbus_hub.replica import program
from nimbus_hub.replica.runners import script

__all__ = ["main"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

LOG = 9
"""The descriptor of a replica's log in its rank."""

RANK = '"$@" >&9 2>&9 </dev/null; code=$?; echo $code >"$NIMBUS_MPI_STATUS"; exit $code'
"""What a rank runs: the program, with its exit code left for the replica."""

LAUNCH, LAUNCH_END = "HYDRA_LAUNCH: ", "HYDRA_LAUNCH_END"
ENDED_WITH_OTHERS = 143
LONGEST = 65536


def main(arguments: "list[str]") -> None:
    """Be what this replica's role says; a rank of it, if there is a script to run."""
    if os.environ["NIMBUS_ROLE"] == "mpiexec":
        sys.exit(coordinate(arguments))
    if not arguments:
        sys.exit(take_part())
    run_rank(arguments)


def coordinate(arguments: "list[str]") -> int:
    """Run ``mpiexec``, tell the proxies how to start, and return its exit code."""
    address, hosts = os.environ["NIMBUS_ADDRESS"], os.environ["MPIEXEC_HOSTS"]
    number = str(len(hosts.split(",")))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, int(os.environ["MPIEXEC_PORT"])))
    command = ["mpiexec", "-localhost", address, "-launcher", "manual", "-hosts", hosts]
    command += ["-n", number, "-ppn", "1", "-genvnone", "sh", "-c", RANK, "sh"]
    command += rank_command(arguments)
    mpiexec = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert mpiexec.stdout is not None
    commands = read_commands(mpiexec.stdout)
    if commands:
        listener.listen(128)
        given = {name: commands[rank] for rank, name in enumerate(hosts.split(","))}
        threading.Thread(target=answer_all, args=(listener, given), daemon=True).start()
    for line in mpiexec.stdout:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    return mpiexec.wait()


def rank_command(arguments: "list[str]") -> "list[str]":
    """Return what runs a rank: a script of python's within `run_rank`, all else as it is."""
    target = program.target_of(arguments)
    if target is None or not os.path.basename(arguments[0]).startswith("python"):
        return arguments
    is_module, name, rest = target
    runner = [arguments[0], "-u", "-m", "nimbus_hub.replica", "mpi"]
    return runner + (["-m"] if is_module else []) + [name] + rest


def run_rank(arguments: "list[str]") -> None:
    """Run a script; one that fails ends without MPI's own end, which waits for all others."""
    try:
        script.run(arguments)
    except SystemExit as end:
        if end.code not in (None, 0):
            script.leave_at_once(end)
        raise


def read_commands(output: "IO[bytes]") -> "list[list[str]]":
    """Return the proxies' commands, in order of rank; what else is said before goes on."""
    commands = []  # type: list[list[str]]
    for line in output:
        text = line.decode("utf-8", "replace").strip()
        if text == LAUNCH_END:
            return sorted(commands, key=lambda words: int(words[words.index("--proxy-id") + 1]))
        if text.startswith(LAUNCH):
            commands.append(shlex.split(text[len(LAUNCH) :]))
        else:
            print(text, flush=True)
    return []


def answer_all(listener: socket.socket, commands: "dict[str, list[str]]") -> None:
    """Tell whoever proves to be one of the job's replicas its command.

    End this process, and with it all ranks, if one does not come: nobody else waits less.
    """
    seconds = float(os.environ["MPIEXEC_WAIT_SECONDS"])
    end = time.monotonic() + seconds
    missing = set(commands)
    while True:
        listener.settimeout(max(0.01, end - time.monotonic()) if missing else None)
        try:
            connection, _ = listener.accept()
        except socket.timeout:
            break
        with connection:
            connection.settimeout(5)
            try:
                name, _, proof = connection.recv(LONGEST).decode("ascii").partition(" ")
                if name in commands and hmac.compare_digest(proof, proof_of(name)):
                    connection.sendall(json.dumps(commands[name]).encode("ascii"))
                    missing.discard(name)
            except (OSError, ValueError):
                continue
    late = ", ".join(name for name in commands if name in missing)
    sys.stderr.write("nimbus: %s did not join within %g s\n" % (late, seconds))
    sys.stderr.flush()
    os._exit(1)


def take_part() -> int:
    """Run this replica's proxy and return the exit code of its rank."""
    command = []  # type: list[str]

    def fetch(address: str, port: int) -> bool:
        command[:] = ask(address, port)
        return bool(command)

    script.wait_for_services(fetch)
    # The program is this environment's own.
    command[0] = os.path.basename(command[0])
    os.dup2(1, LOG)
    with tempfile.TemporaryDirectory() as directory:
        status = os.path.join(directory, "status")
        proxy = subprocess.run(
            command,
            env=dict(os.environ, NIMBUS_MPI_STATUS=status),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[LOG],
            check=False,
        )
        code = read_status(status)
    if code is None:
        # What it says of the end of the others is of use only if it had no part in it.
        sys.stderr.write(proxy.stdout.decode("utf-8", "replace"))
        return ENDED_WITH_OTHERS
    if code > 128 and code - 128 in set(signal.Signals):
        # So that this replica is said to have been ended by it.
        os.kill(os.getpid(), code - 128)
    return code


def ask(address: str, port: int) -> "list[str]":
    """Return this replica's command, nothing if nobody is there to say."""
    name = "%s-%s" % (os.environ["NIMBUS_ROLE"], os.environ["NIMBUS_ROLE_RANK"])
    try:
        with socket.create_connection((address, port), timeout=5) as connection:
            connection.sendall(("%s %s" % (name, proof_of(name))).encode("ascii"))
            text = b"".join(iter(lambda: connection.recv(LONGEST), b""))
    except OSError:
        return []
    found = json.loads(text.decode("ascii")) if text else []  # type: list[str]
    return found


def proof_of(name: str) -> str:
    """Return what only a replica of this attempt can say of itself."""
    key = "%s %s" % (os.environ["NIMBUS_TOKEN"], os.environ["NIMBUS_RUN_ID"])
    return hmac.new(key.encode("utf-8"), name.encode("ascii"), hashlib.sha256).hexdigest()


def read_status(path: str) -> "int | None":
    """Return the exit code a rank left, if it came to leave one."""
    try:
        with open(path) as file:
            found = re.fullmatch(r"(\d+)\s*", file.read())
    except OSError:
        return None
    return int(found.group(1)) if found else None
