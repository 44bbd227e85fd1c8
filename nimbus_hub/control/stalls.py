"""Stalls: jobs that run and of which nothing is heard any more.

A sign of life is output of any replica, a report of progress, or something new below the job's
log directory; that CPUs are busy is none, for who waits for a dead peer may spin. A job that
gives none for its time is ended as a failed attempt, and people are told at half of it. Waited
is anew after a restart of the service and after an outage.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.outages import Outages
from nimbus_hub.control.records import Records
from nimbus_hub.errors import NimbusError
from nimbus_hub.executors.base import Executor
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.quantities import format_duration
from nimbus_hub.model.replica import Replica

__all__ = ["Stalls"]

log = logging.getLogger(__name__)

_LONGEST_PAUSE = timedelta(minutes=1)
_LOOKS = 20
"""How often the executors are asked, at most, in the time that a job may be silent."""


@dataclass(slots=True)
class _Heard:
    """When a job was last heard of, as far as is known, and when that was last asked for."""

    at: datetime
    asked_at: datetime


class Stalls:
    """Tells which jobs are silent, asking executors only where it matters."""

    def __init__(
        self,
        records: Records,
        inventory: Inventory,
        outages: Outages,
        usual: timedelta | None,
    ) -> None:
        """Give jobs of several replicas that say nothing of it the time ``usual``."""
        self._records = records
        self._inventory = inventory
        self._outages = outages
        self._usual = usual
        self._began = records.clock.now()
        self._heard: dict[str, _Heard] = {}
        records.listen(self._forget)

    def reported(self, job_id: str) -> None:
        """Count a report of progress as a sign of life."""
        now = self._records.clock.now()
        self._heard[job_id] = _Heard(now, now)

    async def look(self, job: Job, replicas: Sequence[Replica]) -> Job:
        """Return a running job with what is to be said of its silence, or why it ends."""
        limit = self._limit(job, replicas)
        if limit is None:
            return job
        heard = await self._last(job, replicas, limit)
        silence = self._records.clock.now() - heard
        if silence >= limit:
            return replace(job, note="", fault=_fault(limit))
        return replace(job, note=_warning(limit, heard) if silence >= limit / 2 else "")

    def _limit(self, job: Job, replicas: Sequence[Replica]) -> timedelta | None:
        """Return how long a job may be silent; None: as long as it likes."""
        if job.is_holder or job.launch.pdb:
            return None
        given = job.launch.stall_seconds
        if given is None:
            return self._usual if len(replicas) > 1 else None
        return timedelta(seconds=given) if given else None

    async def _last(self, job: Job, replicas: Sequence[Replica], limit: timedelta) -> datetime:
        """Return when a job was last heard of, looked up if it could be long ago."""
        now = self._records.clock.now()
        ends = [each.ended_at for each in replicas if each.ended_at is not None]
        starts = [each.started_at for each in replicas if each.started_at is not None]
        known = self._heard.setdefault(job.id, _Heard(self._began, self._began))
        known.at = self._outages.since(max([known.at, *starts, *ends]))
        is_due = now >= known.asked_at + min(limit / _LOOKS, _LONGEST_PAUSE)
        if now - known.at >= limit or (is_due and now - known.at >= limit / 2):
            known.asked_at = now
            found = await self._ask([each for each in replicas if not each.state.is_end])
            # The clocks of other machines, and people, may tell of times to come.
            known.at = max(known.at, min(found, now))
        return known.at

    async def _ask(self, replicas: Sequence[Replica]) -> datetime:
        """Return when any of these was last heard of; now, if that cannot be known."""
        asked: dict[Executor, list[str]] = {}
        try:
            for replica in replicas:
                asked.setdefault(self._inventory.executor(replica.host), []).append(replica.id)
            answers = await asyncio.gather(*(each.heard(ids) for each, ids in asked.items()))
        except NimbusError as error:
            log.warning("signs of life cannot be looked for: %s", error)
            return self._records.clock.now()
        return max((at for answer in answers for at in answer.values()), default=self._began)

    def _forget(self, written: Lease | Job) -> None:
        if isinstance(written, Job) and written.state.is_end:
            self._heard.pop(written.id, None)


def _fault(limit: timedelta) -> str:
    return (
        f"stalled: nothing was heard of it for {format_duration(limit)}, that is no output of any "
        "replica, no report of progress and nothing new in its log directory; --stall gives it "
        "another time, or off"
    )


def _warning(limit: timedelta, heard: datetime) -> str:
    end = f"{heard + limit:%H:%M:%S} UTC"
    return (
        f"nothing was heard of it for {format_duration(limit / 2)}; it ends as stalled at {end} "
        "unless it prints, reports progress or writes into its log directory"
    )
