"""What supervisors have in common: a replica's main process, its record, and the kernel's part.

supervisor.py says what is in a record. It and warm.py import this from their own directory,
as a module of no package: so it is compiled once and not at each start.

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

__all__ = [
    "PATIENCE_SECONDS",
    "SIGNALS",
    "Replica",
    "become_subreaper",
    "descendants",
    "load",
    "send",
    "stat_fields",
    "take",
    "write",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1}
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PATIENCE_SECONDS = 5.0
"""How long killed processes may take to go; one that hangs in the kernel is left."""


class Replica:
    """One replica: its main process, when it must be gone, and its record in a directory."""

    is_guest = False
    """Whether its control group is another replica's, and its use is that one's."""

    def __init__(self, spec: "dict[str, Any]", path: str = ".") -> None:
        """Take what is to be run; the processes of a replica are children of this one."""
        self.spec = spec
        self.path = path
        self.child = 0
        self.spared = 0
        """A child that belongs to another replica, with all its descendants."""
        self.input = -1
        self.started_at = None  # type: float | None
        self.exit_code = None  # type: int | None
        self.deadline = None  # type: float | None
        self.was_stopped = False
        self.was_killed = False
        self.memory_kills = self.count_memory_kills()

    def start(self, reader: int, log: int, inherited: "tuple[int, ...]" = ()) -> str:
        """Fork and execute; return "" or, as "CODE SENTENCE", why it could not be.

        What it reads and its log are closed here.
        """
        source, sink = os.pipe()
        parent = os.getpid()
        self.started_at = time.time()
        # Whatever is sent meanwhile waits until the program is there.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self.child = os.fork()
        if self.child == 0:
            try:
                try:
                    problem = self.become(reader, log, inherited, parent)
                except OSError as error:
                    problem = "126 it cannot be started: %s" % error
                os.write(sink, problem.encode("utf-8", "replace"))
            finally:
                os._exit(127)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for descriptor in (sink, reader, log):
            os.close(descriptor)
        # The pipe closes when the program is executed.
        with open(source, encoding="utf-8") as report:
            problem = report.read()
        if problem:
            os.waitpid(self.child, 0)
        return problem

    def open_streams(self) -> "tuple[int, int]":
        """Open what the main process reads, and the log that it writes."""
        log = os.open(self.file("output.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        account = self.spec.get("account")
        if account:
            # So that programs may open /dev/stderr; the directory stays out of their reach.
            os.fchown(log, account["uid"], account["gid"])
        if not self.spec.get("has_input"):
            return os.open(os.devnull, os.O_RDONLY), log
        reader = os.open(self.file("input"), os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(reader, True)
        # Writers come and go; while this one is there, the input has not ended.
        self.input = os.open(self.file("input"), os.O_WRONLY)
        # Whoever ended it before this process could be told has left word.
        self.end_input()
        return reader, log

    def end_input(self) -> None:
        """Let the main process find the end of what it reads, if that was asked for."""
        if self.input >= 0 and os.path.exists(self.file("input.end")):
            os.close(self.input)
            self.input = -1

    def become(self, reader: int, log: int, inherited: "tuple[int, ...]", parent: int) -> str:
        """Turn this fresh child into the user's program; return only if that fails."""
        spec = self.spec
        os.setsid()
        for group in spec.get("cgroups", ()):
            try:
                with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as file:
                    file.write("0")
            except OSError as error:
                return "126 its limits cannot be set in %s: %s" % (group, error.strerror)
        for target, source in enumerate((reader, log, log)):
            os.dup2(source, target)
        for descriptor in inherited:
            os.set_inheritable(descriptor, True)
        try:
            self.drop_rights()
        except OSError as error:
            return "126 its account cannot be taken: %s" % error.strerror
        # After the change of account, which clears it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(127)
        os.umask(spec.get("umask", 0o022))
        try:
            os.chdir(spec["cwd"])
        except OSError as error:
            return "126 the directory %s cannot be entered: %s" % (spec["cwd"], error.strerror)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, *SIGNALS):
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

    def begin_stop(self) -> None:
        """Ask all processes to end; asked again, only a shorter grace changes something."""
        self.limit_grace(self.path)
        if not self.was_stopped:
            self.was_stopped = True
            self.signal_all(signal.SIGTERM)

    def limit_grace(self, path: str) -> None:
        """Take the grace that who stops has written to a record, if it is shorter."""
        grace = float(self.spec.get("grace_seconds", 10))
        try:
            grace = float(load(os.path.join(path, "stop.json"))["grace_seconds"])
        except (OSError, ValueError, KeyError):
            pass
        deadline = time.monotonic() + grace
        if self.deadline is None or deadline < self.deadline:
            self.deadline = deadline

    def kill_late(self) -> None:
        """Kill what has not ended after the grace."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.was_killed = True
            self.signal_all(signal.SIGKILL)
            self.deadline = time.monotonic() + 0.1

    def note_end(self, status: int) -> None:
        """Take the main process's status, as waitpid gives it."""
        signalled = os.WIFSIGNALED(status)
        self.exit_code = -os.WTERMSIG(status) if signalled else os.WEXITSTATUS(status)

    def signal_all(self, number: int) -> None:
        """Signal the process group of the main process, and every descendant outside of it."""
        if self.exit_code is None:
            send(os.killpg, self.child, number)
        for pid, group, is_alive in descendants(os.getpid(), self.spared):
            if is_alive and (group != self.child or self.exit_code is not None):
                send(os.kill, pid, number)

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
        return self.count_memory_kills() > self.memory_kills

    def count_memory_kills(self) -> int:
        """Return how many processes of its control group the kernel has killed so far."""
        path = self.spec.get("memory_events")
        if not path:
            return 0
        try:
            with open(path, encoding="ascii") as file:
                counts = dict(line.split() for line in file)
        except (OSError, ValueError):
            return 0
        return int(counts.get("oom_kill", "0"))

    def record_running(self, reason: str = "") -> None:
        """Record that it runs."""
        try:
            self.record({"state": "running", "pid": self.child, "reason": reason})
        except OSError as error:
            # A full disk does not end a replica; its end is recorded when there is room.
            sys.stderr.write("cannot record that it runs: %s\n" % error)

    def record_end(self, exit_code: "int | None", reason: str) -> None:
        """Record the end; what its control group and its use were goes with it."""
        end = {"state": "exited", "exit_code": exit_code, "reason": reason, "ended_at": time.time()}
        if not self.is_guest:
            used = os.times()
            end["cpu_seconds"] = used.children_user + used.children_system
        self.record(end, is_durable=True)
        for group in () if self.is_guest else self.spec.get("cgroups", ()):
            send(os.rmdir, group)

    def record(self, status: "dict[str, Any]", is_durable: bool = False) -> None:
        """Write the status with what is true in all of them."""
        status["directory"] = self.spec.get("directory", "")
        status["started_at"] = self.started_at
        write(self.file("status.json"), status, is_durable)

    def file(self, name: str) -> str:
        """Return where a file of the record is."""
        return os.path.join(self.path, name)


def take(path: str, **more: str) -> int:
    """Become the supervisor of a record; return its lock, to be kept open, or -1.

    A record that has, or ever had, a supervisor is not taken.
    """
    lock = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        names = ("supervisor.json", "status.json")
        is_free = not any(os.path.exists(os.path.join(path, name)) for name in names)
    except OSError:
        is_free = False
    if not is_free:
        os.close(lock)
        return -1
    try:
        write(os.path.join(path, "supervisor.json"), dict(own_identity(), **more))
    except OSError:
        os.close(lock)
        raise
    return lock


def become_subreaper() -> None:
    """Have every descendant whose parent ends become a child of this process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


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


def descendants(root: int, spared: int = 0) -> "list[tuple[int, int, bool]]":
    """Return (pid, process group, whether it is alive) of every process below one.

    A child that is ``spared`` is left out with all below it. Children of this very process
    stay, dead or alive, until it collects them: so it sees each that was there all the time,
    and if it sees none, there is none below it either.
    """
    children = {}  # type: dict[int, list[tuple[int, int, bool]]]
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = stat_fields(name)
            except (OSError, ValueError):
                continue
            entry = (int(name), int(fields[2]), fields[0] not in b"ZX")
            children.setdefault(int(fields[1]), []).append(entry)
    found = []
    pending = [root]
    while pending:
        below = [entry for entry in children.get(pending.pop(), ()) if entry[0] != spared]
        pending.extend(entry[0] for entry in below)
        found.extend(below)
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


def load(path: str) -> "dict[str, Any]":
    """Return what a file of a record says."""
    with open(path, encoding="utf-8") as file:
        found = json.load(file)  # type: dict[str, Any]
    return found


def write(path: str, value: "dict[str, Any]", is_durable: bool = False) -> None:
    """Replace a file whole, so that a reader never sees a part of it."""
    folder, name = os.path.split(path)
    partial = os.path.join(folder, "." + name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(value, file)
        if is_durable:
            file.flush()
            os.fsync(file.fileno())
    os.rename(partial, path)
