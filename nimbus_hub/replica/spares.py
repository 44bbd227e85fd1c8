"""The holder's main process as warm.py sees it, and the spare that it has forked.

Both run under the owner's account, so that nothing they say is trusted: a pid must be that
of a child of this process, and what cannot be understood is the end of them.

Python 3.6 and later, standard library only.
"""

# ruff: noqa: PTH100, PTH120, SIM105

import array
import json
import os
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from nimbus_hub.replica import supervision
else:
    import supervision

__all__ = ["Poller", "Server", "Spare", "send_descriptors"]

DEATHS = 3
"""So many quick deaths in a row are the end."""
QUICK_SECONDS = 60.0
PAUSE_SECONDS = 1.0
"""Between two tries at what has failed."""
LONGEST_ANSWER = 4096


class Poller:
    """Calls what is to be called when there is something to be read."""

    def __init__(self) -> None:
        self.poll = select.poll()
        self.actions = {}  # type: dict[int, Callable[[], None]]

    def follow(self, descriptor: int, action: "Callable[[], None]") -> None:
        """Call from now on."""
        self.actions[descriptor] = action
        self.poll.register(descriptor, select.POLLIN)

    def forget(self, descriptor: int) -> None:
        """Do not call any more; to be told before it is closed."""
        if self.actions.pop(descriptor, None) is not None:
            self.poll.unregister(descriptor)

    def wait(self, moments: "list[float]") -> None:
        """Wait until there is something, or for the first of some moments; do what is to be."""
        patience = None  # type: float | None
        if moments:
            patience = max(0.0, min(moments) - time.monotonic()) * 1000 + 1
        for descriptor, _ in self.poll.poll(patience):
            action = self.actions.get(descriptor)
            # Another one may have let go of it meanwhile.
            if action is not None:
                action()


class Spare:
    """A process forked ahead of time; the run's main process, once there is one."""

    def __init__(self, own: socket.socket) -> None:
        self.own = own
        self.pid = 0
        self.is_gone = False
        self.heard = b""

    def messages(self) -> "list[dict[str, Any]] | None":
        """Return what it says now, None if it does not any more."""
        try:
            data = self.own.recv(LONGEST_ANSWER)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        *lines, self.heard = (self.heard + data).split(b"\n")
        try:
            found = [json.loads(line.decode("ascii")) for line in lines]
        except (ValueError, RecursionError):
            return None
        is_sound = len(self.heard) < LONGEST_ANSWER and all(isinstance(one, dict) for one in found)
        return found if data and is_sound else None

    def introduce(self, pid: object) -> bool:
        """Take the pid it says if that is a child of this process; tell whether it is."""
        try:
            parent = int(supervision.stat_fields(str(int(str(pid))))[1])
        except (OSError, ValueError):
            return False
        if parent == os.getpid():
            self.pid = int(str(pid))
        return self.pid > 0

    def note_end(self) -> None:
        """Take that it has been collected: its pid may soon be somebody else's."""
        self.is_gone = True

    def kill(self) -> None:
        """End it."""
        if self.pid and not self.is_gone:
            supervision.send(os.kill, self.pid, signal.SIGKILL)


class Server:
    """The holder's main process: python with forkserver.py."""

    def __init__(self, holder: "supervision.Replica", poller: Poller) -> None:
        self.holder = holder
        self.poller = poller
        self.control = None  # type: socket.socket | None
        self.spare = None  # type: Spare | None
        self.is_ready = False
        self.is_stale = False
        self.started_at = 0.0
        self.again_at = 0.0
        self.deaths = 0
        self.failure = ""

    @property
    def pid(self) -> int:
        """Return the pid of the process, 0 if it is gone."""
        return self.holder.child if self.holder.exit_code is None else 0

    @property
    def is_dead(self) -> bool:
        """Tell whether it has ended and this was not noted yet."""
        return self.control is not None and self.holder.exit_code is not None

    def start(self) -> None:
        """Start it; what can never be started is a failure at once."""
        holder = self.holder
        here = os.open(os.path.dirname(os.path.abspath(__file__)), os.O_RDONLY | os.O_DIRECTORY)
        self.control, theirs = socket.socketpair()
        self.control.setblocking(False)
        python = list(holder.spec["argv"])
        script = "/proc/self/fd/%d/forkserver.py" % here
        holder.spec["argv"] = [*python, script, str(theirs.fileno()), *holder.spec["modules"]]
        holder.exit_code = None
        self.started_at = time.monotonic()
        problem = holder.start(*holder.open_streams(), inherited=(here, theirs.fileno()))
        holder.spec["argv"] = python
        os.close(here)
        theirs.close()
        if problem:
            code, _, self.failure = problem.partition(" ")
            holder.exit_code = int(code)
            self.control.close()
            self.control = None
        else:
            self.poller.follow(self.control.fileno(), self.hear)

    def hear(self) -> None:
        """Take its word that it is ready; it has no other."""
        assert self.control is not None
        try:
            self.is_ready = self.control.recv(1) == b"r"
        except OSError:
            self.is_ready = False
        self.poller.forget(self.control.fileno())
        if not self.is_ready:
            # Without this connection it is of no use.
            self.kill()

    def ask(self, hear: "Callable[[], None]") -> None:
        """Have it fork a spare; whatever that says is to be heard."""
        assert self.control is not None
        own, theirs = socket.socketpair()
        own.setblocking(False)
        self.spare = Spare(own)
        self.poller.follow(own.fileno(), hear)
        try:
            send_descriptors(self.control, theirs.fileno())
        except OSError:
            # It is gone, as its parent will be told.
            pass
        theirs.close()

    def drop_spare(self, pause: float = 0.0) -> None:
        """Let go of the spare, whatever it is by now, and ask for another after a pause."""
        if self.spare is not None:
            self.poller.forget(self.spare.own.fileno())
            self.spare.own.close()
            self.spare.kill()
            self.spare = None
        self.again_at = max(self.again_at, time.monotonic() + pause)

    def renew(self) -> None:
        """Have it replaced: what it has imported is not what a new one would."""
        self.is_ready = False
        self.kill()

    def kill(self) -> None:
        """End it."""
        if self.pid:
            supervision.send(os.kill, self.pid, signal.SIGKILL)

    def note_death(self) -> None:
        """Let go of one that has ended, and decide whether there will be another."""
        assert self.control is not None
        self.poller.forget(self.control.fileno())
        self.control.close()
        self.control = None
        self.is_ready = False
        if self.is_stale or self.holder.was_stopped:
            self.is_stale = False
            return
        was_quick = time.monotonic() - self.started_at < QUICK_SECONDS
        self.deaths = self.deaths + 1 if was_quick else 1
        self.again_at = time.monotonic() + PAUSE_SECONDS
        how = self.holder.reason() or "exit code %s" % self.holder.exit_code
        sys.stderr.write("what keeps it warm has ended: %s\n" % how)
        if self.deaths >= DEATHS:
            self.failure = "what keeps it warm ended %d times, at last: %s" % (DEATHS, how)


def send_descriptors(own: socket.socket, *descriptors: int) -> None:
    """Send one byte with descriptors."""
    rights = array.array("i", descriptors)
    own.sendmsg([b"r"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
