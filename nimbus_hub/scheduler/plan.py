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

from collections.abc import Iterable, Sequence
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
from nimbus_hub.scheduler.preemption import Stoppable, Yield, victims, yielding
from nimbus_hub.scheduler.quota import Quotas
from nimbus_hub.scheduler.reservation import Reservation, earliest
from nimbus_hub.scheduler.shortage import Return, absent, away_text, shortage
from nimbus_hub.scheduler.site import chosen, site_text, transfer
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting
from nimbus_hub.scheduler.topology import topology_text
from nimbus_hub.scheduler.words import counted

__all__ = ["Pass", "plan"]


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
        self._quotas = Quotas(snapshot.cluster, snapshot.holdings)
        self._returns: dict[str, Return] = {}
        self._ending: list[Return] = []
        self._reservation: Reservation | None = None
        self._preemptions: list[Preemption] = []
        self.sites: dict[str, tuple[Site, ...]] = {}
        # What is free only shrinks in a pass: what did not fit need not be tried again.
        self._unfit: set[tuple[tuple[SlotGroup, ...], tuple[str, ...]]] = set()
        self._lacks: dict[tuple[tuple[SlotGroup, ...], tuple[str, ...]], str] = {}
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
                likely = min(at, max(holding.expected_end or at, self._now))
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
        order = ordered(self._snapshot, self._now, self._ordering)
        yielded: list[Waiting] = []
        for waiting, yields in zip(order, yielding(self._snapshot, order), strict=True):
            answer = None if yields is Yield.ALWAYS else self._decide(waiting, yields)
            if answer is None:
                yielded.append(waiting)
            elif isinstance(answer, Grant):
                grants.append(answer)
            else:
                kept.append(answer)
        for waiting in yielded:
            answer = self._decide(waiting, Yield.NEVER)
            if isinstance(answer, Grant):
                grants.append(answer)
            elif answer is not None:
                kept.append(answer)
        return Plan(tuple(grants), tuple(self._waits(kept)), tuple(self._preemptions))

    def _decide(self, waiting: Waiting, yields: Yield) -> Grant | _Kept | None:
        """Return what becomes of a request, or None if it yields to those behind it."""
        excess = self._quotas.excess(waiting)
        if excess is not None:
            return _Kept(waiting, ReasonCode.QUOTA, excess)
        datacenters = self._datacenters(waiting)
        seated = self._fits_now(waiting, datacenters)
        is_short = seated is None
        if seated is not None:
            seated = self._without_delay(self._now_free, waiting, seated, datacenters)
        if seated is not None:
            if yields is Yield.AS_GUEST and self._now_free.spread(seated)[0]:
                return None
            slots = self._now_free.slots(waiting.groups, seated, waiting.lease_id)
            if slots is not None:
                self._admit(waiting, seated)
                return Grant(waiting.lease_id, slots, self._placed(waiting, seated))
        if is_short:
            kept = self._make_room(waiting, datacenters)
            if kept is not None:
                return kept
        if self._reservation is None:
            returns = self._returns.values()
            self._reservation = earliest(self._soon_free, waiting, datacenters, returns)
        return _Kept(waiting, ReasonCode.RESOURCES if is_short else ReasonCode.RESERVATION)

    # Where

    def _datacenters(self, waiting: Waiting) -> tuple[str, ...]:
        """Return where a request may be: where it wishes, else where its data makes it best."""
        if waiting.wishes.datacenter is not None:
            return (waiting.wishes.datacenter,)
        names = tuple(self._now_free.fitters)
        if len(names) < 2 or not (waiting.wishes.inputs or waiting.wishes.outputs):
            return names
        sites = self._weighed(waiting, names)
        return tuple(site.datacenter for site in sites if site.is_chosen) or names

    def _weighed(self, waiting: Waiting, names: Sequence[str]) -> list[Site]:
        """Return what speaks for each datacenter; none if its data lives nowhere known."""
        weighed = []
        for name in names:
            moved = transfer(waiting.wishes, name, self._snapshot.cluster)
            if moved is None:
                return []
            wait = self._estimate(waiting, name)
            site = Site(name, moved.bytes_to_move, moved.seconds, wait)
            weighed.append((site, moved))
        sites = chosen(weighed)
        self.sites[waiting.lease_id] = tuple(sites)
        return sites

    def _estimate(self, waiting: Waiting, datacenter: str) -> float | None:
        """Return in how many seconds a gang likely fits in a datacenter, None if nobody knows."""
        if self._soon_free.gang(waiting.groups, (datacenter,)) is not None:
            return 0.0
        likely = [Return(each.likely, each.likely, each.taken) for each in self._returns.values()]
        found = earliest(self._soon_free, waiting, (datacenter,), likely)
        return None if found is None else (found.at - self._now).total_seconds()

    def _best(
        self, capacity: Capacity, groups: tuple[SlotGroup, ...], names: Sequence[str]
    ) -> Seated | None:
        """Return seats in the datacenter that packs a gang best."""
        found = [seated for name in names if (seated := capacity.gang(groups, (name,))) is not None]
        if len(found) < 2:
            return found[0] if found else None
        return min(found, key=capacity.spread)

    def _fits_now(self, waiting: Waiting, names: tuple[str, ...]) -> Seated | None:
        key = (waiting.groups, names)
        if key in self._unfit:
            return None
        seated = self._best(self._now_free, waiting.groups, names)
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
        if reserved is None or self._now + waiting.length <= reserved.at:
            return seated
        if reserved.allows(capacity.seated(seated)):
            return seated
        capacity.take(reserved.taken)
        other = self._best(capacity, waiting.groups, names)
        capacity.take(reserved.taken, -1)
        return other if other is not None and reserved.allows(capacity.seated(other)) else None

    # Room that others make

    def _make_room(self, waiting: Waiting, names: tuple[str, ...]) -> _Kept | None:
        """Keep seats that are being given back, or have others stopped; None if that fails."""
        soon = self._soon_free
        code, text = ReasonCode.ENDING, "starts when what is being given back now is free"
        seated = None
        if soon is not self._now_free:
            seated = self._best(soon, waiting.groups, names)
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
        return _Kept(waiting, code, text)

    def _preempt(self, waiting: Waiting, names: tuple[str, ...]) -> tuple[str, Seated] | None:
        """Have the cheapest leases stopped that make room without delaying anybody promised."""
        told = {each.lease_id for each in self._preemptions}
        stoppable = self._stoppable.candidates(waiting, told)
        found = victims(
            self._soon_free, stoppable, lambda: self._best(self._soon_free, waiting.groups, names)
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
        reserved = self._reservation
        for position, each in enumerate(kept, start=1):
            starts_by = None
            if reserved is not None and reserved.waiting is each.waiting:
                starts_by = reserved.at if reserved.at > self._now else None
            code, text = self._why(each)
            ahead = position - 1
            behind = f"behind {ahead} earlier request{'s' if ahead > 1 else ''}"
            if code is ReasonCode.RESERVATION:
                text = f"{behind}, which starting now would delay"
            elif ahead and code in (ReasonCode.RESOURCES, ReasonCode.HOSTS_AWAY):
                text = f"{text}; {behind}"
            yield Wait(each.waiting.lease_id, position, text, starts_by, code)

    def _why(self, kept: _Kept) -> tuple[ReasonCode, str]:
        if kept.text or kept.code is not ReasonCode.RESOURCES:
            return kept.code, kept.text
        groups = kept.waiting.groups
        key = (groups, self._datacenters_of(kept.waiting))
        away = self._away(groups)
        if away:
            return ReasonCode.HOSTS_AWAY, away
        if key not in self._lacks:
            self._lacks[key] = self._shortage(groups, key[1])
        return kept.code, self._lacks[key]

    def _shortage(self, groups: tuple[SlotGroup, ...], names: tuple[str, ...]) -> str:
        returns = sorted([*self._ending, *self._returns.values()], key=lambda each: each.at)
        return shortage(self._now_free, groups, names, returns, self._now)

    def _datacenters_of(self, waiting: Waiting) -> tuple[str, ...]:
        """Return where a request was tried."""
        if waiting.wishes.datacenter is not None:
            return (waiting.wishes.datacenter,)
        sites = self.sites.get(waiting.lease_id, ())
        return tuple(site.datacenter for site in sites if site.is_chosen) or tuple(
            self._now_free.fitters
        )

    def _away(self, groups: tuple[SlotGroup, ...]) -> str:
        hosts = self._snapshot.hosts
        if all(host.state is HostState.READY for host in hosts):
            return ""
        rules = self._snapshot.cluster.rules
        empty = Capacity(hosts, rules, {}, self._placement)
        ready = [host for host in hosts if host.state is HostState.READY]
        missing = absent(groups, hosts, empty, Capacity(ready, rules, {}, self._placement))
        return f"waits for {away_text(missing)}" if missing else ""
