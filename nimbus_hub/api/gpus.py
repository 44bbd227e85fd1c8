"""GPUs by model and datacenter: how many are free, shared, away, and who holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nimbus_hub.api import choices
from nimbus_hub.control.capacity import HostUse
from nimbus_hub.model.host import HostState

__all__ = ["gpu_pools"]

_WHOLE = 1000


@dataclass(slots=True)
class _Pool:
    total: int = 0
    free: int = 0
    shared: int = 0
    shared_free_milli: int = 0
    away: int = 0
    holders: dict[str | None, int] = field(default_factory=dict)

    def add(self, is_away: bool, held: dict[str | None, int]) -> None:
        """Count a device and what is held of it, in thousandths by owner."""
        self.total += 1
        for owner, milli in held.items():
            self.holders[owner] = self.holders.get(owner, 0) + milli
        left = _WHOLE - sum(held.values())
        if is_away:
            self.away += 1
        elif not held:
            self.free += 1
        elif left > 0:
            self.shared += 1
            self.shared_free_milli += left


def gpu_pools(
    uses: Iterable[HostUse], owners: Mapping[str, str], visible: str | None
) -> list[choices.GpuPool]:
    """Return the devices by model and datacenter; ``owners`` are those of the live leases.

    ``visible`` is the one owner who is named, None names all.
    """
    pools: dict[tuple[str, str], _Pool] = {}
    for use in uses:
        for gpu in use.host.gpus:
            held: dict[str | None, int] = {}
            for lease_id, milli in use.gpu_shares.get(gpu.index, {}).items():
                owner = owners[lease_id] if visible in (None, owners[lease_id]) else None
                held[owner] = held.get(owner, 0) + milli
            pool = pools.setdefault((gpu.model, use.host.datacenter), _Pool())
            pool.add(use.host.state is not HostState.READY or bool(gpu.fault), held)
    return [_shown(model, where, pool) for (model, where), pool in sorted(pools.items())]


def _shown(model: str, datacenter: str, pool: _Pool) -> choices.GpuPool:
    named = sorted(pool.holders.items(), key=lambda each: (each[0] is None, -each[1], each[0]))
    return choices.GpuPool(
        model=model,
        datacenter=datacenter,
        total=pool.total,
        free=pool.free,
        shared=pool.shared,
        shared_free_milli=pool.shared_free_milli,
        away=pool.away,
        holders=[choices.GpuHolder(owner=owner, gpus_milli=milli) for owner, milli in named],
    )
