"""Reservations: the earliest time at which a gang fits if what is held comes back as told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from nimbus_hub.scheduler.capacity import Capacity, Taken
from nimbus_hub.scheduler.shortage import Return
from nimbus_hub.scheduler.snapshot import Waiting

__all__ = ["Reservation", "earliest"]


@dataclass(frozen=True, slots=True)
class Reservation:
    """The promise to one request: when, on which seats, and what is free at that time."""

    waiting: Waiting
    at: datetime
    datacenter: str
    taken: Taken
    free: Capacity

    def allows(self, taken: Taken) -> bool:
        """Tell whether the request still fits at its time with this held as well."""
        self.free.take(taken)
        is_kept = self.free.gang(self.waiting.groups, (self.datacenter,)) is not None
        self.free.take(taken, -1)
        return is_kept


def earliest(
    capacity: Capacity, waiting: Waiting, datacenters: Sequence[str], returns: Iterable[Return]
) -> Reservation | None:
    """Return when a request that does not fit in ``capacity`` does, or None if never.

    ``returns`` come back one after the other; of several datacenters the soonest counts.
    """
    times = _by_time(returns)
    best: Reservation | None = None
    for name in datacenters:
        found = _in_datacenter(capacity, waiting, name, times)
        if found is not None and (best is None or found.at < best.at):
            best = found
    return best


def _in_datacenter(
    capacity: Capacity, waiting: Waiting, name: str, times: Sequence[tuple[datetime, Taken]]
) -> Reservation | None:
    own = [(at, local) for at, taken in times if (local := _only(taken, name))]
    if not own or name not in capacity.fitters:
        return None
    free = capacity.cautious()
    for _, taken in own:
        free.take(taken, -1)
    fitting = free.gang(waiting.groups, (name,))
    if fitting is None:
        return None
    # Bisect over the times, walking one view back and forth: it fits after `high`.
    low, high, at = -1, len(own) - 1, len(own) - 1
    while high - low > 1:
        middle = (low + high) // 2
        _walk(free, own, at, middle)
        at = middle
        then = free.gang(waiting.groups, (name,))
        if then is None:
            low = middle
        else:
            high, fitting = middle, then
    when = own[high][0]
    # Elsewhere, too, all has come back by then.
    _walk(free, own, at, high)
    for time, taken in times:
        if time <= when:
            free.take(_but(taken, name), -1)
    return Reservation(waiting, when, name, free.seated(fitting), free)


def _only(taken: Taken, datacenter: str) -> Taken:
    return tuple(each for each in taken if each[0] == datacenter)


def _but(taken: Taken, datacenter: str) -> Taken:
    return tuple(each for each in taken if each[0] != datacenter)


def _by_time(returns: Iterable[Return]) -> list[tuple[datetime, Taken]]:
    """Return what comes back, joined by time, earliest first."""
    found: dict[datetime, list[Taken]] = {}
    for each in returns:
        found.setdefault(each.at, []).append(each.taken)
    return [(at, tuple(seat for taken in found[at] for seat in taken)) for at in sorted(found)]


def _walk(free: Capacity, times: Sequence[tuple[datetime, Taken]], start: int, to: int) -> None:
    """Move a view in which all up to ``start`` has come back to the one up to ``to``."""
    for _, taken in times[start + 1 : to + 1]:
        free.take(taken, -1)
    for _, taken in times[to + 1 : start + 1]:
        free.take(taken)
