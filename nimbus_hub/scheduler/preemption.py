"""Preemption: whose leases are stopped so that a request can start, the cheapest first.

Two rules allow it. A guest, a job without GPUs that lies on a host with GPUs, makes room
for whoever wants GPUs, if his priority is no lower. A preemptible lease makes room for a
request of higher priority from a queue that may preempt. A lease is stopped whole or not at
all. Who was stopped waits again, and must not take his seats back before who had him
stopped has got them: he yields (see ``yielding``). Age ends that: who has waited longer than
``rules.aging`` yields to nobody and is stopped for nobody, so that nobody starves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from datetime import datetime
from typing import NamedTuple

from nimbus_hub.model.cluster import Queue
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.scheduler.capacity import Capacity, Seated
from nimbus_hub.scheduler.order import effective_priority
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting

__all__ = ["Stoppable", "Yield", "is_guest", "victims", "wants_gpus", "yielding"]


class Stoppable:
    """Who may be stopped for somebody, looked up once for a pass."""

    def __init__(self, snapshot: Snapshot, capacity: Capacity, now: datetime) -> None:
        self._snapshot = snapshot
        self._now = now
        self._queues = {queue.name: queue for queue in snapshot.cluster.queues}
        held = [each for each in snapshot.holdings if not each.is_ending and not each.is_of_age]
        self._guests = [each for each in held if is_guest(each, capacity)]
        self._preemptible = [each for each in held if each.is_preemptible]

    def candidates(self, waiting: Waiting, without: Set[str]) -> list[Holding]:
        """Return whom a request may have stopped, the cheapest first, but for those named."""
        found = {}
        if wants_gpus(waiting):
            priority = effective_priority(self._snapshot, waiting)
            found = {each.lease_id: each for each in self._guests if each.priority <= priority}
        for each in self._preemptible:
            if self.is_outranked(waiting, each):
                found[each.lease_id] = each
        may = [each for each in found.values() if each.lease_id not in without]
        return sorted(may, key=lambda each: _price(each, self._now))

    def is_outranked(self, waiting: Waiting, holding: Holding) -> bool:
        """Tell whether a request may have a lease stopped by its priority."""
        queue = self._queues.get(waiting.wishes.queue)
        if queue is None or not queue.may_preempt or not holding.is_preemptible:
            return False
        return holding.priority < effective_priority(self._snapshot, waiting)


class Yield(NamedTuple):
    """To whom a request yields: decided right behind that place of the order, not before.

    ``is_guest_only``: only if it would start as a guest, whom the other could have stopped.
    """

    to: int
    is_guest_only: bool


def yielding(snapshot: Snapshot, order: Sequence[Waiting], now: datetime) -> list[Yield | None]:
    """Return for each request in order to whom behind it it yields, if to anybody.

    That is the last one that could have it stopped: so it loses its place to no others. Who
    is of age yields to nobody, nor does who was promised his start.
    """
    aging = snapshot.cluster.rules.aging
    queues = {queue.name: queue for queue in snapshot.cluster.queues}
    found: list[Yield | None] = []
    gpus, preempting = _Last(), _Last()
    for place in range(len(order) - 1, -1, -1):
        waiting = order[place]
        priority = effective_priority(snapshot, waiting)
        queue = queues.get(waiting.wishes.queue, Queue())
        stops = stops_guest = None
        is_safe = now - waiting.queued_at >= aging or waiting.promised is not None
        if not is_safe and (waiting.wishes.is_preemptible or queue.is_preemptible):
            stops = preempting.of_at_least(priority + 1)
        if not is_safe and waiting.kind is LeaseKind.JOB and not wants_gpus(waiting):
            stops_guest = gpus.of_at_least(priority)
        if stops is not None:
            found.append(Yield(stops, is_guest_only=False))
        else:
            found.append(None if stops_guest is None else Yield(stops_guest, is_guest_only=True))
        if wants_gpus(waiting):
            gpus.see(place, priority)
        if queue.may_preempt:
            preempting.see(place, priority)
    return found[::-1]


class _Last:
    """The last places of requests, by their priority; seen from behind."""

    def __init__(self) -> None:
        self._places: list[tuple[int, int]] = []

    def see(self, place: int, priority: int) -> None:
        """Note a request; one of no higher priority than one behind it is never the last."""
        if not self._places or priority > self._places[-1][1]:
            self._places.append((place, priority))

    def of_at_least(self, priority: int) -> int | None:
        """Return the last place with at least this priority."""
        return next((place for place, each in self._places if each >= priority), None)


def wants_gpus(waiting: Waiting) -> bool:
    """Tell whether a request asks for GPUs."""
    return any(group.gpus for group in waiting.groups)


def is_guest(holding: Holding, capacity: Capacity) -> bool:
    """Tell whether a lease is a job without GPUs on hosts with GPUs."""
    if holding.kind is not LeaseKind.JOB or any(slot.gpus for slot in holding.slots):
        return False
    places = (capacity.host(slot.host) for slot in holding.slots)
    return any(place is not None and place[0].has_gpus[place[1]] for place in places)


def victims(
    capacity: Capacity,
    holdings: Sequence[Holding],
    seat: Callable[[], Seated | None],
) -> tuple[tuple[Holding, ...], Seated] | None:
    """Return the cheapest leases to stop and where the request is then, or None.

    ``seat`` says where it fits in ``capacity`` now. The cheapest are stopped one by one
    until it fits; then whoever is not needed for it after all is spared, the dearest first.
    """
    if not _could(capacity, holdings, seat):
        return None
    stopped: list[Holding] = []
    try:
        found = None
        for holding in holdings:
            capacity.take(capacity.taken(holding.slots), -1)
            stopped.append(holding)
            found = seat()
            if found is not None:
                break
        if found is None:
            return None
        for holding in reversed(stopped[:-1]):
            capacity.take(capacity.taken(holding.slots))
            other = seat()
            if other is None:
                capacity.take(capacity.taken(holding.slots), -1)
            else:
                stopped.remove(holding)
                found = other
        return tuple(stopped), found
    finally:
        for holding in stopped:
            capacity.take(capacity.taken(holding.slots))


def _could(
    capacity: Capacity, holdings: Sequence[Holding], seat: Callable[[], Seated | None]
) -> bool:
    """Tell whether a request would fit if all of them were stopped."""
    if not holdings:
        return False
    taken = [capacity.taken(holding.slots) for holding in holdings]
    for each in taken:
        capacity.take(each, -1)
    is_enough = seat() is not None
    for each in taken:
        capacity.take(each)
    return is_enough


def _price(holding: Holding, now: datetime) -> tuple[int, float, float, str]:
    """Return what stopping costs: priority, GPU time then CPU time that is lost, and the id."""
    ran = (now - holding.since).total_seconds() if holding.since is not None else 0.0
    gpus = sum(slot.all_gpus_milli for slot in holding.slots) / 1000
    cpus = sum(slot.cpus_milli for slot in holding.slots) / 1000
    return holding.priority, gpus * ran, cpus * ran, holding.lease_id
