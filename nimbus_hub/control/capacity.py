"""What of each host is free, out of the live leases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.lease import Lease

__all__ = ["HostUse", "gpu_counts", "host_uses"]


@dataclass(frozen=True, slots=True)
class HostUse:
    """A host, what of it is free, and the lease that holds each GPU (by index)."""

    host: Host
    cpus_free_milli: int
    memory_free_bytes: int
    gpu_holders: dict[int, str]

    def free_gpus(self) -> list[Gpu]:
        """Return the devices nobody holds."""
        return [gpu for gpu in self.host.gpus if gpu.index not in self.gpu_holders]


def host_uses(hosts: Sequence[Host], leases: Iterable[Lease]) -> tuple[HostUse, ...]:
    """Return the use of every host, in their order."""
    held = [(slot, lease.id) for lease in leases if lease.state.is_holding for slot in lease.slots]
    return tuple(
        HostUse(
            host,
            host.cpus_milli - sum(s.cpus_milli for s, _ in held if s.host == host.name),
            host.memory_bytes - sum(s.memory_bytes for s, _ in held if s.host == host.name),
            {gpu: lease for s, lease in held if s.host == host.name for gpu in s.gpus},
        )
        for host in hosts
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
