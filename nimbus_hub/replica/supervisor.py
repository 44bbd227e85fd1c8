"""Runs one replica to its end and leaves on disk what became of it.

Called as ``python -I -S supervisor.py DIRECTORY [READY_FD]``. It belongs to no service: it
is started in a session of its own, keeps no connection, and is found again by what is in
the directory (every file but the log is replaced whole, by rename):

    spec.json        read: argv, env, cwd, account, cgroups, grace_seconds, directory, ...
    lock             held while this process lives; who does not get it goes away
    supervisor.json  pid, start_time (ticks since boot) and boot_id of this process
    stop.json        read: {"grace_seconds": n}; written by who asks for the end, before SIGTERM
    status.json      {"state": "running", "pid", ...}, then {"state": "exited", ...}
    output.log       standard output and error, written by the replica itself

The replica's processes are all descendants of this one (it is the subreaper), so none can
hide from it. The replica is over when its main process is: what is left then is killed
before the end is recorded, so that the log is complete when the record says exited.

Python 3.6 and later, standard library only, and little of it: every import delays the
user's first line. Hence os.path and not pathlib, and annotations only as strings.
"""

# ruff: noqa: PTH104, PTH110, PTH118, PTH123, PTH208, SIM105

import ctypes
import errno
import fcntl
import json
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PATIENCE_SECONDS = 5.0
"""How long killed processes may take to go; one that hangs in the kernel is left."""


def main(arguments: "list[str]") -> int:
    """Run the replica whose record is the directory given; return this process's exit code."""
    ready = int(arguments[2]) if len(arguments) > 2 else -1
    if ready >= 0:
        os.set_inheritable(ready, False)
    os.chdir(arguments[1])
    lock = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 0
    if os.path.exists("supervisor.json") or os.path.exists("status.json"):
        return 0
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    write("supervisor.json", own_identity())
    with open("spec.json", encoding="utf-8") as file:
        supervisor = Supervisor(json.load(file))
    # Who stops writes stop.json first and then looks for supervisor.json: one sees the other.
    if os.path.exists("stop.json"):
        supervisor.record_end(None, "stopped before it was started")
    else:
        supervisor.run(ready)
    return 0


class Supervisor:
    """One replica: its main process, and when it must be gone."""

    def __init__(self, spec: "dict[str, Any]") -> None:
        """Take what is to be run."""
        self.spec = spec
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.child = 0
        self.started_at = None  # type: float | None
        self.exit_code = None  # type: int | None
        self.deadline = None  # type: float | None
        self.was_stopped = False
        self.was_killed = False

    def run(self, ready: int) -> None:
        """Start the main process, wait for its end and record it."""
        self.libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        problem = self.start()
        if problem:
            code, _, reason = problem.partition(" ")
            os.waitpid(self.child, 0)
            self.record_end(int(code), reason)
            return
        try:
            self.record({"state": "running", "pid": self.child}, is_durable=False)
        except OSError as error:
            # A full disk does not end a replica; its end is recorded when there is room.
            sys.stderr.write("cannot record that it runs: %s\n" % error)
        if ready >= 0:
            os.close(ready)
        while self.exit_code is None:
            self.wait()
        self.kill_rest()
        self.record_end(self.exit_code, self.reason())

    def start(self) -> str:
        """Fork and execute; return "" or, as "CODE SENTENCE", why it could not be."""
        log = os.open("output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        account = self.spec.get("account")
        if account:
            # So that programs may open /dev/stderr; the directory stays out of their reach.
            os.fchown(log, account["uid"], account["gid"])
        source, sink = os.pipe()
        parent = os.getpid()
        self.started_at = time.time()
        self.child = os.fork()
        if self.child == 0:
            try:
                try:
                    problem = self.become(log, parent)
                except OSError as error:
                    problem = "126 it cannot be started: %s" % error
                os.write(sink, problem.encode("utf-8", "replace"))
            finally:
                os._exit(127)
        os.close(sink)
        os.close(log)
        # The pipe closes when the program is executed.
        with open(source, encoding="utf-8") as report:
            return report.read()

    def become(self, log: int, parent: int) -> str:
        """Turn this fresh child into the user's program; return only if that fails."""
        spec = self.spec
        os.setsid()
        for group in spec.get("cgroups", ()):
            try:
                with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as file:
                    file.write("0")
            except OSError as error:
                return "126 its limits cannot be set in %s: %s" % (group, error.strerror)
        null = os.open(os.devnull, os.O_RDONLY)
        for target, source in enumerate((null, log, log)):
            os.dup2(source, target)
        try:
            self.drop_rights()
        except OSError as error:
            return "126 its account cannot be taken: %s" % error.strerror
        # After the change of account, which clears it.
        self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(127)
        os.umask(spec.get("umask", 0o022))
        try:
            os.chdir(spec["cwd"])
        except OSError as error:
            return "126 the directory %s cannot be entered: %s" % (spec["cwd"], error.strerror)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        env = {"PYTHONUNBUFFERED": "1"}
        env.update(spec["env"])
        return execute(spec["argv"], env)

    def drop_rights(self) -> None:
        """Become the owner's account, if it is another one."""
        account = self.spec.get("account")
        if account:
            os.setgroups(account["groups"])
            os.setgid(account["gid"])
            os.setuid(account["uid"])

    def wait(self) -> None:
        """Wait for a child's end, a request to stop, or the end of the grace."""
        if self.deadline is None:
            happened = signal.sigwaitinfo(SIGNALS)  # type: signal.struct_siginfo | None
        else:
            left = max(0.0, self.deadline - time.monotonic())
            happened = signal.sigtimedwait(SIGNALS, left)
        self.reap()
        if self.exit_code is not None:
            return
        if happened is not None and happened.si_signo == signal.SIGTERM:
            self.begin_stop()
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.was_killed = True
            self.signal_all(signal.SIGKILL)
            self.deadline = time.monotonic() + 0.1

    def begin_stop(self) -> None:
        """Ask all processes to end; asked again, only a shorter grace changes something."""
        grace = float(self.spec.get("grace_seconds", 10))
        try:
            with open("stop.json", encoding="utf-8") as file:
                grace = float(json.load(file)["grace_seconds"])
        except (OSError, ValueError, KeyError):
            pass
        deadline = time.monotonic() + grace
        if self.deadline is None or deadline < self.deadline:
            self.deadline = deadline
        if not self.was_stopped:
            self.was_stopped = True
            self.signal_all(signal.SIGTERM)

    def reap(self) -> "bool":
        """Collect every child that has ended; tell whether any is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.child:
                signalled = os.WIFSIGNALED(status)
                self.exit_code = -os.WTERMSIG(status) if signalled else os.WEXITSTATUS(status)

    def signal_all(self, number: int) -> None:
        """Signal the process group of the main process, and every descendant outside of it."""
        if self.exit_code is None:
            send(os.killpg, self.child, number)
        for pid, group in descendants(os.getpid()):
            if group != self.child or self.exit_code is not None:
                send(os.kill, pid, number)

    def kill_rest(self) -> None:
        """Kill what the main process left behind and wait until it is gone."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.reap() and time.monotonic() < end:
            self.signal_all(signal.SIGKILL)
            signal.sigtimedwait({signal.SIGCHLD}, 0.02)

    def reason(self) -> str:
        """Say what the exit code does not."""
        if self.was_out_of_memory() and self.exit_code:
            size = self.spec["memory_bytes"] / 2.0**20
            return "ended by its memory limit of %.0f MiB; ask for more memory" % size
        if self.was_killed:
            return "stopped; killed because it had not ended after the grace"
        if self.was_stopped:
            return "stopped"
        if self.exit_code == -signal.SIGKILL:
            return "killed by SIGKILL from outside, perhaps because the host had no memory left"
        if self.exit_code is not None and self.exit_code < 0:
            return "ended by %s" % signal.Signals(-self.exit_code).name
        return ""

    def was_out_of_memory(self) -> bool:
        """Tell whether the kernel killed a process for the replica's own memory limit."""
        path = self.spec.get("memory_events")
        if not path:
            return False
        try:
            with open(path, encoding="ascii") as file:
                counts = dict(line.split() for line in file)
        except (OSError, ValueError):
            return False
        return int(counts.get("oom_kill", "0")) > 0

    def record_end(self, exit_code: "int | None", reason: str) -> None:
        """Record the end, and take the limits away."""
        end = {"state": "exited", "exit_code": exit_code, "reason": reason, "ended_at": time.time()}
        self.record(end, is_durable=True)
        for group in self.spec.get("cgroups", ()):
            send(os.rmdir, group)

    def record(self, status: "dict[str, Any]", is_durable: bool) -> None:
        """Write the status with what is true in all of them."""
        status["directory"] = self.spec.get("directory", "")
        status["started_at"] = self.started_at
        write("status.json", status, is_durable)


def execute(argv: "list[str]", env: "dict[str, str]") -> str:
    """Execute the first program of that name on PATH; return only if that fails."""
    name = argv[0]
    folders = env.get("PATH", os.defpath).split(os.pathsep)
    paths = [name] if "/" in name else [os.path.join(folder, name) for folder in folders if folder]
    problem = "127 the program %r was not found" % name
    for path in paths:
        try:
            os.execve(path, argv, env)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                problem = "126 the program %r cannot be run: %s" % (path, error.strerror)
        except ValueError as error:
            return "126 the program %r cannot be run: %s" % (name, error)
    return problem


def descendants(root: int) -> "list[tuple[int, int]]":
    """Return (pid, process group) of every process below one, zombies left out."""
    children = {}  # type: dict[int, list[tuple[int, int, bytes]]]
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = stat_fields(name)
            except (OSError, ValueError):
                continue
            entry = (int(name), int(fields[2]), fields[0])
            children.setdefault(int(fields[1]), []).append(entry)
    found = []
    pending = [root]
    while pending:
        for pid, group, state in children.get(pending.pop(), ()):
            pending.append(pid)
            if state not in b"ZX":
                found.append((pid, group))
    return found


def stat_fields(pid: str) -> "list[bytes]":
    """Return the fields of /proc/PID/stat from the state on; the name before may hold anything."""
    with open("/proc/%s/stat" % pid, "rb") as file:
        text = file.read()
    return text[text.rindex(b")") + 2 :].split()


def own_identity() -> "dict[str, Any]":
    """Return what tells this process from any other that will ever have its pid."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = file.read().strip()
    return {"pid": os.getpid(), "start_time": int(stat_fields("self")[19]), "boot_id": boot_id}


def send(action: "Any", *arguments: object) -> None:
    """Do what may come too late: the process or directory may be gone by now."""
    try:
        action(*arguments)
    except OSError:
        pass


def write(name: str, value: "dict[str, Any]", is_durable: bool = False) -> None:
    """Replace a file whole, so that a reader never sees a part of it."""
    partial = "." + name + ".partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(value, file)
        if is_durable:
            file.flush()
            os.fsync(file.fileno())
    os.rename(partial, name)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
