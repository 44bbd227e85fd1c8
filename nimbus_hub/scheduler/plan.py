"""Who starts now, and why the others wait: a snapshot and the time in, decisions out.

Requests start in order (order.py), within their quotas. The first that cannot start but
could, once holdings end, gets a reservation: the earliest time it fits if every holding
ends when it says (EASY back-fill, Lifka 1995). Later ones start now only if they cannot
delay it: they end before, or it still fits at its time with them running. Its
``starts_by`` is therefore a promise as long as nobody renews a lease and nothing comes
before it in the order. The others get none: back-fill and new arrivals may pass them, so
no honest bound is known.

Where others are being stopped for a request, or what it needs is just being given back, it
keeps its seats from everybody else until it can start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from nimbus_hub.model.host import HostState
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.scheduler.capacity import Capacity, Seated
from nimbus_hub.scheduler.decisions import Grant, Plan, Preemption, ReasonCode, Site, Wait
from nimbus_hub.scheduler.order import Ordering, ordered
from nimbus_hub.scheduler.placement import PlacementFactory
from nimbus_hub.scheduler.policies import ordering as ordering_named
from nimbus_hub.scheduler.policies import placement as placement_named
from nimbus_hub.scheduler.preemption import Stoppable, victims, yielding
from nimbus_hub.scheduler.quota import Quotas
from nimbus_hub.scheduler.reasons import Reasons
from nimbus_hub.scheduler.reservation import Reservation, earliest
from nimbus_hub.scheduler.shortage import Return
from nimbus_hub.scheduler.site import chosen, site_text, transfer
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting
from nimbus_hub.scheduler.topology import topology_text
from nimbus_hub.scheduler.words import counted

__all__ = ["Pass", "plan"]

_NO_PORTS = "waits for free ports or addresses at the hosts"


def plan(
    snapshot: Snapshot,
    now: datetime,
    placement: PlacementFactory | None = None,
    ordering: Ordering | None = None,
) -> Plan:
    """Return who starts now, who is stopped for it, and why the others wait.

    The policies are those that the cluster's rules name, if none are given.
    """
    return Pass(snapshot, now, placement, ordering).run()


@dataclass(frozen=True, slots=True)
class _Kept:
    """A request that does not start now, and why if that is known already."""

    waiting: Waiting
    code: ReasonCode
    text: str = ""
    datacenters: tuple[str, ...] = ()


class Pass:
    """One pass over the queue: what is free, what comes back when, the reservation."""

    def __init__(
        self,
        snapshot: Snapshot,
        now: datetime,
        placement: PlacementFactory | None = None,
        ordering: Ordering | None = None,
    ) -> None:
        rules = snapshot.cluster.rules
        self._snapshot = snapshot
        self._now = now
        self._placement = placement or placement_named(rules.placement)
        self._ordering = ordering or ordering_named(rules.ordering)
        ready = [host for host in snapshot.hosts if host.state is HostState.READY]
        self._now_free = Capacity(ready, rules, snapshot.mix, self._placement)
        self._now_free.close_faulty()
        self._quotas = Quotas(snapshot.cluster, snapshot.holdings)
        self._returns: dict[str, Return] = {}
        self._ending: list[Return] = []
        self._reservation: Reservation | None = None
        self._preemptions: list[Preemption] = []
        self.sites: dict[str, tuple[Site, ...]] = {}
        # What is free only shrinks in a pass: what did not fit need not be tried again.
        self._unfit: set[tuple[tuple[SlotGroup, ...], tuple[str, ...]]] = set()
        self._estimates: dict[tuple[tuple[SlotGroup, ...], str], float | None] = {}
        # What was admitted to seats that others still hold: when that ends nobody knows.
        self._pending: set[str] = set()
        self._is_promise = True
        self._hold()
        self._stoppable = Stoppable(snapshot, self._now_free, now)
        # What is free once all that is being given back is: the same view if nothing is.
        self._soon_free = self._now_free
        for holding in snapshot.holdings:
            if holding.is_ending:
                self._give_back(holding)

    def _hold(self) -> None:
        for holding in self._snapshot.holdings:
            taken = self._now_free.taken(holding.slots)
            self._now_free.take(taken)
            self._now_free.use_ports(holding.slots)
            if holding.ends_at is not None and taken:
                at = max(holding.ends_at, self._now)
                # An expectation that has passed was wrong: only the lease's end is known.
                expected = holding.expected_end
                likely = expected if expected and self._now < expected < at else at
                self._returns[holding.lease_id] = Return(at, likely, taken)

    def _give_back(self, holding: Holding) -> None:
        if self._soon_free is self._now_free:
            self._soon_free = self._now_free.copy()
        taken = self._soon_free.taken(holding.slots)
        self._soon_free.take(taken, -1)
        self._returns.pop(holding.lease_id, None)
        self._ending.append(Return(self._now, self._now, taken))

    def run(self) -> Plan:
        """Decide over every waiting request, in order."""
        grants: list[Grant] = []
        kept: list[_Kept] = []
        for answer in self._answers():
            if isinstance(answer, Grant):
                grants.append(answer)
            else:
                kept.append(answer)
        return Plan(tuple(grants), tuple(self._waits(kept)), tuple(self._preemptions))

    def _answers(self) -> Iterator[Grant | _Kept]:
        """Decide in order; who yields to somebody behind him is decided right after that one."""
        order = ordered(self._snapshot, self._now, self._ordering)
        behind: dict[int, list[Waiting]] = {}
        for place, yields in enumerate(yielding(self._snapshot, order, self._now)):
            answer = None
            if yields is None or yields.is_guest_only:
                answer = self._decide(order[place], may_be_guest=yields is None)
            if answer is not None:
                yield answer
            elif yields is not None:
                behind.setdefault(yields.to, []).append(order[place])
            for waiting in behind.get(place, ()):
                answer = self._decide(waiting)
                if answer is not None:
                    yield answer

    def _decide(self, waiting: Waiting, *, may_be_guest: bool = True) -> Grant | _Kept | None:
        """Return what becomes of a request, None if it would be a guest and may not be one."""
        excess = self._quotas.excess(waiting)
        if excess is not None:
            return _Kept(waiting, ReasonCode.QUOTA, excess)
        datacenters = self._datacenters(waiting)
        seated = self._fits_now(waiting, datacenters)
        is_short = seated is None
        if seated is not None:
            seated = self._without_delay(self._now_free, waiting, seated, datacenters)
        if seated is not None:
            if not may_be_guest and self._now_free.spread(seated)[0]:
                return None
            slots = self._now_free.slots(waiting.groups, seated, waiting.lease_id)
            if slots is None:
                return _Kept(waiting, ReasonCode.RESOURCES, _NO_PORTS)
            self._admit(waiting, seated)
            return Grant(waiting.lease_id, slots, self._placed(waiting, seated))
        if is_short:
            kept = self._make_room(waiting, datacenters)
            if kept is not None:
                return kept
        if self._reservation is None:
            self._reserve(waiting, datacenters)
        code = ReasonCode.RESOURCES if is_short else ReasonCode.RESERVATION
        return _Kept(waiting, code, "", datacenters)

    def _reserve(self, waiting: Waiting, datacenters: Sequence[str]) -> None:
        found = earliest(self._soon_free, waiting, datacenters, self._returns.values())
        if found is not None:
            self._reservation = found
            ends = [self._returns[lease_id].at for lease_id in self._pending]
            self._is_promise = not any(end <= found.at for end in ends)

    # Where

    def _datacenters(self, waiting: Waiting) -> tuple[str, ...]:
        """Return where a request may be: where it wishes, else where its data makes it best."""
        if waiting.wishes.datacenter is not None:
            return (waiting.wishes.datacenter,)
        names = tuple(sorted({host.datacenter for host in self._snapshot.hosts}))
        if len(names) < 2 or not (waiting.wishes.inputs or waiting.wishes.outputs):
            return names
        sites = self._weighed(waiting, names)
        return tuple(site.datacenter for site in sites if site.is_chosen) or names

    def _weighed(self, waiting: Waiting, names: Sequence[str]) -> list[Site]:
        """Return what speaks for each datacenter; none if its data lives nowhere known."""
        weighed = []
        for name in self._keeping_promise(waiting, names):
            moved = transfer(waiting.wishes, name, self._snapshot.cluster)
            if moved is None:
                return []
            wait = self._estimate(waiting, name)
            site = Site(name, moved.bytes_to_move, moved.seconds, wait, unsized=moved.unsized_far)
            weighed.append((site, moved))
        sites = chosen(weighed)
        self.sites[waiting.lease_id] = tuple(sites)
        return sites

    def _keeping_promise(self, waiting: Waiting, names: Sequence[str]) -> Sequence[str]:
        """Return the datacenters in which a request starts when it was promised, or all."""
        if waiting.promised is None:
            return names
        kept = [
            name
            for name in names
            if self._soon_free.gang(waiting.groups, (name,)) is not None
            or (
                (found := earliest(self._soon_free, waiting, (name,), self._returns.values()))
                and found.at <= waiting.promised
            )
        ]
        return kept or names

    def _estimate(self, waiting: Waiting, datacenter: str) -> float | None:
        """Return in how many seconds a gang likely fits in a datacenter, None if nobody knows."""
        key = waiting.groups, datacenter
        if key not in self._estimates:
            self._estimates[key] = self._look_ahead(waiting, datacenter)
        return self._estimates[key]

    def _look_ahead(self, waiting: Waiting, datacenter: str) -> float | None:
        if self._soon_free.gang(waiting.groups, (datacenter,)) is not None:
            return 0.0
        likely = [Return(each.likely, each.likely, each.taken) for each in self._returns.values()]
        found = earliest(self._soon_free, waiting, (datacenter,), likely)
        return None if found is None else (found.at - self._now).total_seconds()

    def _best(self, capacity: Capacity, waiting: Waiting, names: Sequence[str]) -> Seated | None:
        """Return seats in the datacenter that packs a gang best."""
        each = (capacity.gang(waiting.groups, (name,), waiting.near) for name in names)
        found = [seated for seated in each if seated is not None]
        if len(found) < 2:
            return found[0] if found else None
        return min(found, key=capacity.spread)

    def _fits_now(self, waiting: Waiting, names: tuple[str, ...]) -> Seated | None:
        key = (waiting.groups, names)
        if key in self._unfit:
            return None
        seated = self._best(self._now_free, waiting, names)
        if seated is None:
            self._unfit.add(key)
        return seated

    def _placed(self, waiting: Waiting, seated: Seated) -> str:
        """Return where a request is and why there."""
        free = self._now_free.fitters[seated.datacenter].free
        wishes = waiting.wishes
        text = topology_text(
            seated.datacenter, free, waiting.groups, seated.seats, wishes.step_bytes
        )
        if waiting.near is not None:
            return f"{text}; near your session on {waiting.near}"
        if wishes.datacenter is not None:
            return f"{text}; the datacenter was asked for"
        sites = self.sites.get(waiting.lease_id)
        return f"{text}; {site_text(sites)}" if sites else text

    # Who may not be delayed

    def _admit(self, waiting: Waiting, seated: Seated) -> None:
        """Count a request as running from now on."""
        end = self._now + waiting.length
        likely = self._now + (waiting.wishes.expected or waiting.length)
        taken = self._now_free.seated(seated)
        for capacity in {id(c): c for c in (self._now_free, self._soon_free)}.values():
            capacity.take(taken)
        self._quotas.add(waiting)
        self._returns[waiting.lease_id] = Return(end, min(end, likely), taken)
        if self._reservation is not None and end > self._reservation.at:
            self._reservation.free.take(taken)

    def _without_delay(
        self, capacity: Capacity, waiting: Waiting, seated: Seated, names: Sequence[str]
    ) -> Seated | None:
        """Return seats, these or others, that leave the reservation as it is, or None."""
        reserved = self._reservation
        if reserved is None:
            return seated
        # On seats that others still hold it starts nobody knows when, and ends then too.
        starts_now = capacity is self._now_free
        if starts_now and self._now + waiting.length <= reserved.at:
            return seated
        if reserved.allows(capacity.seated(seated)):
            return seated
        capacity.take(reserved.taken)
        other = self._best(capacity, waiting, names)
        capacity.take(reserved.taken, -1)
        return other if other is not None and reserved.allows(capacity.seated(other)) else None

    # Room that others make

    def _make_room(self, waiting: Waiting, names: tuple[str, ...]) -> _Kept | None:
        """Keep seats that are being given back, or have others stopped; None if that fails."""
        soon = self._soon_free
        code, text = ReasonCode.ENDING, "starts when what is being given back now is free"
        seated = None
        if soon is not self._now_free:
            seated = self._best(soon, waiting, names)
        if seated is None:
            room = self._preempt(waiting, names)
            if room is None:
                return None
            code, (text, seated) = ReasonCode.PREEMPTING, room
        else:
            seated = self._without_delay(soon, waiting, seated, names)
        if seated is None:
            return None
        self._admit(waiting, seated)
        self._pending.add(waiting.lease_id)
        return _Kept(waiting, code, text)

    def _preempt(self, waiting: Waiting, names: tuple[str, ...]) -> tuple[str, Seated] | None:
        """Have the cheapest leases stopped that make room without delaying anybody promised."""
        told = {each.lease_id for each in self._preemptions}
        stoppable = self._stoppable.candidates(waiting, told)
        found = victims(
            self._soon_free, stoppable, lambda: self._best(self._soon_free, waiting, names)
        )
        if found is None:
            return None
        stopped, seated = found
        if self._reservation is not None and not self._reservation.allows(
            self._soon_free.seated(seated)
        ):
            return None
        for holding in stopped:
            self._give_back(holding)
            why = (
                "a request of higher priority needs what it holds"
                if self._stoppable.is_outranked(waiting, holding)
                else "work with GPUs needs the host, on which work without is a guest"
            )
            self._preemptions.append(Preemption(holding.lease_id, waiting.lease_id, why))
        are = "is" if len(stopped) == 1 else "are"
        return f"{counted(len(stopped), 'lease')} of others {are} being stopped for it", seated

    # Why

    def _waits(self, kept: Sequence[_Kept]) -> Iterable[Wait]:
        returns = [*self._ending, *self._returns.values()]
        reasons = Reasons(self._snapshot, self._now_free, lambda: returns, self._now)
        for position, each in enumerate(kept, start=1):
            code, text = each.code, each.text
            if code is ReasonCode.RESOURCES and not text:
                code, text = reasons.of(each.waiting.groups, each.datacenters)
            ahead = position - 1
            behind = f"behind {ahead} earlier request{'s' if ahead > 1 else ''}"
            if code is ReasonCode.RESERVATION:
                text = f"{behind}, which starting now would delay"
            elif ahead and code in (ReasonCode.RESOURCES, ReasonCode.HOSTS_AWAY):
                text = f"{text}; {behind}"
            sites = self.sites.get(each.waiting.lease_id)
            if sites and code is not ReasonCode.QUOTA:
                text = f"{text} ({site_text(sites)})"
            yield Wait(each.waiting.lease_id, position, text, self._starts_by(each), code)

    def _starts_by(self, kept: _Kept) -> datetime | None:
        """Return the promise to a request, the old one while others make room for it."""
        promise = kept.waiting.promised
        if kept.code not in (ReasonCode.ENDING, ReasonCode.PREEMPTING):
            reserved = self._reservation
            is_next = reserved is not None and reserved.waiting is kept.waiting
            promise = reserved.at if reserved is not None and is_next else None
            if not self._is_promise:
                promise = None
        return promise if promise is not None and promise > self._now else None
