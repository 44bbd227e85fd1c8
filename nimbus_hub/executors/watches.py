"""Watches: how the executor learns at once that a replica has changed.

A supervisor's end is told by the kernel. What runs in its holder's place is told of by that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine

from nimbus_hub.executors.holders import HeldRun
from nimbus_hub.executors.processes import Process
from nimbus_hub.executors.records import Record

__all__ = ["Watches"]


class Watches:
    """What is watched, each replica once."""

    def __init__(self, on_change: Callable[[str], None], on_end: Callable[[str], None]) -> None:
        """Call with a replica's id when its status changed, and when nothing will any more."""
        self._on_change = on_change
        self._on_end = on_end
        self._ends: dict[str, int] = {}
        self._runs: dict[str, asyncio.Task[None]] = {}

    def watch(self, replica_id: str, process: Process) -> bool:
        """Have the end of a supervisor noticed; tell whether that can be done."""
        if replica_id in self._ends:
            return True
        try:
            descriptor = process.open()
        except OSError:
            return False
        if descriptor is None:
            return False
        self._ends[replica_id] = descriptor
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, self._ended, replica_id, process.pid)
        return True

    def follow(self, replica_id: str, run: HeldRun) -> None:
        """Have changes of a replica noticed that has just been handed over."""
        task = self._own(replica_id, self._follow(replica_id, run))
        # A task that is cancelled at once does nothing at all.
        task.add_done_callback(lambda _: run.close())

    def find(self, replica_id: str, record: Record, holder: Record) -> None:
        """Have changes of a replica noticed that an earlier service has handed over."""
        if replica_id not in self._runs:
            self._own(replica_id, self._find(replica_id, record, holder))

    async def close(self) -> None:
        """Let go of everything."""
        tasks = list(self._runs.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for replica_id in list(self._ends):
            self._forget(replica_id)

    def _own(self, replica_id: str, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._runs[replica_id] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._runs.pop(replica_id))
        return task

    async def _find(self, replica_id: str, record: Record, holder: Record) -> None:
        run = await HeldRun.find(holder, record)
        # None: asked again when somebody asks for the replica again.
        if run is not None:
            try:
                await self._follow(replica_id, run)
            finally:
                run.close()

    async def _follow(self, replica_id: str, run: HeldRun) -> None:
        while await run.has_changed():
            self._on_change(replica_id)
        self._on_end(replica_id)

    def _ended(self, replica_id: str, pid: int) -> None:
        self._forget(replica_id)
        # If it is a child of this very process, it waits to be collected.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        self._on_end(replica_id)

    def _forget(self, replica_id: str) -> None:
        descriptor = self._ends.pop(replica_id)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
