"""Retention: what jobs have left is deleted when somebody wants that, or when it is old.

The record of a job stays, with its end and its reason; it says when and why the rest was
deleted. Nothing is deleted of a job that is not over, nor before the last of its use is noted.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.records import Records
from nimbus_hub.control.snapshots import Snapshots
from nimbus_hub.errors import Conflict, NimbusError
from nimbus_hub.executors.base import Executor
from nimbus_hub.model.job import Job
from nimbus_hub.model.quantities import format_duration

__all__ = ["Retention"]

log = logging.getLogger(__name__)

_LOOK = timedelta(minutes=10)
"""How often it is looked at what is old."""
_SNAPSHOTS = timedelta(hours=1)
_FRESH = timedelta(days=1)
"""So long a snapshot is kept that no job needs: one is uploaded before its job is submitted."""
_AT_ONCE = 100
_NEXT = timedelta(seconds=1)


class Retention:
    """Deletes, and tries again what could not be deleted."""

    def __init__(
        self,
        records: Records,
        inventory: Inventory,
        snapshots: Snapshots,
        keep: timedelta | None,
        measure: timedelta,
    ) -> None:
        """Keep what ended jobs left so long, None for ever; use is measured so often."""
        self._records = records
        self._inventory = inventory
        self._snapshots = snapshots
        self._keep = keep
        self._settling = 2 * measure
        self._next_look: datetime | None = None
        self._next_snapshots: datetime | None = None
        self._failed: frozenset[str] = frozenset()

    async def delete(self, job_id: str, reason: str) -> Job:
        """Record that what a job left is to be deleted; raise Conflict if it is not over."""
        while True:
            job = await self._records.job(job_id)
            now = self._records.clock.now()
            deleting = job.deleting(reason, now)
            if deleting is job:
                return job
            try:
                (job,) = await self._records.save(deleting)
            except Conflict:
                continue
            self._look_by(now)
            self._records.wake()
            log.info("job %s: what it left is deleted: %s", job.id, reason)
            return job

    def is_due(self, now: datetime) -> bool:
        """Tell whether there may be something to delete."""
        return self._next_look is None or now >= self._next_look

    @property
    def next_due(self) -> datetime | None:
        """Return when there may be something to delete."""
        return self._next_look

    async def step(self) -> None:
        """Delete what is due."""
        now = self._records.clock.now()
        self._next_look = now + _LOOK
        before = None if self._keep is None else now - self._keep
        limit = _AT_ONCE + len(self._failed)
        jobs = await self._records.read(self._records.store.jobs_given_up, before, limit)
        failed: set[str] = set()
        for job in jobs:
            settled_at = (job.ended_at or now) + self._settling
            if settled_at > now:
                self._look_by(settled_at)
                continue
            try:
                await self._delete(job, now)
            except NimbusError as error:
                failed.add(job.id)
                log.warning("what job %s left is deleted later: %s", job.id, error)
        self._failed = frozenset(failed)
        if len(jobs) == limit:
            self._look_by(now + _NEXT)
        await self._delete_snapshots(now)

    async def _delete(self, job: Job, now: datetime) -> None:
        """Delete what one job left; first it is said, so that nobody reads a part of it."""
        if job.deleted_at is None:
            assert self._keep is not None
            reason = f"what jobs leave is kept for {format_duration(self._keep)} after their end"
            (job,) = await self._records.save(job.deleting(reason, now))
        asked: dict[Executor, list[str]] = {}
        for replica in await self._records.replicas(job.id):
            # One that is with nobody has left nothing that could be reached.
            for executor in self._inventory.executors:
                if executor.keeps(replica.id):
                    asked.setdefault(executor, []).append(replica.id)
        workspace = job.lease_id if job.is_holder else None
        for executor, replica_ids in asked.items():
            await executor.delete(job.id, replica_ids, workspace)
        await self._records.note(job.without_leavings())
        log.info("job %s: what it left is gone: %s", job.id, job.deletion)

    async def _delete_snapshots(self, now: datetime) -> None:
        """Delete working directories that no job can start from any more."""
        if self._next_snapshots is not None and now < self._next_snapshots:
            return
        needed = await self._records.read(self._records.store.needed_snapshots)
        removed = await self._snapshots.remove_unneeded(needed, now - _FRESH)
        self._next_snapshots = now + _SNAPSHOTS
        if removed:
            log.info("snapshots that no job needs were deleted: %d bytes", removed)

    def _look_by(self, moment: datetime) -> None:
        if self._next_look is None or moment < self._next_look:
            self._next_look = moment
