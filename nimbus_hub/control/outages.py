"""Outages: notices that the service was away, and gives people time after it.

Away is a service that was down, stood still or slept with its machine. Nobody could renew
then, or save what a session asked to be saved. So the end of a session or a gang that came
meanwhile, or comes right after, is moved to two minutes after the return, be it past the
latest end its policy allows; a job's is not, since nobody has to act. And what is waited for
is waited for anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from nimbus_hub.control.records import Records
from nimbus_hub.errors import Conflict
from nimbus_hub.model.heartbeat import Heartbeat
from nimbus_hub.model.lease import Lease, LeaseKind

__all__ = ["GRACE", "Outages"]

log = logging.getLogger(__name__)

GRACE = timedelta(minutes=2)
"""What is left of a session or a gang after an outage, at least."""

_EVERY = timedelta(seconds=5)
_AWAY = timedelta(seconds=15)
"""A service that left no sign of life for so long was away; a quick restart is not noticed."""

_FOR_PEOPLE = frozenset({LeaseKind.SESSION, LeaseKind.DEBUG})


class Outages:
    """Leaves signs of life, and tells by them of outages; the last was over ``returned_at``."""

    def __init__(self, records: Records, heartbeat: Callable[[], Heartbeat] | None = None) -> None:
        """Take signs of life from ``heartbeat``; without it only a restart is noticed."""
        self._records = records
        self._heartbeat = heartbeat or (lambda: Heartbeat(records.clock.now()))
        self._last: Heartbeat | None = None
        self.returned_at: datetime | None = None
        self._listeners: list[Callable[[datetime], None]] = []

    def listen(self, listener: Callable[[datetime], None]) -> None:
        """Have a function called with the moment of each return."""
        self._listeners.append(listener)

    def since(self, moment: datetime) -> datetime:
        """Return from when something is waited for: a moment, or the return if that was later."""
        return moment if self.returned_at is None else max(moment, self.returned_at)

    async def step(self, leases: Iterable[Lease]) -> tuple[Lease, ...]:
        """Leave a sign of life; return the leases whose end was moved after an outage."""
        beat, store = self._heartbeat(), self._records.store
        last = self._last or await self._records.read(store.last_beat)
        moved: tuple[Lease, ...] = ()
        is_due = self._last is None or beat.at - self._last.at >= _EVERY
        if last is not None and self._was_away(last, beat):
            moved, is_due = await self._return(leases, last.at, beat.at), True
        if is_due:
            # Only now: a service that crashes before this finds the same outage again.
            await self._records.read(store.beat, beat)
            self._last = beat
        return moved

    def _was_away(self, last: Heartbeat, beat: Heartbeat) -> bool:
        if self._last is None:  # It was the service before this one.
            return beat.boot != last.boot or beat.at - last.at >= _AWAY
        return beat.uptime_seconds - last.uptime_seconds >= _AWAY.total_seconds()

    async def _return(
        self, leases: Iterable[Lease], since: datetime, now: datetime
    ) -> tuple[Lease, ...]:
        self.returned_at = now
        for listener in self._listeners:
            listener(now)
        end = now + GRACE
        note = f"{_away(since, now)}, so this ends no sooner than {_time(end, now)}"
        ending = [lease for lease in leases if _is_short(lease, end)]
        found = await asyncio.gather(*(self._move(lease, end, note) for lease in ending))
        moved = tuple(lease for lease in found if lease is not None)
        log.warning("%s; %d leases end later for it", _away(since, now), len(moved))
        return moved

    async def _move(self, lease: Lease, end: datetime, note: str) -> Lease | None:
        """Return the lease with its end moved; None if it needs that no more."""
        while _is_short(lease, end):
            try:
                (moved,) = await self._records.save(replace(lease, expires_at=end, note=note))
            except Conflict:
                lease = await self._records.lease(lease.id)
                continue
            log.info("lease %s: %s", lease.id, note)
            return moved
        return None


def _is_short(lease: Lease, end: datetime) -> bool:
    """Tell whether a lease would leave somebody less time than until ``end``."""
    is_held = lease.state.is_holding and lease.target is None and lease.kind in _FOR_PEOPLE
    return is_held and lease.expires_at is not None and lease.expires_at < end


def _away(since: datetime, now: datetime) -> str:
    return f"the service was away from {_time(since, now)} to {_time(now, now)}"


def _time(at: datetime, now: datetime) -> str:
    """Return a time of today, or with its date."""
    return f"{at:%H:%M} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M} UTC"
