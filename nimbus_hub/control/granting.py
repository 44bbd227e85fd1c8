"""Granting: has the scheduler decide, and records all it decided in one write.

It is only asked when something it looks at changed, or time alone may change its answer:
most writes, like the progress of jobs, are nothing to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from nimbus_hub.control.leases import Leases
from nimbus_hub.control.metrics import Metrics
from nimbus_hub.control.records import Records
from nimbus_hub.control.scheduling import Scheduling
from nimbus_hub.errors import Conflict
from nimbus_hub.model.lease import Lease, LeaseState
from nimbus_hub.scheduler.decisions import Plan, Wait
from nimbus_hub.scheduler.snapshot import Snapshot

__all__ = ["Granting"]

log = logging.getLogger(__name__)

_STALE = timedelta(seconds=30)
"""Fair shares and estimates move with time; an answer is not kept for longer."""


class Granting:
    """Grants, tells who waits why, and takes away what others need more."""

    def __init__(
        self, records: Records, leases: Leases, scheduling: Scheduling, metrics: Metrics
    ) -> None:
        self._records = records
        self._leases = leases
        self._scheduling = scheduling
        self._metrics = metrics
        self._decided_on: object = None
        self._decide_again: datetime | None = None

    @property
    def next_due(self) -> datetime | None:
        """Return when time alone may change what was decided; None while nobody waits."""
        return self._decide_again

    async def step(self, leases: Sequence[Lease], now: datetime) -> None:
        """Decide who gets what, if there is anything new, and record it."""
        if not any(lease.state is LeaseState.QUEUED for lease in leases):
            self._decided_on = self._decide_again = None
            return
        picture = self._picture(leases)
        is_fresh = self._decide_again is not None and now < self._decide_again
        if is_fresh and picture == self._decided_on:
            return
        snapshot = self._scheduling.snapshot(leases, now)
        decided = await asyncio.to_thread(self._scheduling.plan, snapshot, now)
        if await self._record(decided, leases, now):
            self._decided_on = picture
            self._decide_again = _next_change(snapshot, decided, now)
        else:
            self._decided_on = self._decide_again = None
            self._records.wake()

    async def _record(self, decided: Plan, leases: Sequence[Lease], now: datetime) -> bool:
        """Write what was decided; return whether nobody wrote any of it meanwhile."""
        by_id = {lease.id: lease for lease in leases}
        granted = [
            lease.granted(grant.slots, now, self._leases.policy(lease).latest_end, grant.reason)
            for grant in decided.grants
            for lease in [by_id[grant.lease_id]]
        ]
        preempted = [
            by_id[each.lease_id].ending(LeaseState.PREEMPTED, each.reason, now)
            for each in decided.preemptions
            if by_id[each.lease_id].target is None
        ]
        waiting = [_told(by_id[wait.lease_id], wait) for wait in decided.waits]
        changed = [*granted, *preempted, *(each for each in waiting if each != by_id[each.id])]
        if changed:
            try:
                await self._records.save(*changed)
            except Conflict:
                return False
        self._note(granted, preempted, now)
        return True

    def _note(self, granted: Sequence[Lease], preempted: Sequence[Lease], now: datetime) -> None:
        self._metrics.grants.inc(len(granted))
        self._metrics.preemptions.inc(len(preempted))
        for lease in granted:
            self._metrics.waited(lease, now, "granted")
            log.info("lease %s granted on %s", lease.id, lease.slots[0].host)
        for lease in preempted:
            log.info("lease %s preempted: %s", lease.id, lease.reason)

    def _picture(self, leases: Sequence[Lease]) -> object:
        """Return all that decisions depend on but for time: what compares equal decides alike."""
        return (
            self._scheduling.hosts,
            self._scheduling.cluster,
            [(each.id, each.state, each.target, each.expires_at) for each in leases],
        )


def _told(lease: Lease, wait: Wait) -> Lease:
    """Return a waiting lease with what the scheduler says of it."""
    return replace(
        lease,
        position=wait.position,
        reason=wait.reason,
        reason_code=wait.code.value,
        starts_by=wait.starts_by,
    )


def _next_change(snapshot: Snapshot, decided: Plan, now: datetime) -> datetime:
    """Return when something comes that decisions depend on: an end, a promise, an age."""
    return min([now + _STALE, *(time for time in _times(snapshot, decided) if time > now)])


def _times(snapshot: Snapshot, decided: Plan) -> Iterator[datetime]:
    for holding in snapshot.holdings:
        yield from filter(None, (holding.ends_at, holding.expected_end))
    for wait in decided.waits:
        yield from filter(None, (wait.starts_by,))
    for waiting in snapshot.waiting:
        yield waiting.queued_at + snapshot.cluster.rules.aging
