"""Preemption: whose leases are stopped so that a request can start, the cheapest first.

Two rules allow it. A guest, a job without GPUs that lies on a host with GPUs, makes room
for whoever wants GPUs, if his priority is no lower. A preemptible lease makes room for a
request of higher priority from a queue that may preempt. A lease is stopped whole or not at
all. Who was stopped waits again, and must not take his seats back before who had him
stopped has got them: he yields, however long he waits (see ``yielding``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from datetime import datetime
from enum import Enum, auto
from math import inf

from nimbus_hub.model.cluster import Queue
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.scheduler.capacity import Capacity, Seated
from nimbus_hub.scheduler.order import effective_priority
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting

__all__ = ["Stoppable", "Yield", "is_guest", "victims", "wants_gpus", "yielding"]


class Stoppable:
    """Who may be stopped for somebody, looked up once for a pass, the cheapest first."""

    def __init__(self, snapshot: Snapshot, capacity: Capacity, now: datetime) -> None:
        self._snapshot = snapshot
        self._queues = {queue.name: queue for queue in snapshot.cluster.queues}
        held = [holding for holding in snapshot.holdings if not holding.is_ending]
        guests = [each for each in held if is_guest(each, capacity)]
        preemptible = [each for each in held if each.is_preemptible]
        self._guests = sorted(guests, key=lambda each: _price(each, now))
        self._preemptible = sorted(preemptible, key=lambda each: _price(each, now))

    def candidates(self, waiting: Waiting, without: Set[str]) -> list[Holding]:
        """Return whom a request may have stopped, but for those that are named."""
        found = {}
        if wants_gpus(waiting):
            priority = effective_priority(self._snapshot, waiting)
            found = {each.lease_id: each for each in self._guests if each.priority <= priority}
        for each in self._preemptible:
            if self.is_outranked(waiting, each):
                found[each.lease_id] = each
        return [each for each in found.values() if each.lease_id not in without]

    def is_outranked(self, waiting: Waiting, holding: Holding) -> bool:
        """Tell whether a request may have a lease stopped by its priority."""
        queue = self._queues.get(waiting.wishes.queue)
        if queue is None or not queue.may_preempt or not holding.is_preemptible:
            return False
        return holding.priority < effective_priority(self._snapshot, waiting)


class Yield(Enum):
    """Whether a request is decided after others that come behind it in the order."""

    NEVER = auto()
    AS_GUEST = auto()
    """If it would be a guest, whom one of them could have stopped."""
    ALWAYS = auto()
    """One of them could have it stopped wherever it is."""


def yielding(snapshot: Snapshot, order: Sequence[Waiting]) -> list[Yield]:
    """Return for each request in order whether it yields to one behind it."""
    queues = {queue.name: queue for queue in snapshot.cluster.queues}
    found: list[Yield] = []
    highest_gpus = highest_preempting = -inf
    for waiting in reversed(order):
        priority = effective_priority(snapshot, waiting)
        queue = queues.get(waiting.wishes.queue, Queue())
        if (waiting.wishes.is_preemptible or queue.is_preemptible) and (
            highest_preempting > priority
        ):
            found.append(Yield.ALWAYS)
        elif waiting.kind is LeaseKind.JOB and not wants_gpus(waiting):
            found.append(Yield.AS_GUEST if highest_gpus >= priority else Yield.NEVER)
        else:
            found.append(Yield.NEVER)
        if wants_gpus(waiting):
            highest_gpus = max(highest_gpus, priority)
        if queue.may_preempt:
            highest_preempting = max(highest_preempting, priority)
    return found[::-1]


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
