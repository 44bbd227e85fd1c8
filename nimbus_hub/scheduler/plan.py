"""Who starts now, and why the others wait: a snapshot and the time in, decisions out.

Requests start in order. The first that cannot start but could, once holdings end, gets a
reservation: the earliest time it fits if every holding ends when it says (EASY back-fill,
Lifka 1995). Later ones start now only if they cannot delay it: they end before, or it still
fits at its time with them running. Its ``starts_by`` is therefore a promise as long as
nobody renews a lease and nothing of higher priority arrives. The others get none: back-fill
and new arrivals may pass them, so no honest bound is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from nimbus_hub.model.host import HostState
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.scheduler.fit import Fit, place
from nimbus_hub.scheduler.free import Free
from nimbus_hub.scheduler.order import ordered
from nimbus_hub.scheduler.shortage import shortage
from nimbus_hub.scheduler.snapshot import Snapshot, Waiting

__all__ = ["Grant", "Plan", "Wait", "plan"]


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease gets these slots now."""

    lease_id: str
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """A lease waits; positions count from 1. ``starts_by`` is None where none is known."""

    lease_id: str
    position: int
    reason: str
    starts_by: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions of one pass, both in order; every waiting lease is in one of them."""

    grants: tuple[Grant, ...]
    waits: tuple[Wait, ...]


@dataclass(frozen=True, slots=True)
class _Reservation:
    """The promise to one request: when, on which slots, and what is free at that time."""

    waiting: Waiting
    at: datetime
    slots: tuple[Slot, ...]
    free: Free


def plan(snapshot: Snapshot, now: datetime, fit: Fit = place) -> Plan:
    """Return who starts now and why the others wait."""
    return _Pass(snapshot, now, fit).run()


class _Pass:
    """One pass over the queue: the free view, the ends to come, the reservation."""

    def __init__(self, snapshot: Snapshot, now: datetime, fit: Fit) -> None:
        self._snapshot = snapshot
        self._now = now
        self._fit = fit
        self._free = Free([host for host in snapshot.hosts if host.state is HostState.READY])
        self._ends: list[tuple[datetime, tuple[Slot, ...]]] = []
        self._reservation: _Reservation | None = None
        # What is free only shrinks in a pass: what did not fit need not be tried again.
        self._lacks: dict[tuple[SlotGroup, ...], str] = {}
        self._unfit: set[tuple[SlotGroup, ...]] = set()
        for holding in snapshot.holdings:
            self._free.take(holding.slots)
            if holding.ends_at is not None:
                self._ends.append((max(holding.ends_at, now), holding.slots))

    def run(self) -> Plan:
        """Decide over every waiting request, in order."""
        grants: list[Grant] = []
        kept: list[tuple[Waiting, bool]] = []
        for waiting in ordered(self._snapshot.waiting):
            slots = self._slots_now(waiting)
            is_short = slots is None
            if slots is not None:
                slots = self._without_delay(waiting, slots)
            if slots is not None:
                self._grant(waiting, slots)
                grants.append(Grant(waiting.lease_id, slots))
                continue
            kept.append((waiting, is_short))
            if self._reservation is None:
                self._reservation = self._reserve(waiting)
        return Plan(tuple(grants), tuple(self._waits(kept)))

    def _slots_now(self, waiting: Waiting) -> tuple[Slot, ...] | None:
        if waiting.groups in self._unfit:
            return None
        slots = self._fit(self._free, waiting.groups, waiting.lease_id)
        if slots is None:
            self._unfit.add(waiting.groups)
        return slots

    def _grant(self, waiting: Waiting, slots: tuple[Slot, ...]) -> None:
        end = self._now + waiting.length
        self._free.take(slots)
        self._ends.append((end, slots))
        if self._reservation is not None and end > self._reservation.at:
            self._reservation.free.take(slots)

    def _without_delay(self, waiting: Waiting, slots: tuple[Slot, ...]) -> tuple[Slot, ...] | None:
        """Return slots, these or others, that leave the reservation as it is, or None."""
        reserved = self._reservation
        if reserved is None or self._now + waiting.length <= reserved.at:
            return slots
        if self._still_fits(reserved, slots):
            return slots
        self._free.take(reserved.slots)
        other = self._fit(self._free, waiting.groups, waiting.lease_id)
        self._free.give(reserved.slots)
        return other if other is not None and self._still_fits(reserved, other) else None

    def _still_fits(self, reserved: _Reservation, slots: tuple[Slot, ...]) -> bool:
        first = reserved.waiting
        reserved.free.take(slots)
        is_kept = self._fit(reserved.free, first.groups, first.lease_id) is not None
        reserved.free.give(slots)
        return is_kept

    def _reserve(self, waiting: Waiting) -> _Reservation | None:
        """Return the earliest time at which a request fits if holdings end as they say."""
        ends = _by_time(self._ends)
        free = self._free.copy()
        for _, slots in ends:
            free.give(slots)
        fitting = self._fit(free, waiting.groups, waiting.lease_id)
        if fitting is None or not ends:
            return None
        # Bisect over the ends, walking one view back and forth: it fits after `high`.
        low, high, at = -1, len(ends) - 1, len(ends) - 1
        while high - low > 1:
            middle = (low + high) // 2
            _walk(free, ends, at, middle)
            at = middle
            slots_then = self._fit(free, waiting.groups, waiting.lease_id)
            if slots_then is None:
                low = middle
            else:
                high, fitting = middle, slots_then
        _walk(free, ends, at, high)
        return _Reservation(waiting, ends[high][0], fitting, free)

    def _waits(self, kept: Sequence[tuple[Waiting, bool]]) -> Iterable[Wait]:
        reserved = self._reservation
        for position, (waiting, is_short) in enumerate(kept, start=1):
            is_next = reserved is not None and reserved.waiting is waiting
            starts_by = reserved.at if reserved is not None and is_next else None
            reason = self._reason(waiting, position, is_short)
            if starts_by is not None and starts_by <= self._now:
                # What holds it is overdue: it comes back any moment, when is not known.
                reason, starts_by = f"{reason}; the rest is being given back now", None
            yield Wait(waiting.lease_id, position, reason, starts_by)

    def _reason(self, waiting: Waiting, position: int, is_short: bool) -> str:
        ahead = position - 1
        behind = f"behind {ahead} earlier request{'s' if ahead > 1 else ''}"
        if not is_short:
            return f"{behind}, which starting now would delay"
        lack = self._lacks.get(waiting.groups)
        if lack is None:
            lack = shortage(self._free, waiting.groups, self._snapshot.hosts)
            self._lacks[waiting.groups] = lack
        return f"{lack}; {behind}" if ahead else lack


def _by_time(
    ends: Iterable[tuple[datetime, tuple[Slot, ...]]],
) -> list[tuple[datetime, list[Slot]]]:
    """Return what comes back, joined by time, earliest first."""
    found: dict[datetime, list[Slot]] = {}
    for at, slots in ends:
        found.setdefault(at, []).extend(slots)
    return sorted(found.items(), key=lambda item: item[0])


def _walk(free: Free, ends: Sequence[tuple[datetime, list[Slot]]], start: int, to: int) -> None:
    """Move a view in which all ends up to ``start`` have come to the one up to ``to``."""
    for _, slots in ends[start + 1 : to + 1]:
        free.give(slots)
    for _, slots in ends[to + 1 : start + 1]:
        free.take(slots)
