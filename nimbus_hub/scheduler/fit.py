"""Where a gang fits in one datacenter: all slots or none.

Groups that are hardest to place choose first, so that parameter servers and evaluators
find their workers placed already. By the topology of its group (``SlotGroup``):

- pack: one host; else one rack, the one in which the fewest hosts do; else few racks.
- spread: as few on a host as possible, hosts in the racks of the gang first.
- any: wherever it costs least.

Groups that pack and whose slots are alike, like a chief and its workers, pack together.
What a gang should be near to counts as a host of its own: first that host, then its rack.
Slots without GPUs lie on GPU hosts only where the hosts without do not hold the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice, permutations

import numpy as np

from nimbus_hub.model.slot import SlotGroup, Topology
from nimbus_hub.scheduler.free import WHOLE, Free, Ints, Seat
from nimbus_hub.scheduler.placement import Placement, chosen
from nimbus_hub.scheduler.ranking import Ranking, Rooms
from nimbus_hub.scheduler.shape import Shape

__all__ = ["Fitter", "Seats"]

Seats = tuple[tuple[Seat, ...], ...]
"""The seats of a gang, by group, in the order of the groups."""

_Share = tuple[int, int]
"""A host, and how many slots of a group are there."""

_ORDERS = 6


class Fitter:
    """Finds seats in one view; leaves it as it was."""

    def __init__(self, free: Free, placement: Placement) -> None:
        self.free = free
        self._placement = placement
        self._rankings: dict[Shape, Ranking] = {}
        self._rooms: dict[Shape, Rooms] = {}

    def one(self, shape: Shape) -> Seat | None:
        """Return the best seat for one slot, or None."""
        return self._ranking(shape).best()

    def gang(self, groups: Sequence[SlotGroup], near: int | None = None) -> Seats | None:
        """Return seats for all slots of all groups, ``near`` a host if they can be, or None."""
        if len(groups) == 1 and groups[0].count == 1 and near is None:
            seat = self.one(Shape.of(groups[0]))
            return None if seat is None else ((seat,),)
        if len(groups) == 1:
            return self._in_order(groups, (0,), near)
        if not self.could(groups):
            return None
        alike = _alike(groups)
        if len(alike) < len(groups):
            return self._together(groups, alike, near)
        hardest = sorted(range(len(groups)), key=lambda at: _hardness(groups[at]), reverse=True)
        for order in islice(permutations(hardest), _ORDERS):
            seats = self._in_order(groups, order, near)
            if seats is not None:
                return seats
        return None

    def _together(
        self, groups: Sequence[SlotGroup], alike: Sequence[Sequence[int]], near: int | None
    ) -> Seats | None:
        """Return seats for groups of which some are alike: as one group, then dealt out."""
        merged = [
            replace(groups[members[0]], count=sum(groups[at].count for at in members))
            for members in alike
        ]
        seats = self.gang(merged, near)
        if seats is None:
            return None
        found: dict[int, list[Seat]] = {}
        for members, own in zip(alike, seats, strict=True):
            left = list(own)
            for at in members:
                found[at] = _cut(left, groups[at].count)
        return tuple(tuple(found[at]) for at in range(len(groups)))

    def could(self, groups: Sequence[SlotGroup]) -> bool:
        """Tell quickly whether each group alone has room; if not, all together never do."""
        return all(self.rooms(Shape.of(group)).total >= group.count for group in groups)

    def rooms(self, shape: Shape) -> Rooms:
        """Return how many slots of a shape fit where, as of now."""
        if shape not in self._rooms:
            self._rooms[shape] = Rooms(self.free, shape)
        rooms = self._rooms[shape]
        rooms.refresh()
        return rooms

    def _ranking(self, shape: Shape) -> Ranking:
        if shape not in self._rankings:
            self._rankings[shape] = Ranking(self.free, self._placement, shape)
        return self._rankings[shape]

    def _in_order(
        self, groups: Sequence[SlotGroup], order: Sequence[int], near: int | None
    ) -> Seats | None:
        """Return the gang's seats if the groups choose in this order."""
        found: dict[int, tuple[Seat, ...]] = {}
        used: dict[int, None] = {} if near is None else {near: None}
        held: list[Seat] = []
        try:
            for at in order:
                shape = Shape.of(groups[at])
                shares = self._shares(groups[at], shape, tuple(used))
                if shares is None:
                    return None
                found[at] = self._seats(shape, shares)
                if at != order[-1]:
                    for seat in found[at]:
                        self.free.hold(seat)
                        held.append(seat)
                    used.update((host, None) for host, _ in shares)
            return tuple(found[at] for at in range(len(groups)))
        finally:
            for seat in held:
                self.free.hold(seat, -1)

    def _shares(self, group: SlotGroup, shape: Shape, used: tuple[int, ...]) -> list[_Share] | None:
        """Return how many slots go to which hosts; hosts without GPUs first for those without."""
        rooms = self.rooms(shape)
        if not group.gpus and self.free.has_gpus.any() and not self.free.has_gpus.all():
            plain = np.where(self.free.has_gpus, 0, rooms.hosts)
            shares = self._arrange(group, shape, Rooms(self.free, shape, plain), used)
            if shares is not None:
                return shares
        return self._arrange(group, shape, rooms, used)

    def _arrange(
        self, group: SlotGroup, shape: Shape, rooms: Rooms, used: tuple[int, ...]
    ) -> list[_Share] | None:
        topology = group.wanted_topology
        if rooms.total < group.count:
            return None
        if topology in (Topology.SPREAD, Topology.SPREAD_HOST):
            return self._spread(group, shape, rooms.hosts, used)
        if topology is Topology.ANY:
            hosts = self._by_cost(shape, np.flatnonzero(rooms.hosts))
            return _filled(hosts, rooms.hosts, group.count)
        if rooms.most >= group.count:
            whole = self._one_host(group.count, shape, rooms.hosts, used)
            if whole is not None:
                return [(whole, group.count)]
        if topology is Topology.PACK_HOST:
            return None
        return self._racks(group.count, rooms, used, topology)

    def _one_host(self, count: int, shape: Shape, room: Ints, used: tuple[int, ...]) -> int | None:
        """Return the host for all slots: one of the gang's, one in its racks, or any other.

        Of several the one of least cost.
        """
        enough = np.flatnonzero(room >= count)
        if not len(enough):
            return None
        own = [host for host in used if room[host] >= count]
        if used and not own:
            racks = {self.free.rack_of(host) for host in used}
            own = [int(host) for host in enough if self.free.rack_of(int(host)) in racks]
        together = shape
        if shape.gpus and shape.gpu_milli == WHOLE:
            together = Shape(
                shape.cpus_milli * count,
                shape.memory_bytes * count,
                shape.gpus * count,
                WHOLE,
                shape.models,
            )
        costs = self._ranking(together).costs()
        among = np.array(own) if own else enough
        return int(among[costs[among].argmin()])

    def _racks(
        self, count: int, rooms: Rooms, used: tuple[int, ...], topology: Topology
    ) -> list[_Share] | None:
        """Return shares in one rack, one of the gang's own if it can be, else in few racks."""
        rack = None
        if used:
            own = np.array(sorted({self.free.rack_of(host) for host in used}), np.int64)
            rack = rooms.tightest_rack(count, own)
        if rack is None:
            rack = rooms.tightest_rack(count)
        if rack is not None:
            return self._in_rack(rack, rooms.hosts, count)
        if topology is Topology.PACK_RACK:
            return None
        shares: list[_Share] = []
        left = rooms.racks.copy()
        while count:
            enough = np.flatnonzero(left >= count)
            rack = int(enough[left[enough].argmin()]) if len(enough) else int(left.argmax())
            taken = min(count, int(left[rack]))
            shares += self._in_rack(rack, rooms.hosts, taken)
            left[rack] = 0
            count -= taken
        return shares

    def _in_rack(self, rack: int, room: Ints, count: int) -> list[_Share]:
        """Fill the largest hosts first; the rest goes to the tightest host that takes it."""
        hosts = self.free.rack(rack)
        local = room[hosts].tolist()
        order = sorted(range(len(local)), key=local.__getitem__, reverse=True)
        shares: list[_Share] = []
        for at in order:
            if local[at] >= count:
                break
            shares.append((hosts.start + at, local[at]))
            count -= local[at]
        enough = [at for at in order[len(shares) :] if local[at] >= count]
        shares.append((hosts.start + min(enough, key=local.__getitem__), count))
        return shares

    def _spread(
        self, group: SlotGroup, shape: Shape, room: Ints, used: tuple[int, ...]
    ) -> list[_Share] | None:
        """Deal the slots to the hosts in rounds; hosts in the gang's racks come first."""
        hosts = np.flatnonzero(room)
        if group.topology is Topology.SPREAD_HOST and len(hosts) < group.count:
            return None
        racks = {self.free.rack_of(host) for host in used}
        ranked = self._by_cost(shape, hosts)
        ranked.sort(key=lambda host: self.free.rack_of(host) not in racks)
        taken = dict.fromkeys(ranked[: group.count], 0)
        left = group.count
        while left:
            for host in taken:
                if left and taken[host] < room[host]:
                    taken[host] += 1
                    left -= 1
        return [(host, count) for host, count in taken.items() if count]

    def _by_cost(self, shape: Shape, hosts: Ints) -> list[int]:
        costs = self._ranking(shape).costs()
        return [int(host) for host in hosts[np.argsort(costs[hosts], kind="stable")]]

    def _seats(self, shape: Shape, shares: Sequence[_Share]) -> tuple[Seat, ...]:
        """Return the seats of a group."""
        if not shape.gpus:
            return tuple(Seat(host, (), shape, count) for host, count in shares)
        seats: list[Seat] = []
        for host, count in shares:
            if count == 1:
                seats.append(self._ranking(shape).seat(host))
            elif shape.gpu_milli == WHOLE:
                seats.append(self._whole(shape, host, count))
            else:
                seats += self._parts(shape, host, count)
        return tuple(seats)

    def _whole(self, shape: Shape, host: int, count: int) -> Seat:
        """Return seats for slots of whole devices."""
        fitting = self.free.fitting_devices(shape, host)
        needed = shape.gpus * count
        if len(fitting) == needed:  # Nothing to choose.
            return Seat(host, tuple(fitting), shape, count)
        together = shape._replace(gpus=needed)
        return Seat(host, chosen(self._placement, together, host, fitting), shape, count)

    def _parts(self, shape: Shape, host: int, count: int) -> list[Seat]:
        """Return seats for slots of a part of a device: each sees what the last one took."""
        seats: list[Seat] = []
        for _ in range(count):
            seats.append(self._ranking(shape).seat(host))
            self.free.hold(seats[-1])
        for seat in seats:
            self.free.hold(seat, -1)
        return seats


def _hardness(group: SlotGroup) -> tuple[int, ...]:
    packs = group.wanted_topology not in (Topology.SPREAD, Topology.SPREAD_HOST, Topology.ANY)
    return group.gpus, bool(group.gpu_models), packs, group.cpus_milli, group.memory_bytes


def _alike(groups: Sequence[SlotGroup]) -> list[list[int]]:
    """Return the places of groups that pack together, each with its like."""
    found: dict[object, list[int]] = {}
    for at, group in enumerate(groups):
        packs = group.wanted_topology in (Topology.PACK, Topology.PACK_RACK)
        key = (Shape.of(group), group.wanted_topology) if packs else at
        found.setdefault(key, []).append(at)
    return list(found.values())


def _cut(seats: list[Seat], count: int) -> list[Seat]:
    """Take seats for so many slots off the front of a list."""
    taken = []
    while count:
        seat = seats.pop(0)
        if seat.slots > count:
            width = count * seat.shape.gpus
            rest = seat._replace(devices=seat.devices[width:], slots=seat.slots - count)
            seats.insert(0, rest)
            seat = seat._replace(devices=seat.devices[:width], slots=count)
        taken.append(seat)
        count -= seat.slots
    return taken


def _filled(hosts: Iterable[int], room: Ints, count: int) -> list[_Share]:
    shares = []
    for host in hosts:
        taken = min(count, int(room[host]))
        shares.append((host, taken))
        count -= taken
        if not count:
            break
    return shares
