"""Logs: what replicas wrote, now and as it comes. Offsets are in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.jobs import Jobs, JobView
from nimbus_hub.control.records import Records
from nimbus_hub.errors import NotFound, Unavailable
from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.replica import LogChunk, Replica

__all__ = ["LogPart", "Logs"]

_CHUNK = 64 * 1024
_TAIL_BYTES_PER_LINE = 400
_LONGEST_TAIL_BYTES = 4 * 2**20
_FIRST_SECONDS = 0.004
"""How soon after a job changed its output is looked at: people wait for the first line."""
_QUICK_SECONDS = 0.02
_SLOW_SECONDS = 0.25
_LONGEST_CHARACTER = 4
_FIRST_CONTINUATION, _FIRST_LEAD = 0x80, 0xC0


@dataclass(frozen=True, slots=True)
class LogPart:
    """Some output of one replica."""

    replica: Replica
    chunk: LogChunk


class Logs:
    """Reads the output of replicas through their executors."""

    def __init__(self, records: Records, jobs: Jobs, inventory: Inventory) -> None:
        self._records = records
        self._jobs = jobs
        self._inventory = inventory

    async def replicas(
        self, job: Job, name: str | None = None, attempt: int | None = None
    ) -> tuple[Replica, ...]:
        """Return the replicas of an attempt (0: of all), or the one of a name; raise NotFound.

        Without an attempt those of the present one, or of the last while a job waits again.
        """
        wanted = None if attempt == 0 else attempt or _shown_attempt(job)
        replicas = await self._records.replicas(job.id, wanted)
        if name is None:
            return replicas
        named = tuple(replica for replica in replicas if replica.name == name)
        if not named:
            there_is = ", ".join(sorted({replica.name for replica in replicas})) or "none yet"
            raise NotFound(f"job {job.id} has no replica {name!r}; it has {there_is}")
        return named

    async def read(self, replica: Replica, offset: int, limit: int) -> LogPart:
        """Return at most ``limit`` bytes of a replica's output from ``offset``."""
        executor = self._inventory.keeper(replica.host, replica.id)
        return LogPart(replica, _whole(await executor.read_output(replica.id, offset, limit)))

    async def tail(self, replica: Replica, lines: int, limit: int = _LONGEST_TAIL_BYTES) -> LogPart:
        """Return about the last lines of a replica's output, whole lines only."""
        size = min(max(lines, 1) * _TAIL_BYTES_PER_LINE, limit)
        part = await self.read(replica, -size, size)
        kept = b"".join(part.chunk.data.splitlines(keepends=True)[-lines:]) if lines else b""
        skipped = len(part.chunk.data) - len(kept)
        chunk = LogChunk(part.chunk.offset + skipped, kept, part.chunk.is_complete)
        return LogPart(replica, chunk)

    async def follow(
        self, job_id: str, *, name: str | None = None, tail: int | None = None
    ) -> AsyncIterator[LogPart | JobView]:
        """Yield a job at each change and its output as it comes, until both are over.

        Follows over all attempts. Whoever follows again gives ``tail`` or skips by offset.
        """
        offsets: dict[str, int] = {}
        complete: set[str] = set()
        version, pause = 0, _FIRST_SECONDS
        while True:
            view = await self._jobs.get(job_id)
            is_changed = view.job.version > version
            if is_changed:
                version = view.job.version
                yield view
            replicas = await self._wanted(view, name)
            moved = False
            async for part in self._new_parts(replicas, offsets, complete, tail):
                moved = moved or bool(part.chunk.data)
                yield part
            if view.job.state.is_end and not moved:
                return
            if is_changed:
                pause = _FIRST_SECONDS
            else:
                pause = _QUICK_SECONDS if moved else min(pause * 1.3, _SLOW_SECONDS)
            await asyncio.sleep(pause)

    async def _wanted(self, view: JobView, name: str | None) -> Sequence[Replica]:
        replicas = await self._records.replicas(view.job.id)
        return [replica for replica in replicas if name in (None, replica.name)]

    async def _new_parts(
        self,
        replicas: Sequence[Replica],
        offsets: dict[str, int],
        complete: set[str],
        tail: int | None,
    ) -> AsyncIterator[LogPart]:
        for replica in replicas:
            if replica.id in complete:
                continue
            try:
                if replica.id not in offsets and tail is not None:
                    part = await self.tail(replica, tail)
                else:
                    part = await self.read(replica, offsets.get(replica.id, 0), _CHUNK)
            except Unavailable:
                continue
            offsets[replica.id] = part.chunk.next_offset
            if part.chunk.is_complete:
                complete.add(replica.id)
            if part.chunk.data or part.chunk.is_complete:
                yield part


def _shown_attempt(job: Job) -> int:
    return max(1, job.attempt - (job.state is JobState.QUEUED))


def _whole(chunk: LogChunk) -> LogChunk:
    """Leave a UTF-8 character whose last bytes are still to come for the next read."""
    if chunk.is_complete:
        return chunk
    for back in range(1, min(_LONGEST_CHARACTER, len(chunk.data) + 1)):
        byte = chunk.data[-back]
        if byte >= _FIRST_LEAD:
            is_cut = back < 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return LogChunk(chunk.offset, chunk.data[:-back], False) if is_cut else chunk
        if byte < _FIRST_CONTINUATION:
            return chunk
    return chunk
