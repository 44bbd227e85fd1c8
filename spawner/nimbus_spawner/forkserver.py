"""Starts sessions' servers as forks of a process that has imported all ahead.

Called as ``python -m nimbus_spawner.forkserver FD`` by a hub on its own machine, see
`forked.py`; FD is its end of a pair of unix sockets, on which nobody but the hub can ask. It says
``r`` on it once all is imported. For each ``c`` that comes with two descriptors, one end of a
pair of sockets that is this claim's alone and the log, it forks a child. On the claim's socket

    the hub sends      {"args": [...], "env": {...}, "cwd": "/home/ada",    as in `warm.py`
                        "account": {"uid": 1000, "gid": 1000, "groups": [1000]}}
                       the account is null where the hub's own is meant
    comes              {"pid": 4711}
    and                {"claimed": true, "is_stale": false}
    or                 {"error": "..."}: the child ends
    the hub sends      an empty line, without which the child ends, too
    at its end comes   {"exit": 0}, a signal as its negative number

each a line of JSON. Stale means that what is imported has changed on disk: the session is right,
its python was started anew, and whoever comes next had better have a new server.

Only the child reads the claim, so no session has seen what another was given, and it is in a
session of its own, with the account, before it does anything. When the hub goes or asks for no
more, this process ends with the last of its children; they go on meanwhile as if nothing had been.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import sys
from contextlib import suppress
from typing import Any

from nimbus_spawner.ahead import Ahead
from nimbus_spawner.claim import Claim

__all__ = ["main"]

_PR_SET_DUMPABLE = 4


class _Server:
    """What this process has: the hub's socket, and its children by the descriptors of each."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.children: dict[int, tuple[int, socket.socket]] = {}
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)

    def serve(self) -> tuple[socket.socket, int] | None:
        """Fork for as long as the hub asks; in a child, return its claim's socket and the log."""
        is_asked = True
        while is_asked or self.children:
            for descriptor, _ in self.poll.poll():
                if descriptor != self.control.fileno():
                    self._reap(descriptor)
                    continue
                message, descriptors, _, _ = socket.recv_fds(self.control, 1, 2)
                if not message:
                    is_asked = False
                    self.poll.unregister(self.control)
                    continue
                claim = self._fork(*descriptors)
                if claim is not None:
                    return claim
        return None

    def _fork(self, claims: int, log: int) -> tuple[socket.socket, int] | None:
        own = socket.socket(fileno=claims)
        pid = os.fork()
        if pid == 0:
            # Descriptors of others are closed by those who know them, not to be closed again.
            self.control.close()
            for descriptor, (_, other) in self.children.items():
                os.close(descriptor)
                other.close()
            return own, log
        os.close(log)
        _tell(own, {"pid": pid})
        descriptor = os.pidfd_open(pid)
        self.children[descriptor] = pid, own
        self.poll.register(descriptor, select.POLLIN)
        return None

    def _reap(self, descriptor: int) -> None:
        pid, own = self.children.pop(descriptor)
        self.poll.unregister(descriptor)
        os.close(descriptor)
        _tell(own, {"exit": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})
        own.close()


def _tell(own: socket.socket, message: dict[str, Any]) -> None:
    with suppress(OSError):  # The hub may want to know no more.
        own.sendall(json.dumps(message).encode() + b"\n")


def _enter(own: socket.socket, log: int) -> Claim:
    """Take the claim and make this process its account's; raise ValueError or OSError."""
    os.setsid()
    with own.makefile("rb") as lines:
        found = json.loads(lines.readline())
    account = found.pop("account")
    claim = Claim.parse(found)
    if account is not None:
        os.setgroups(account["groups"])
        os.setgid(account["gid"])
        os.setuid(account["uid"])
        if not os.access(sys.executable, os.X_OK):
            raise PermissionError(f"this account may not run {sys.executable}")
        # Else everything below /proc/self would stay root's, as after no other start.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    os.chdir(claim.cwd)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return claim


def main() -> None:
    """Import ahead, and fork until the hub goes."""
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    os.close(os.pidfd_open(os.getpid()))  # Where there are none it ends here.
    ahead = Ahead()
    # What the hub writes to may be a pipe, whose reader waits for the last who has it.
    os.dup2(0, 1)
    os.dup2(0, 2)
    control.sendall(b"r")
    given = _Server(control).serve()
    if given is None:
        return
    own, log = given
    try:
        claim = _enter(own, log)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _tell(own, {"error": str(error)})
        return
    _tell(own, {"claimed": True, "is_stale": ahead.is_stale()})
    # A hub that is killed, or whose user has changed their mind, must not leave a server behind.
    if not own.recv(1):
        return
    own.close()
    ahead.become(claim.args, claim.env)


if __name__ == "__main__":
    main()
