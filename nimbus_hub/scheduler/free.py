"""What is free: a mutable view of the hosts that take slots, cheap to copy and to undo.

``take`` and ``give`` are exact inverses, in any order, also for slots that are more than a
host has (a host may have shrunk) or that lie on hosts which are not in the view.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from nimbus_hub.model.host import Host
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.scheduler.ports import PortPool, PortRange

__all__ = ["Free", "FreeHost", "is_model"]


@lru_cache(maxsize=4096)
def is_model(asked: str, model: str) -> bool:
    """Tell whether a GPU of ``model`` is what was asked for.

    ``A100`` and ``a100-sxm4`` both mean ``NVIDIA A100-SXM4-40GB``: whole words, any case.
    """
    words = f"-{model}-".casefold().replace(" ", "-")
    return f"-{asked}-".casefold().replace(" ", "-") in words


class FreeHost:
    """What is free on one host."""

    __slots__ = ("_holders", "cpus_milli", "gpus", "host", "memory_bytes", "models", "ports")

    def __init__(self, host: Host, ports: PortPool) -> None:
        """Start with the whole host free; ``ports`` is the pool of its address."""
        self.host = host
        self.cpus_milli = host.cpus_milli
        self.memory_bytes = host.memory_bytes
        self.gpus = len(host.gpus)
        self.models: dict[str, int] = {}
        self.ports = ports
        self._holders = {gpu.index: 0 for gpu in host.gpus}
        for gpu in host.gpus:
            self.models[gpu.model] = self.models.get(gpu.model, 0) + 1

    @property
    def port_range(self) -> PortRange:
        """Return the ports this host may give."""
        return self.host.first_port, self.host.last_port

    def gpus_of(self, model: str | None) -> int:
        """Return how many devices of a model (None: any) are free."""
        if model is None:
            return self.gpus
        return sum(count for name, count in self.models.items() if is_model(model, name))

    def gpus_in_all(self, model: str | None) -> int:
        """Return how many devices of a model (None: any) the host has, free or not."""
        return sum(model is None or is_model(model, gpu.model) for gpu in self.host.gpus)

    def room(self, group: SlotGroup) -> int:
        """Return how many slots of a group fit now."""
        if self.gpus < group.gpus:
            return 0
        count = min(
            self.cpus_milli // group.cpus_milli,
            self.memory_bytes // group.memory_bytes,
            self.ports.slots_left(self.port_range),
        )
        if group.gpus and count > 0:
            count = min(count, self.gpus_of(group.gpu_model) // group.gpus)
        return max(count, 0)

    def slot(self, group: SlotGroup, index: int, seed: str) -> Slot:
        """Return a slot of a group that fits here: lowest devices first, ports by the seed."""
        devices = sorted(
            gpu.index
            for gpu in (self.host.gpus if group.gpus else ())
            if not self._holders[gpu.index]
            and (group.gpu_model is None or is_model(group.gpu_model, gpu.model))
        )
        return Slot(
            role=group.role,
            index=index,
            host=self.host.name,
            address=self.host.address,
            cpus_milli=group.cpus_milli,
            memory_bytes=group.memory_bytes,
            gpus=tuple(devices[: group.gpus]),
            ports=self.ports.pick(self.port_range, seed),
        )

    def change(self, slot: Slot, sign: int) -> None:
        """Add (1) or take away (-1) what a slot holds, but for its ports."""
        self.cpus_milli += sign * slot.cpus_milli
        self.memory_bytes += sign * slot.memory_bytes
        if not slot.gpus:
            return
        for gpu in self.host.gpus:
            if gpu.index in slot.gpus:
                was_free = not self._holders[gpu.index]
                self._holders[gpu.index] -= sign
                by = (not self._holders[gpu.index]) - was_free
                self.gpus += by
                self.models[gpu.model] += by

    def copy(self, ports: PortPool) -> FreeHost:
        """Return an independent view in the same state, with its address's pool."""
        other = FreeHost.__new__(FreeHost)
        other.host = self.host
        other.cpus_milli = self.cpus_milli
        other.memory_bytes = self.memory_bytes
        other.gpus = self.gpus
        other.models = self.models.copy()
        other.ports = ports
        other._holders = self._holders.copy()
        return other


class Free:
    """What is free on all hosts that take slots, in the order of their names."""

    __slots__ = ("_pools", "datacenters", "hosts")

    def __init__(self, hosts: Sequence[Host]) -> None:
        """Start with all of these hosts free, whatever their state."""
        self._pools: dict[str, PortPool] = {}
        self.hosts: dict[str, FreeHost] = {}
        for host in sorted(hosts, key=lambda host: host.name):
            pool = self._pools.setdefault(host.address, PortPool())
            free = self.hosts[host.name] = FreeHost(host, pool)
            pool.add_range(free.port_range)
        self.datacenters = _by_datacenter(self.hosts.values())

    def take(self, slots: Iterable[Slot]) -> None:
        """Hold slots."""
        for slot in slots:
            if slot.host in self.hosts:
                self.hosts[slot.host].change(slot, -1)
            # Ports belong to the address: also a host that takes nothing more uses them.
            if slot.address in self._pools:
                self._pools[slot.address].take(slot.ports)

    def give(self, slots: Iterable[Slot]) -> None:
        """Give slots back."""
        for slot in slots:
            if slot.host in self.hosts:
                self.hosts[slot.host].change(slot, 1)
            if slot.address in self._pools:
                self._pools[slot.address].give(slot.ports)

    def copy(self) -> Free:
        """Return an independent view in the same state."""
        other = Free(())
        other._pools = {address: pool.copy() for address, pool in self._pools.items()}
        other.hosts = {
            name: free.copy(other._pools[free.host.address]) for name, free in self.hosts.items()
        }
        other.datacenters = _by_datacenter(other.hosts.values())
        return other


def _by_datacenter(hosts: Iterable[FreeHost]) -> dict[str, list[FreeHost]]:
    """Return hosts by datacenter, both in the order of their names."""
    found: dict[str, list[FreeHost]] = {}
    for free in hosts:
        found.setdefault(free.host.datacenter, []).append(free)
    return dict(sorted(found.items()))
