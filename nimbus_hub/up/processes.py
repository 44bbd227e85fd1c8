"""Processes that are found again: a pid alone may have been given to somebody else.

A process is recorded as its pid and its start time; only together they name it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from nimbus_hub.up.state import read_json, write_private_json

__all__ = ["ProcessRecord"]

_SAME_START_SECONDS = 0.05
"""Start times are computed from the boot time and differ a little between readings."""


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process by pid and start time (seconds since the epoch)."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """Record a process that runs; one that is gone gets a start time nothing matches."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return cls(pid, 0.0)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a record that :meth:`write` left, or None."""
        found = read_json(path)
        try:
            return cls(int(found["pid"]), float(found["started"]))
        except (KeyError, TypeError, ValueError):
            return None

    def write(self, path: Path) -> None:
        """Keep the record in a file only the owner can read."""
        write_private_json(path, asdict(self))

    @property
    def is_alive(self) -> bool:
        """Tell whether this very process runs.

        A zombie does not, unless threads of it are still ending: its ports are taken until then.
        """
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < _SAME_START_SECONDS and (
                process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
            )
        except psutil.NoSuchProcess:
            return False

    def send(self, number: int) -> bool:
        """Send a signal; tell whether the process was still there."""
        if not self.is_alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    async def gone(self, timeout_seconds: float) -> bool:
        """Wait for the end; tell whether it came in time."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while self.is_alive:
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    async def end(self, grace_seconds: float = 10) -> None:
        """End the process: SIGTERM, and SIGKILL when the grace is over. Repeating is harmless."""
        if self.send(signal.SIGTERM) and not await self.gone(grace_seconds):
            self.send(signal.SIGKILL)
            await self.gone(grace_seconds)
