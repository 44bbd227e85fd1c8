"""The fork servers of a hub: one for each environment's python, kept while they are of use.

A server is started when somebody is about to need it, in the background, and is of use once it has
imported everything. It is let go when nobody started a session for a while, when all of them
together take too much memory, the longest unused first, and when what it imported has changed.
"""

from __future__ import annotations

import logging
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import psutil

from nimbus_spawner.forked import Forked, NoAnswer, NotForked

__all__ = ["ForkServer", "ForkServers"]

log = logging.getLogger(__name__)

_ROOM_BYTES = 2**15
"""Where a server's environment is, the one of a session is shown in /proc: it needs room."""
_PAUSE_SECONDS = 600.0
"""For so long none is started anew where one could not even import, or takes too much memory."""


class ForkServer:
    """A process that imports ahead, and forks when it is asked to."""

    def __init__(self, python: str, env: Mapping[str, str]) -> None:
        """Start it; raise OSError if there is no such program."""
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        self._is_ready = False
        with theirs:
            self._process = subprocess.Popen(
                [python, "-m", "nimbus_spawner.forkserver", str(theirs.fileno())],
                env={**env, "NIMBUS_WARM_ROOM": " " * _ROOM_BYTES},
                cwd="/",
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Return the process's number."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Tell whether it runs, importing or ready."""
        return self._process.poll() is None

    @property
    def is_ready(self) -> bool:
        """Tell whether it has imported everything."""
        if not self._is_ready:
            with suppress(OSError):
                self._is_ready = self._control.recv(1) == b"r"
        return self._is_ready

    @property
    def memory_bytes(self) -> int:
        """Return what it holds in memory."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    async def fork(self, claim: Mapping[str, Any], log_file: int) -> tuple[Forked, bool]:
        """Start a session's server; return it, and whether this one is out of date.

        Raises NotForked.
        """
        ours, theirs = socket.socketpair()
        forked = Forked(ours)
        try:
            with theirs:
                socket.send_fds(self._control, [b"c"], [theirs.fileno(), log_file])
            return forked, await forked.claim(claim)
        except OSError as error:
            forked.close()
            raise NotForked(str(error)) from error
        except BaseException:
            forked.close()
            raise

    def kill(self) -> None:
        """End it at once; what it forked goes on, and nobody will know how that ends."""
        self._process.kill()

    def retire(self) -> None:
        """Have it fork no more. It ends with the last that it forked, whose ends it still tells."""
        self._control.close()


class ForkServers:
    """Those of a hub; ``seconds`` tells the time by a clock that only runs forward."""

    def __init__(
        self,
        seconds: Callable[[], float],
        start: Callable[[str, Mapping[str, str]], ForkServer] = ForkServer,
    ) -> None:
        self._seconds = seconds
        self._start = start
        self._servers: dict[str, ForkServer] = {}
        self._used_at: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._retired: list[ForkServer] = []

    def prepare(self, python: str, env: Mapping[str, str]) -> None:
        """Have a server for this python soon, unless there is one or it could not start."""
        self._look(python)
        now = self._used_at[python] = self._seconds()
        if python in self._servers or now < self._not_before.get(python, now):
            return
        try:
            self._servers[python] = self._start(python, env)
        except OSError as error:
            self._give_up(python, str(error))

    async def fork(self, python: str, claim: Mapping[str, Any], log_file: int) -> Forked | None:
        """Start a session's server; return None if nobody can now, raise NotForked if it failed."""
        self._look(python)
        server = self._servers.get(python)
        if server is None or not server.is_ready:
            return None
        self._used_at[python] = self._seconds()
        try:
            forked, is_stale = await server.fork(claim, log_file)
        except NoAnswer:
            server.kill()
            raise
        if is_stale and self._servers.get(python) is server:
            self._retire(python)
        return forked

    def spare(self, keep_seconds: float, memory_bytes: int) -> None:
        """Let go of those that nobody used for so long, or that take more memory in all."""
        now, left = self._seconds(), memory_bytes
        for python in sorted(self._servers, key=self._used_at.__getitem__, reverse=True):
            needed = self._servers[python].memory_bytes
            left -= needed
            if needed > memory_bytes:
                takes, may = f"{needed >> 20} MiB of memory", f"{memory_bytes >> 20} MiB"
                self._give_up(python, f"it takes {takes}, and may take {may}")
            if left < 0 or now - self._used_at[python] > keep_seconds:
                self._retire(python)

    def _look(self, python: str) -> None:
        """Note which processes have ended."""
        self._retired = [server for server in self._retired if server.is_alive]
        server = self._servers.get(python)
        if server is not None and not server.is_alive:
            if not server.is_ready:
                self._give_up(python, "it ended while it imported")
            self._retire(python)

    def _give_up(self, python: str, reason: str) -> None:
        log.warning("No warm sessions of %s for a while: %s", python, reason)
        self._not_before[python] = self._seconds() + _PAUSE_SECONDS

    def _retire(self, python: str) -> None:
        server = self._servers.pop(python)
        server.retire()
        self._retired.append(server)
