"""What a request lacks, in users' words, with the times at which it comes back.

"waits for 4 more GPUs A100 in east; 2 come back at 14:10, 2 at 14:32 UTC; 3 hosts have too
little memory"
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from nimbus_hub.model.host import Host, HostState
from nimbus_hub.model.quantities import format_cpus, format_memory
from nimbus_hub.model.slot import SlotGroup, Topology
from nimbus_hub.scheduler.capacity import Capacity, Taken
from nimbus_hub.scheduler.fit import Fitter
from nimbus_hub.scheduler.free import WHOLE
from nimbus_hub.scheduler.shape import Shape
from nimbus_hub.scheduler.words import clock, counted, cpus_text, gpus_text, roles_text, wish_text

__all__ = ["Return", "absent", "away_text", "most_arranged", "most_room", "shortage"]

_NAMED_TIMES = 3
_NAMED_FAULTS = 2


@dataclass(frozen=True, slots=True)
class Return:
    """When what a lease holds comes back: at the latest, and likely."""

    at: datetime
    likely: datetime
    taken: Taken


def shortage(
    capacity: Capacity,
    groups: Sequence[SlotGroup],
    datacenters: Sequence[str],
    returns: Iterable[Return],
    now: datetime,
) -> str:
    """Return why a gang does not fit in any of these datacenters now.

    ``returns`` is what comes back, the earliest first.
    """
    known = [name for name in datacenters if name in capacity.fitters]
    if not known:
        return "waits for hosts that take new work"
    for group in groups:
        at, room = most_room([capacity.fitters[name] for name in known], group)
        if room < group.count:
            where = f" in {known[at]}" if len(capacity.fitters) > 1 else ""
            lack = _Lack(capacity.fitters[known[at]], group, room, where)
            coming = lack.coming(known[at], returns, now)
            return "; ".join([lack.text(), *coming, *lack.blocked(), *lack.out_of_service()])
    for group in groups:
        must = _must([capacity.fitters[name] for name in known], group)
        if must:
            return f"waits for {must}"
    count = sum(group.count for group in groups)
    return f"waits for {counted(count, 'slot')} at once in one datacenter: not all are free"


def most_arranged(fitters: Sequence[Fitter], group: SlotGroup) -> tuple[int, str]:
    """Return how many slots a group's topology allows at most, and where they would be."""
    rooms = [fitter.rooms(Shape.of(group)) for fitter in fitters]
    if group.topology is Topology.PACK_HOST:
        return max(int(room.hosts.max(initial=0)) for room in rooms), "on one host"
    if group.topology is Topology.PACK_RACK:
        return max(int(room.racks.max(initial=0)) for room in rooms), "in one rack"
    if group.topology is Topology.SPREAD_HOST:
        return max(int(np.count_nonzero(room.hosts)) for room in rooms), "on hosts of their own"
    return group.count, ""


def _must(fitters: Sequence[Fitter], group: SlotGroup) -> str:
    most, where = most_arranged(fitters, group)
    if most >= group.count:
        return ""
    fit = "fits" if most == 1 else "fit"
    return f"{roles_text(group.role, group.count)} {where}: at most {most} {fit} so now"


def most_room(fitters: Sequence[Fitter], group: SlotGroup) -> tuple[int, int]:
    """Return where the most slots of a group fit at once, and how many.

    Where none fit anywhere, it is where the most GPUs of its models are, free or not.
    """
    shape = Shape.of(group)

    def rank(at: int) -> tuple[int, int]:
        fitter = fitters[at]
        return fitter.rooms(shape).total, fitter.free.count_gpus(shape.models)

    most = max(range(len(fitters)), key=rank)
    return most, rank(most)[0]


class _Lack:
    """What one group lacks in one datacenter, of which ``where`` tells the name or nothing."""

    def __init__(self, fitter: Fitter, group: SlotGroup, room: int, where: str) -> None:
        self._free = fitter.free
        self._group = group
        self._shape = Shape.of(group)
        self._room = room
        self._where = where

    def text(self) -> str:
        """Return what is missing: GPUs, or else room for whole slots."""
        group, shape = self._group, self._shape
        if group.gpus:
            per_host = (self._free.free_gpus(shape.models) // shape.gpu_milli).sum(axis=1)
            free, most = int(per_host.sum()), int(per_host.max(initial=0))
            if free < group.count * group.gpus:
                return self._missing_gpus(free)
            if most < group.gpus:
                gpus = gpus_text(shape.all_gpus_milli, shape.models)
                return f"waits for {gpus} on one host{self._where}: at most {most} free on one"
        return self._missing_slots()

    def _missing_gpus(self, free: int) -> str:
        shape = self._shape
        missing = (self._group.count * shape.gpus - free) * shape.gpu_milli
        number, gpus = gpus_text(missing, shape.models).split(" ", 1)
        return f"waits for {number} {'more ' if free else ''}{gpus}{self._where}"

    def _missing_slots(self) -> str:
        group = self._group
        if group.count > 1:
            slots = f"{roles_text(group.role, group.count)}, each with {wish_text(group)}"
            return f"waits for {slots}{self._where}: {self._room} fit now"
        if group.gpus:
            return f"waits for {wish_text(group)} on one host{self._where}"
        free = self._free
        cpus = max(0, int((free.cpus - free.kept_cpus()).max(initial=0)))
        memory = max(0, int((free.memory - free.kept_memory()).max(initial=0)))
        beside = " beside what free GPUs keep" if (free.kept_cpus() > 0).any() else ""
        if cpus < group.cpus_milli:
            most = f"{cpus_text(group.cpus_milli)} on one host{self._where}: at most "
            return f"waits for {most}{format_cpus(cpus)} are free{beside}"
        if memory < group.memory_bytes:
            most = f"{format_memory(group.memory_bytes)} of memory on one host{self._where}: "
            return f"waits for {most}at most {format_memory(memory)} are free{beside}"
        return f"waits for {wish_text(group)} on one host{self._where}"

    def coming(self, datacenter: str, returns: Iterable[Return], now: datetime) -> list[str]:
        """Return when GPUs come back: ``2 come back at 14:10, 2 at 14:32 UTC``."""
        if not self._group.gpus:
            return []
        allowed = self._free.allowed(self._shape.models)
        times: dict[str, int] = {}
        for each in returns:
            at = "any moment" if each.at <= now else f"at {clock(each.at, now)}"
            if len(times) == _NAMED_TIMES and at not in times:
                break
            milli = sum(
                seat.shape.gpu_milli
                for name, seat in each.taken
                for device in seat.devices
                if name == datacenter and (allowed is None or allowed[seat.host, device])
            )
            if milli:
                times[at] = times.get(at, 0) + milli
        if not times:
            return []
        verb = "comes" if next(iter(times.values())) <= WHOLE else "come"
        (at, milli), *rest = times.items()
        texts = [f"{format_cpus(milli)} {verb} back {at}"]
        texts += [f"{format_cpus(milli)} {at}" for at, milli in rest]
        return [", ".join(texts) + ("" if at == "any moment" and not rest else " UTC")]

    def blocked(self) -> list[str]:
        """Return how many hosts have the GPUs free but too little else."""
        if not self._group.gpus:
            return []
        free, shape = self._free, self._shape
        devices = (free.free_gpus(shape.models) // shape.gpu_milli).sum(axis=1) >= shape.gpus
        memory = devices & (free.memory < shape.memory_bytes)
        cpus = devices & ~memory & (free.cpus < shape.cpus_milli)
        counts = (("little memory", memory), ("few CPUs", cpus))
        numbers = ((what, int(np.count_nonzero(hosts))) for what, hosts in counts)
        return [
            f"{counted(number, 'host')} with free GPUs {_have(number)} too {what}"
            for what, number in numbers
            if number
        ]

    def out_of_service(self) -> list[str]:
        """Return which devices that would do are out of service, and why."""
        if not self._group.gpus:
            return []
        allowed = self._free.allowed(self._shape.models)
        faulty = [
            f"GPU {gpu.index} of host {host.name} is out of service: {gpu.fault}"
            for at, host in enumerate(self._free.hosts)
            for place, gpu in enumerate(host.gpus)
            if gpu.fault and (allowed is None or allowed[at, place])
        ]
        more = len(faulty) - _NAMED_FAULTS
        return faulty[:_NAMED_FAULTS] + ([f"so are {more} more"] if more > 0 else [])


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def away_text(hosts: Sequence[Host]) -> str:
    """Return which hosts are away: ``host gpu-1, which is down``."""
    if len(hosts) == 1:
        return f"host {hosts[0].name}, which is {hosts[0].state}"
    named = ", ".join(f"{host.name} ({host.state})" for host in hosts[:3])
    more = f", {len(hosts) - 3} more" if len(hosts) > 3 else ""
    return f"hosts that take nothing now: {named}{more}"


def absent(
    groups: Sequence[SlotGroup], names: Iterable[str], everywhere: Capacity, ready: Capacity
) -> list[Host]:
    """Return the hosts of these datacenters without which a gang could never run.

    Both views hold nothing: of all hosts, and of those that take slots.
    """
    names = list(names)
    if any(ready.fitters[name].could(groups) for name in names if name in ready.fitters):
        return []
    found = []
    for name in names:
        free = everywhere.fitters[name].free
        rooms = [free.room(Shape.of(group)) for group in groups]
        found += [
            host
            for at, host in enumerate(free.hosts)
            if host.state is not HostState.READY and any(room[at] for room in rooms)
        ]
    return sorted(found, key=lambda host: host.name)
