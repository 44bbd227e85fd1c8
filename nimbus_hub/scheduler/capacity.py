"""What is free everywhere: one view per datacenter, all ports and addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Self

from nimbus_hub.model.cluster import Rules
from nimbus_hub.model.host import Host
from nimbus_hub.model.network import most_slots
from nimbus_hub.model.slot import PORTS_PER_SLOT, Slot, SlotGroup
from nimbus_hub.scheduler.addresses import Networks
from nimbus_hub.scheduler.fit import Fitter, Seats
from nimbus_hub.scheduler.free import ENDLESS, Free, Seat
from nimbus_hub.scheduler.placement import PlacementFactory
from nimbus_hub.scheduler.ports import PortPool
from nimbus_hub.scheduler.shape import Shape

__all__ = ["Capacity", "Seated", "Taken"]


class Seated(NamedTuple):
    """Where a gang would be."""

    datacenter: str
    seats: Seats


Taken = tuple[tuple[str, Seat], ...]
"""What slots take: datacenter and seat of each whose host is in view."""


class Capacity:
    """What is free on all hosts that take slots."""

    def __init__(
        self,
        hosts: Iterable[Host],
        rules: Rules,
        mix: Mapping[Shape, float],
        placement: PlacementFactory,
    ) -> None:
        """Start with all of these hosts free, whatever their state."""
        self._mix = mix
        self._placement = placement
        by_name: dict[str, list[Host]] = {}
        for host in hosts:
            by_name.setdefault(host.datacenter, []).append(host)
        self.fitters = {
            name: self._fitter(Free(by_name[name], rules), mix) for name in sorted(by_name)
        }
        self._networks = Networks(
            (name, host.network) for name, own in by_name.items() for host in own
        )
        self.most_slots = {name: _most_slots(own) for name, own in by_name.items()}
        self._pools: dict[str, PortPool] = {}
        self._places: dict[str, tuple[str, int, dict[int, int]]] = {}
        for name, fitter in self.fitters.items():
            for at, host in enumerate(fitter.free.hosts):
                devices = {gpu.index: place for place, gpu in enumerate(host.gpus)}
                self._places[host.name] = (name, at, devices)
                self._pools.setdefault(host.address, PortPool())

    def close_faulty(self) -> None:
        """Give nothing of devices that are out of service."""
        for fitter in self.fitters.values():
            for at, host in enumerate(fitter.free.hosts):
                for place, gpu in enumerate(host.gpus):
                    if gpu.fault:
                        fitter.free.close(at, place)

    def _fitter(self, free: Free, mix: Mapping[Shape, float]) -> Fitter:
        return Fitter(free, self._placement(free, mix))

    def copy(self) -> Self:
        """Return an independent view in the same state; it shares ports and addresses."""
        other = self.__class__.__new__(self.__class__)
        other.__dict__.update(self.__dict__)
        other.fitters = {
            name: self._fitter(fitter.free.copy(), self._mix)
            for name, fitter in self.fitters.items()
        }
        return other

    def cautious(self) -> Self:
        """Return a copy in which all GPUs keep their reserve, free or not."""
        other = self.copy()
        for fitter in other.fitters.values():
            fitter.free.is_cautious = True
        return other

    def host(self, name: str) -> tuple[Free, int] | None:
        """Return the view and the place of a host, or None for one that takes nothing."""
        if name not in self._places:
            return None
        datacenter, at, _ = self._places[name]
        return self.fitters[datacenter].free, at

    # Holding

    def taken(self, slots: Iterable[Slot]) -> Taken:
        """Return what slots take here; those on hosts that are not in view take nothing."""
        found = []
        for slot in slots:
            if slot.host in self._places:
                datacenter, at, places = self._places[slot.host]
                devices = tuple(places[gpu] for gpu in slot.gpus if gpu in places)
                shape = Shape(slot.cpus_milli, slot.memory_bytes, len(slot.gpus), slot.gpu_milli)
                found.append((datacenter, Seat(at, devices, shape)))
        return tuple(found)

    def take(self, taken: Taken, sign: int = 1) -> None:
        """Hold what slots take, or with -1 give it back."""
        for datacenter, seat in taken:
            self.fitters[datacenter].free.hold(seat, sign)

    def use_ports(self, slots: Iterable[Slot]) -> None:
        """Note the ports or the address that slots hold, also where nothing more is taken."""
        for slot in slots:
            if slot.address in self._pools:
                self._pools[slot.address].take(slot.ports)
            self._networks.take(slot.address, self._places.get(slot.host, (None,))[0])

    # Placing

    def gang(
        self, groups: Sequence[SlotGroup], datacenters: Iterable[str], near: str | None = None
    ) -> Seated | None:
        """Return seats in the first of these datacenters that holds a gang, or None.

        They are as near to a host as they can be where that is in the datacenter.
        """
        home, place, _ = self._places.get(near or "", ("", None, {}))
        count = sum(group.count for group in groups)
        for name in datacenters:
            if name in self.fitters and count <= self.most_slots[name]:
                seats = self.fitters[name].gang(groups, place if name == home else None)
                if seats is not None:
                    return Seated(name, seats)
        return None

    def spread(self, found: Seated) -> tuple[int, int, int, str]:
        """Rank seats: slots without GPUs on hosts with some, hosts, racks, the name."""
        free = self.fitters[found.datacenter].free
        seats = [seat for own in found.seats for seat in own]
        strays = sum(
            seat.slots for seat in seats if not seat.shape.gpus and free.has_gpus[seat.host]
        )
        hosts = {seat.host for seat in seats}
        racks = {free.rack_of(host) for host in hosts}
        return strays, len(hosts), len(racks), found.datacenter

    def seated(self, found: Seated) -> Taken:
        """Return what seats take."""
        return tuple((found.datacenter, seat) for seats in found.seats for seat in seats)

    def slots(
        self, groups: Sequence[SlotGroup], found: Seated, lease_id: str
    ) -> tuple[Slot, ...] | None:
        """Return the slots of a gang, or None if ports or addresses ran out."""
        hosts = self.fitters[found.datacenter].free.hosts
        indexes: dict[str, int] = {}
        addresses: dict[str, Iterator[str]] = {}
        slots: list[Slot] = []
        for group, seats in zip(groups, found.seats, strict=True):
            for host, devices in (each for seat in seats for each in _single(seat)):
                index = indexes[group.role] = indexes.get(group.role, -1) + 1
                at = hosts[host]
                if at.network and at.network not in addresses:
                    part = self._networks[found.datacenter, at.network].pick(lease_id)
                    addresses[at.network] = part or iter(())
                # Another start of the search for each slot: a gang does not queue for ports.
                seed = f"{lease_id}.{group.role}.{index}"
                own = addresses.get(at.network)
                slots.append(self._slot(group, index, at, devices, own, seed))
        if all(slot.address and len(slot.ports) == PORTS_PER_SLOT for slot in slots):
            return tuple(slots)
        self._give_back(slots)
        return None

    def _give_back(self, slots: Iterable[Slot]) -> None:
        """Free the ports or the addresses that slots would have had."""
        for slot in slots:
            datacenter, at, _ = self._places[slot.host]
            network = self.fitters[datacenter].free.hosts[at].network
            if not network:
                self._pools[slot.address].give(slot.ports)
            elif slot.address:
                self._networks[datacenter, network].give(slot.address)

    def _slot(
        self,
        group: SlotGroup,
        index: int,
        host: Host,
        devices: tuple[int, ...],
        addresses: Iterator[str] | None,
        seed: str,
    ) -> Slot:
        if addresses is None:
            address, ports = host.address, self._ports(host, seed)
        else:
            # All of its ports are free; none at all where the gang's part has no more addresses.
            address = next(addresses, "")
            ports = tuple(range(host.first_port, host.last_port + 1)[:PORTS_PER_SLOT])
        return Slot(
            role=group.role,
            index=index,
            host=host.name,
            address=address,
            cpus_milli=group.cpus_milli,
            memory_bytes=group.memory_bytes,
            gpus=tuple(sorted(host.gpus[device].index for device in devices)),
            ports=ports,
            gpu_milli=group.gpu_milli if group.gpus else 1000,
        )

    def _ports(self, host: Host, seed: str) -> tuple[int, ...]:
        """Take ports for a slot; few: there are no more."""
        pool = self._pools[host.address]
        ports = pool.pick((host.first_port, host.last_port), seed)
        pool.take(ports)
        return ports


def _most_slots(hosts: Iterable[Host]) -> int:
    """Return how many slots a gang on these hosts may have at once: a part of a network's."""
    return max(most_slots(host.network) if host.network else ENDLESS for host in hosts)


def _single(seat: Seat) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield host and devices of each slot."""
    width = seat.shape.gpus
    for at in range(seat.slots):
        yield seat.host, seat.devices[at * width : (at + 1) * width]
