"""Who comes first: priority, then fair share, then arrival; and in time everybody.

Orders are plug-ins (entry point group ``nimbus_hub.ordering``). Of each owner's requests the
first that has waited longer than ``rules.aging`` comes before them all, in order of arrival:
so no order starves anybody, and nobody gains by having many requests wait.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from math import log2
from typing import Protocol

from nimbus_hub.scheduler.snapshot import Snapshot, Waiting

__all__ = [
    "Ordering",
    "by_arrival",
    "by_balance",
    "by_fair_share",
    "effective_priority",
    "ordered",
]


class Ordering(Protocol):
    """An order; what an entry point names."""

    def __call__(self, snapshot: Snapshot, now: datetime) -> Sequence[Waiting]:
        """Return all waiting requests, the one with the first right to start first."""
        ...


def ordered(snapshot: Snapshot, now: datetime, ordering: Ordering) -> list[Waiting]:
    """Return the requests in the order of their right to start."""
    aging = snapshot.cluster.rules.aging
    arrived = by_arrival(snapshot, now)
    aged: dict[str, Waiting] = {}
    for each in arrived:
        if now - each.queued_at >= aging:
            aged.setdefault(each.owner, each)
    # An order may be a plug-in that repeats or forgets somebody: each comes once.
    known = {each.lease_id: each for each in arrived}
    names = [each.lease_id for each in (*aged.values(), *ordering(snapshot, now), *arrived)]
    return [known[name] for name in dict.fromkeys(names) if name in known]


def effective_priority(snapshot: Snapshot, waiting: Waiting) -> int:
    """Return the priority of a request: its own and its queue's; a lost queue has none."""
    for queue in snapshot.cluster.queues:
        if queue.name == waiting.wishes.queue:
            return queue.priority + waiting.wishes.priority
    return waiting.wishes.priority


def by_arrival(snapshot: Snapshot, now: datetime) -> list[Waiting]:
    """Return who came first; ids break ties."""
    return sorted(snapshot.waiting, key=lambda each: (each.since, each.lease_id))


def by_fair_share(snapshot: Snapshot, now: datetime) -> list[Waiting]:
    """Return by priority, then whose owner has used the least GPU time, then by arrival.

    The shares of groups are compared first, each divided by its weight; who is in no group
    is one of his own. What a request would use counts for the next of the same owner.
    """
    lines: dict[tuple[int, str], deque[Waiting]] = {}
    for each in by_arrival(snapshot, now):
        line = (-effective_priority(snapshot, each), each.owner)
        lines.setdefault(line, deque()).append(each)
    shares = _Shares(snapshot)
    heap = [_entry(shares, line, waiting[0]) for line, waiting in lines.items()]
    heapq.heapify(heap)
    found: list[Waiting] = []
    while heap:
        entry = heapq.heappop(heap)
        line = (entry[0], entry[-1])
        waiting = lines[line]
        now_due = _entry(shares, line, waiting[0])
        if now_due > entry:  # Its group was served meanwhile.
            heapq.heappush(heap, now_due)
            continue
        found.append(waiting.popleft())
        shares.add(found[-1])
        if waiting:
            heapq.heappush(heap, _entry(shares, line, waiting[0]))
    return found


def by_balance(snapshot: Snapshot, now: datetime) -> list[Waiting]:
    """Return by priority, then by size, fair share and wait weighed against each other.

    Who asks for twice the GPU time, or whose owner has used twice the mean more, comes as if
    he had arrived a day later; a gang comes as if it asked for a 64th. So short work waits
    less, and gangs, which need many to end at once, do too. With an ``aging`` of some days
    before it large work still has its turn.
    """
    shares = _Shares(snapshot)
    mean = sum(snapshot.usage.values()) / len(snapshot.usage) if snapshot.usage else 0.0

    def rank(each: Waiting) -> tuple[int, datetime, str]:
        gpus = sum(group.all_gpus_milli for group in each.groups) / 1000
        length = max(each.wishes.expected or each.length, _SHORT)
        size = log2(max(gpus, _FEW_GPUS) * (length / _SHORT))
        used = min(shares.of(each.owner)[0] / mean, _MOST_SHARES) if mean else 0.0
        bonus = _GANG_BONUS if gpus >= _GANG_GPUS else 0.0
        later = _DOUBLING * (size - bonus + used / 2)
        return -effective_priority(snapshot, each), each.since + later, each.lease_id

    return sorted(snapshot.waiting, key=rank)


_DOUBLING = timedelta(days=1)
_SHORT = timedelta(minutes=10)
_FEW_GPUS = 0.1
_GANG_GPUS, _GANG_BONUS = 8, 6.0
_MOST_SHARES = 4.0

_Entry = tuple[int, tuple[float, float], datetime, str, str]


def _entry(shares: _Shares, line: tuple[int, str], first: Waiting) -> _Entry:
    priority, owner = line
    return priority, shares.of(owner), first.since, first.lease_id, owner


class _Shares:
    """Used GPU time, in GPU-seconds: of each owner, and of each group by its weight."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._users = dict(snapshot.usage)
        self._groups = {
            user: group for group in snapshot.cluster.groups for user in sorted(group.users)
        }
        self._used: dict[str, float] = {}
        for user, used in self._users.items():
            self._add_to_group(user, used)

    def of(self, owner: str) -> tuple[float, float]:
        """Return the share of the owner's group and his own; the smaller comes first."""
        own = self._users.get(owner, 0.0)
        group = self._groups.get(owner)
        return (self._used.get(group.name, 0.0) / group.weight, own) if group else (own, own)

    def add(self, waiting: Waiting) -> None:
        """Count what a request would use."""
        seconds = (waiting.wishes.expected or waiting.length).total_seconds()
        used = sum(group.all_gpus_milli for group in waiting.groups) / 1000 * seconds
        self._users[waiting.owner] = self._users.get(waiting.owner, 0.0) + used
        self._add_to_group(waiting.owner, used)

    def _add_to_group(self, user: str, used: float) -> None:
        group = self._groups.get(user)
        if group is not None:
            self._used[group.name] = self._used.get(group.name, 0.0) + used
