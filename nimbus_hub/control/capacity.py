"""What of each host is free, out of the live leases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.slot import Slot

__all__ = ["HostUse", "gpu_counts", "host_uses"]


_WHOLE = 1000


@dataclass(frozen=True, slots=True)
class HostUse:
    """A host, what of it is free, and who holds each GPU (by index): leases and shares."""

    host: Host
    cpus_free_milli: int
    memory_free_bytes: int
    gpu_shares: dict[int, dict[str, int]]

    def free_gpus(self) -> list[Gpu]:
        """Return the devices in service that nobody holds."""
        return [gpu for gpu in self.host.gpus if gpu.index not in self.gpu_shares and not gpu.fault]

    def gpu_leases(self, index: int) -> list[str]:
        """Return the leases that hold a device or a share of it."""
        return list(self.gpu_shares.get(index, ()))

    def gpu_free_milli(self, gpu: Gpu) -> int:
        """Return what of a device is free, in thousandths."""
        held = sum(self.gpu_shares.get(gpu.index, {}).values())
        return 0 if gpu.fault else max(0, _WHOLE - held)


def host_uses(hosts: Sequence[Host], leases: Iterable[Lease]) -> tuple[HostUse, ...]:
    """Return the use of every host, in their order."""
    held: dict[str, list[tuple[Slot, str]]] = {}
    for lease in leases:
        for slot in lease.slots if lease.state.is_holding else ():
            held.setdefault(slot.host, []).append((slot, lease.id))
    return tuple(_use(host, held.get(host.name, [])) for host in hosts)


def _use(host: Host, held: Sequence[tuple[Slot, str]]) -> HostUse:
    shares: dict[int, dict[str, int]] = {}
    for slot, lease_id in held:
        for index in slot.gpus:
            device = shares.setdefault(index, {})
            device[lease_id] = device.get(lease_id, 0) + slot.gpu_milli
    return HostUse(
        host,
        host.cpus_milli - sum(slot.cpus_milli for slot, _ in held),
        host.memory_bytes - sum(slot.memory_bytes for slot, _ in held),
        shares,
    )


def gpu_counts(uses: Sequence[HostUse]) -> dict[str, tuple[int, int]]:
    """Return how many devices of each model there are on hosts that are up, and are free."""
    counts: dict[str, tuple[int, int]] = {}
    for use in uses:
        if use.host.state is HostState.DOWN:
            continue
        free = use.free_gpus() if use.host.state is HostState.READY else []
        for gpu in use.host.gpus:
            total, available = counts.get(gpu.model, (0, 0))
            counts[gpu.model] = (total + 1, available + (gpu in free))
    return dict(sorted(counts.items()))
