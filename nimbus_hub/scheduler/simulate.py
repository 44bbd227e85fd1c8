"""What would become of a workload: discrete events in virtual time over a plan function.

Jobs arrive, are planned with everything the service would show its scheduler at that time,
hold what they were granted and give it back when they are done. The scheduler never sees
how long a job really takes, only the length its owner asked for. What happens at the same
time, or within one :data:`BATCH`, is one pass, as in the service.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum

from nimbus_hub.errors import Conflict, InvalidRequest
from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.host import Host
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.decisions import Plan
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting

__all__ = ["BATCH", "Decide", "Job", "Outcome", "Renewing", "simulate"]

BATCH = timedelta(seconds=1)
"""What happens within this time of each other is decided in one pass."""

Decide = Callable[[Snapshot, datetime], Plan]
"""The scheduler under trial; it must depend on nothing but its arguments."""


@dataclass(frozen=True, slots=True)
class Renewing:
    """A lease that its holder renews: ``notice`` before its end, for ``by`` from then on.

    No end is later than ``latest_end`` after the start.
    """

    by: timedelta
    notice: timedelta
    latest_end: timedelta

    def __post_init__(self) -> None:
        """Refuse renewals that would never get anywhere."""
        if not timedelta(0) <= self.notice < self.by:
            raise InvalidRequest("notice must be less than what a renewal gives")


@dataclass(frozen=True, slots=True)
class Job:
    """One request. ``bound`` is the length it asks for, ``length`` how long it really holds.

    With ``renewing`` its holder renews the lease as long as the rest of ``length`` asks for
    it. What is granted is taken away at the end of the lease, done or not.
    """

    id: str
    owner: str
    groups: tuple[SlotGroup, ...]
    arrival: datetime
    bound: timedelta
    length: timedelta
    kind: LeaseKind = LeaseKind.JOB
    renewing: Renewing | None = None
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def gpus(self) -> float:
        """Return how many GPUs it holds."""
        return sum(group.all_gpus_milli for group in self.groups) / 1000

    @property
    def held(self) -> timedelta:
        """Return how long it holds them, once started."""
        longest = self.renewing.latest_end if self.renewing else self.bound
        return min(self.length, longest)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job; times are None for one that never started.

    ``ended`` may lie after the last event: it is known from the start. ``preemptions`` is how
    often it was stopped and began again.
    """

    job: Job
    started: datetime | None = None
    ended: datetime | None = None
    preemptions: int = 0

    @property
    def wait(self) -> timedelta:
        """Return how long it waited; only for one that started."""
        assert self.started is not None
        return self.started - self.job.arrival

    @property
    def completion(self) -> timedelta:
        """Return the time from its arrival to its end; only for one that started."""
        assert self.ended is not None
        return self.ended - self.job.arrival


def simulate(
    hosts: Sequence[Host],
    jobs: Iterable[Job],
    decide: Decide,
    *,
    cluster: Cluster | None = None,
    watched: Collection[str] | None = None,
) -> tuple[Outcome, ...]:
    """Return what becomes of the jobs, in the order of their arrival.

    It ends when all of them have started, or all ``watched`` ones (by id), or nothing that
    still waits ever will. Raise Conflict if the scheduler grants what is not free.
    """
    return _World(hosts, jobs, decide, cluster or Cluster(), watched).run()


class _Kind(Enum):
    ARRIVE = "arrive"
    RENEW = "renew"
    END = "end"


class _World:
    """The state of the cluster and its queue as time goes on."""

    def __init__(
        self,
        hosts: Sequence[Host],
        jobs: Iterable[Job],
        decide: Decide,
        cluster: Cluster,
        watched: Collection[str] | None,
    ) -> None:
        self._hosts = tuple(hosts)
        self._decide = decide
        self._cluster = cluster
        self._jobs = {job.id: job for job in sorted(jobs, key=lambda job: (job.arrival, job.id))}
        self._outcomes = {name: Outcome(job) for name, job in self._jobs.items()}
        self._watched = frozenset(self._jobs if watched is None else watched)
        self._left = set(self._watched)
        self._waiting: dict[str, Waiting] = {}
        self._holdings: dict[str, Holding] = {}
        self._devices = _Devices(hosts)
        self._usage = _Usage(cluster.rules.half_life)
        # Ties are broken by the order of entry; a job that was preempted leaves its old
        # events behind, which the number of its preemptions tells from the new ones.
        self._events: list[tuple[datetime, int, _Kind, str, int]] = []
        self._entered = 0
        for name, job in self._jobs.items():
            self._enter(job.arrival, _Kind.ARRIVE, name)

    def run(self) -> tuple[Outcome, ...]:
        """Go from event to event until nobody watched is left."""
        while self._events and self._left:
            now = self._take_batch()
            if self._may_start():
                self._apply(self._decide(self._snapshot(now), now), now)
        return tuple(self._outcomes.values())

    def _enter(self, at: datetime, kind: _Kind, name: str) -> None:
        turn = self._outcomes[name].preemptions
        heapq.heappush(self._events, (at, self._entered, kind, name, turn))
        self._entered += 1

    def _take_batch(self) -> datetime:
        """Let everything happen that belongs to the next pass; return its time."""
        last = self._events[0][0] + BATCH
        while self._events and self._events[0][0] <= last:
            now, _, kind, name, turn = heapq.heappop(self._events)
            if turn == self._outcomes[name].preemptions:
                self._happen(kind, name, now)
        return now

    def _happen(self, kind: _Kind, name: str, now: datetime) -> None:
        if kind is _Kind.ARRIVE:
            job = self._jobs[name]
            self._waiting[name] = Waiting(
                name, job.owner, job.groups, job.bound, job.arrival, job.kind, job.wishes
            )
        elif kind is _Kind.RENEW:
            self._renew(name, now)
        else:
            self._give_back(name, now)

    def _give_back(self, name: str, now: datetime) -> None:
        holding = self._holdings.pop(name)
        self._devices.change(holding.slots, 1)
        self._usage.hold(holding.owner, -_gpus(holding.slots), now)

    def _renew(self, name: str, now: datetime) -> None:
        holding, renewing = self._holdings[name], self._jobs[name].renewing
        assert renewing is not None
        assert holding.since is not None
        end = min(now + renewing.by, holding.since + renewing.latest_end)
        self._holdings[name] = replace(holding, ends_at=end)
        self._await_renewal(name, end)

    def _await_renewal(self, name: str, lease_end: datetime) -> None:
        """Enter the next renewal, if its holder is still there after the lease's end."""
        job, since = self._jobs[name], self._holdings[name].since
        assert since is not None
        if job.renewing and lease_end < since + job.held:
            self._enter(lease_end - job.renewing.notice, _Kind.RENEW, name)

    def _may_start(self) -> bool:
        """Tell whether a pass could start anything; False only if it surely would not."""
        if any(queue.may_preempt for queue in self._cluster.queues):
            return bool(self._waiting)
        wishes = {waiting.groups for waiting in self._waiting.values()}
        return any(self._devices.may_hold(groups) for groups in wishes)

    def _snapshot(self, now: datetime) -> Snapshot:
        return Snapshot(
            self._hosts,
            tuple(self._holdings.values()),
            tuple(self._waiting.values()),
            self._cluster,
            self._usage.at(now),
        )

    def _apply(self, plan: Plan, now: datetime) -> None:
        for preemption in plan.preemptions:
            self._preempt(preemption.lease_id, now)
        for grant in plan.grants:
            self._start(grant.lease_id, grant.slots, now)

    def _start(self, name: str, slots: tuple[Slot, ...], now: datetime) -> None:
        job, waiting = self._jobs[name], self._waiting.pop(name)
        self._devices.change(slots, -1)
        self._usage.hold(job.owner, _gpus(slots), now)
        priority = self._cluster.queue(job.wishes.queue).priority + job.wishes.priority
        self._holdings[name] = Holding(
            name, job.owner, slots, now + waiting.length, job.kind, now, priority,
            job.wishes.is_preemptible,
        )  # fmt: skip
        end = now + job.held
        self._outcomes[name] = replace(self._outcomes[name], started=now, ended=end)
        self._left.discard(name)
        self._enter(end, _Kind.END, name)
        self._await_renewal(name, now + waiting.length)

    def _preempt(self, name: str, now: datetime) -> None:
        """Stop a job; it waits again where it was and begins from the start."""
        self._give_back(name, now)
        before = self._outcomes[name]
        self._outcomes[name] = Outcome(self._jobs[name], preemptions=before.preemptions + 1)
        self._left.update(self._watched & {name})
        self._happen(_Kind.ARRIVE, name, now)


class _Devices:
    """What is free of each device; refuses what is held twice."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._free = {(host.name, gpu.index): 1000 for host in hosts for gpu in host.gpus}
        self._by_host = {host.name: 1000 * len(host.gpus) for host in hosts}

    def change(self, slots: Iterable[Slot], sign: int) -> None:
        """Give slots back (1) or take them (-1)."""
        for slot in slots:
            for gpu in slot.gpus:
                left = self._free[slot.host, gpu] + sign * slot.gpu_milli
                if left < 0:
                    raise Conflict(f"GPU {gpu} of host {slot.host} was granted twice")
                self._free[slot.host, gpu] = left
            self._by_host[slot.host] += sign * slot.all_gpus_milli

    def may_hold(self, groups: Sequence[SlotGroup]) -> bool:
        """Tell whether each group alone would fit if only the sum of free GPUs counted."""
        return all(self._room(group) >= group.count for group in groups)

    def _room(self, group: SlotGroup) -> float:
        if not group.gpus:
            return math.inf
        size = group.gpus * group.gpu_milli
        return sum(free // size for free in self._by_host.values())


class _Usage:
    """The GPU time of each owner, in GPU-seconds, of which half is forgotten in a half-life."""

    def __init__(self, half_life: timedelta) -> None:
        self._rate = math.log(2) / half_life.total_seconds()
        self._known: dict[str, tuple[datetime, float, float]] = {}

    def hold(self, owner: str, gpus: float, now: datetime) -> None:
        """Count that an owner holds so many GPUs more (or less) from now on."""
        at, used, held = self._known.get(owner, (now, 0.0, 0.0))
        self._known[owner] = now, self._grown(used, held, now - at), held + gpus

    def at(self, now: datetime) -> Mapping[str, float]:
        """Return the decayed GPU time of each owner."""
        return {
            owner: self._grown(used, held, now - at)
            for owner, (at, used, held) in self._known.items()
        }

    def _grown(self, used: float, held: float, by: timedelta) -> float:
        kept = math.exp(-self._rate * by.total_seconds())
        return used * kept + held * (1 - kept) / self._rate


def _gpus(slots: Iterable[Slot]) -> float:
    return sum(slot.all_gpus_milli for slot in slots) / 1000
