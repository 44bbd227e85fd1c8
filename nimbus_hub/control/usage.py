"""Usage: the GPU time each owner used, fading with time, for fair shares.

What has ended is added up once, when it ends; what is held is added each time it is asked
for. Owners' sums fade all alike, so that one moment says as of when they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from nimbus_hub.model.lease import Lease
from nimbus_hub.scheduler.usage import decayed, faded

__all__ = ["Usage"]


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
            self._fade(now)
            self._ended[lease.owner] += amount

    def at(self, now: datetime, live: Iterable[Lease]) -> dict[str, float]:
        """Return each owner's GPU-seconds as they count now, with those of what is held."""
        self._fade(now)
        usage = defaultdict(float, self._ended)
        for lease in live:
            if lease.state.is_holding:
                usage[lease.owner] += self._of(lease, now)
        return {owner: amount for owner, amount in usage.items() if amount}

    def _of(self, lease: Lease, now: datetime) -> float:
        gpus = sum(slot.all_gpus_milli for slot in lease.slots) / 1000
        if not gpus or lease.granted_at is None:
            return 0.0
        return decayed(gpus, lease.granted_at, lease.ended_at or now, now, self.half_life)

    def _fade(self, now: datetime) -> None:
        for owner, amount in self._ended.items():
            self._ended[owner] = faded(amount, self._as_of, now, self.half_life)
        self._as_of = now
