"""Mix: which shapes of slots are asked for, and how often of late."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from nimbus_hub.model.lease import Lease
from nimbus_hub.scheduler.shape import Shape

__all__ = ["REMEMBERED", "Mix"]

REMEMBERED = 1000
"""How many requests count: each weighs this much less, one part in so many, than the next."""

_AT_ONCE = 100
_GROWTH = 1 + 1 / REMEMBERED
_LARGEST = 1e100
_LEAST = 1e-6


class Mix:
    """Counts of shapes, the newest request weighing most."""

    def __init__(self) -> None:
        """Start with nothing asked for."""
        self.begin(())

    def begin(self, requests: Iterable[Lease]) -> None:
        """Forget all, and count these requests, oldest first."""
        # The newest weighs more instead of all others weighing less: one step a request.
        self._weight = 1.0
        self._counts: defaultdict[Shape, float] = defaultdict(float)
        self._number = self._next = 0
        self._told: Mapping[Shape, float] = {}
        for lease in requests:
            self.add(lease)

    def add(self, lease: Lease) -> None:
        """Count a request that has come."""
        self.count({Shape.of(group): group.count for group in lease.groups})

    def count(self, request: Mapping[Shape, int]) -> None:
        """Count a request for so many slots of each shape."""
        self._number += 1
        self._weight *= _GROWTH
        for shape, number in request.items():
            self._counts[shape] += number * self._weight
        if self._weight > _LARGEST:
            self._scale_down()

    def counts(self) -> Mapping[Shape, float]:
        """Return how often each shape was asked for, as of late.

        It is the same object until a tenth more requests have come, or a hundred: what is
        computed from it, like prices, need not be computed for each of them.
        """
        if self._number >= self._next:
            self._next = self._number + max(1, min(_AT_ONCE, self._number // 10))
            self._told = {shape: count / self._weight for shape, count in self._counts.items()}
        return self._told

    def _scale_down(self) -> None:
        kept = {shape: count / self._weight for shape, count in self._counts.items()}
        self._weight = 1.0
        self._counts.clear()
        self._counts.update({shape: count for shape, count in kept.items() if count > _LEAST})
