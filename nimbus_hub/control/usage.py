"""Usage: the GPU time each owner used, fading with time, for fair shares.

What has ended is added up once, when it ends; what is held is added each time it is asked
for. Sums are kept as of one moment, since all fade alike: what ends later weighs more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from nimbus_hub.model.lease import Lease
from nimbus_hub.scheduler.usage import decayed, faded

__all__ = ["Usage"]

_LEAST = 2.0**-100


class Usage:
    """Decayed GPU-seconds of each owner."""

    def __init__(self, half_life: timedelta, now: datetime) -> None:
        """Start with nothing used."""
        self.half_life = half_life
        self._as_of = now
        self._ended: defaultdict[str, float] = defaultdict(float)

    def begin(self, ended: Iterable[Lease], half_life: timedelta, now: datetime) -> None:
        """Forget all, and count these leases, which have ended."""
        self.half_life, self._as_of = half_life, now
        self._ended.clear()
        for lease in ended:
            self.add(lease, now)

    def add(self, lease: Lease, now: datetime) -> None:
        """Count a lease that has ended."""
        amount = self._of(lease, now)
        if amount:
            self._ended[lease.owner] += amount / self._weight(now)

    def at(self, now: datetime, live: Iterable[Lease]) -> dict[str, float]:
        """Return each owner's GPU-seconds as they count now, with those of what is held."""
        weight = self._weight(now)
        usage = defaultdict(float, {owner: sum_ * weight for owner, sum_ in self._ended.items()})
        for lease in live:
            if lease.state.is_holding:
                usage[lease.owner] += self._of(lease, now)
        return {owner: amount for owner, amount in usage.items() if amount}

    def _of(self, lease: Lease, now: datetime) -> float:
        gpus = sum(slot.all_gpus_milli for slot in lease.slots) / 1000
        if not gpus or lease.granted_at is None:
            return 0.0
        return decayed(gpus, lease.granted_at, lease.ended_at or now, now, self.half_life)

    def _weight(self, now: datetime) -> float:
        """Return what the sums count now; bring them up to now when that is next to nothing."""
        weight = faded(1.0, self._as_of, now, self.half_life)
        if weight > _LEAST:
            return weight
        for owner in self._ended:
            self._ended[owner] *= weight
        self._as_of = now
        return 1.0
