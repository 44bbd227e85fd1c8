"""Where a gang fits: all slots or none, in one datacenter, close together.

This is the seam for placement: a :class:`Fit` finds slots in a view and leaves the view as
it was. The one here, :func:`place`, packs: fewest hosts, then one rack, then one
datacenter, and among equals the tightest host, then the first by name. Slots without GPUs
go to hosts without GPUs; on GPU hosts they first take only what the free GPUs can spare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from nimbus_hub.model.slot import PORTS_PER_SLOT, Slot, SlotGroup
from nimbus_hub.scheduler.free import Free, FreeHost

__all__ = ["Fit", "place", "roomy"]

_Share = tuple[FreeHost, int]
"""How many slots of a group are on, or would fit on, a host."""


class Fit(Protocol):
    """A placement policy."""

    def __call__(
        self, free: Free, groups: Sequence[SlotGroup], seed: str
    ) -> tuple[Slot, ...] | None:
        """Return slots for all groups, in their order, or None; leave ``free`` as it was.

        ``seed`` is the lease's id; it only decides which ports are taken.
        """
        ...


def place(free: Free, groups: Sequence[SlotGroup], seed: str) -> tuple[Slot, ...] | None:
    """Return slots for a gang in the datacenter where it is packed best, or None."""
    best: tuple[tuple[int, ...], tuple[Slot, ...]] | None = None
    for hosts in free.datacenters.values():
        slots = _in_datacenter(free, hosts, groups, seed)
        if slots is None:
            continue
        cost = _cost(free, slots)
        if best is None or cost < best[0]:
            best = cost, slots
    return best[1] if best else None


def roomy(groups: Sequence[SlotGroup], hosts: Iterable[FreeHost]) -> bool:
    """Tell quickly whether each group alone fits; if not, all together never do."""
    hosts = tuple(hosts)
    return all(_reaches(group, hosts) for group in groups)


def _reaches(group: SlotGroup, hosts: Sequence[FreeHost]) -> bool:
    left = group.count
    for host in hosts:
        left -= host.room(group)
        if left <= 0:
            return True
    return False


def _cost(free: Free, slots: Sequence[Slot]) -> tuple[int, ...]:
    """Rank a placement: slots without GPUs on GPU hosts, hosts, racks."""
    hosts = {slot.host for slot in slots}
    racks = {free.hosts[name].host.rack for name in hosts}
    strays = sum(not slot.gpus and bool(free.hosts[slot.host].host.gpus) for slot in slots)
    return strays, len(hosts), len(racks)


def _in_datacenter(
    free: Free, hosts: Sequence[FreeHost], groups: Sequence[SlotGroup], seed: str
) -> tuple[Slot, ...] | None:
    if not roomy(groups, hosts):
        return None
    found: dict[int, list[Slot]] = {}
    used: set[str] = set()
    # The group that is hardest to place chooses first.
    hardest = sorted(range(len(groups)), key=lambda at: _hardness(groups[at]), reverse=True)
    try:
        for at in hardest:
            shares = _shares(hosts, groups[at], used)
            if shares is None:
                return None
            found[at] = []
            first = sum(group.count for group in groups[:at] if group.role == groups[at].role)
            for slot in _slots(groups[at], shares, first, seed):
                if len(slot.ports) < PORTS_PER_SLOT:
                    return None  # hosts that share an address ran out of its ports together
                free.take((slot,))
                found[at].append(slot)
            used.update(host.host.name for host, _ in shares)
        return tuple(slot for at in range(len(groups)) for slot in found[at])
    finally:
        for slots in found.values():
            free.give(slots)


def _hardness(group: SlotGroup) -> tuple[int, ...]:
    return group.gpus, group.gpu_model is not None, group.cpus_milli, group.memory_bytes


def _slots(group: SlotGroup, shares: Sequence[_Share], first: int, seed: str) -> Iterator[Slot]:
    """Yield the slots of a group; each must be taken before the next is made."""
    index = first
    for host, count in shares:
        for _ in range(count):
            yield host.slot(group, index, seed)
            index += 1


def _shares(hosts: Sequence[FreeHost], group: SlotGroup, used: set[str]) -> list[_Share] | None:
    """Return how many slots go to which hosts, by the first rule under which they all fit."""
    for rule in _gpu_rules if group.gpus else _cpu_rules:
        rooms = [(host, count) for host in hosts if (count := rule(host, group))]
        if sum(count for _, count in rooms) >= group.count:
            return _pack(rooms, group, used)
    return None


def _room(host: FreeHost, group: SlotGroup) -> int:
    return host.room(group)


def _room_without_gpus(host: FreeHost, group: SlotGroup) -> int:
    return 0 if host.host.gpus else host.room(group)


def _room_beside_gpus(host: FreeHost, group: SlotGroup) -> int:
    """Return the room in what the host's free GPUs leave of their equal shares."""
    room = host.room(group)
    if not room or not host.gpus:
        return room
    share = host.gpus / len(host.host.gpus)
    cpus = host.cpus_milli - host.host.cpus_milli * share
    memory = host.memory_bytes - host.host.memory_bytes * share
    return max(0, min(room, int(cpus // group.cpus_milli), int(memory // group.memory_bytes)))


_gpu_rules: tuple[Callable[[FreeHost, SlotGroup], int], ...] = (_room,)
_cpu_rules = (_room_without_gpus, _room_beside_gpus, _room)


def _pack(rooms: Sequence[_Share], group: SlotGroup, used: set[str]) -> list[_Share]:
    """Return shares on one host if there is one, else in one rack, else in few racks."""
    whole = [host for host, count in rooms if count >= group.count]
    if whole:
        return [(min(whole, key=lambda host: _tightness(host, used)), group.count)]
    racks: dict[str, list[_Share]] = {}
    for host, count in rooms:
        racks.setdefault(host.host.rack, []).append((host, count))
    packed: list[_Share] = []
    left = group.count
    while left:
        rack, shares = _best_rack(racks, left, used)
        del racks[rack]
        packed += shares
        left -= sum(count for _, count in shares)
    return packed


def _best_rack(
    racks: dict[str, list[_Share]], count: int, used: set[str]
) -> tuple[str, list[_Share]]:
    """Return the rack that needs the fewest hosts for all, else the one that holds most."""
    sizes = {rack: sum(room for _, room in rooms) for rack, rooms in racks.items()}
    enough = [rack for rack, size in sizes.items() if size >= count]
    if not enough:
        rack = min(racks, key=lambda rack: (-sizes[rack], rack))
        return rack, _fewest(racks[rack], sizes[rack], used)
    packed = {rack: _fewest(racks[rack], count, used) for rack in enough}
    rack = min(enough, key=lambda rack: (len(packed[rack]), sizes[rack], rack))
    return rack, packed[rack]


def _fewest(rooms: Sequence[_Share], count: int, used: set[str]) -> list[_Share]:
    """Fill the largest hosts first; the rest goes to the tightest host that takes it."""
    ranked = sorted(rooms, key=lambda share: (-share[1], _tightness(share[0], used)))
    packed: list[_Share] = []
    for at, (host, room) in enumerate(ranked):
        if room < count:
            packed.append((host, room))
            count -= room
            continue
        last = [host for host, room in ranked[at:] if room >= count]
        packed.append((min(last, key=lambda host: _tightness(host, used)), count))
        break
    return packed


def _tightness(host: FreeHost, used: set[str]) -> tuple[bool, int, int, int, str]:
    """Rank hosts that fit: the gang's own, then those with least left, then by name."""
    name = host.host.name
    return name not in used, host.gpus, host.cpus_milli, host.memory_bytes, name
