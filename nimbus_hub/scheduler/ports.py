"""Ports of one address: no two slots there have one in common.

Where the search starts depends on the lease, not on what is free: a port that was just
given back is hardly ever the next one taken. Late packets and sockets in TIME_WAIT of the
last holder then meet nobody, and no memory of past ports is needed.
"""

from __future__ import annotations

from collections import Counter
from zlib import crc32

from nimbus_hub.model.slot import PORTS_PER_SLOT

__all__ = ["PortPool", "PortRange"]

PortRange = tuple[int, int]
"""The first and the last port that a host may give."""


class PortPool:
    """The ports in use at one address, and how many are left of each range there."""

    __slots__ = ("_left", "_used")

    def __init__(self) -> None:
        """Start with no port used and no range counted."""
        self._used: Counter[int] = Counter()
        self._left: dict[PortRange, int] = {}

    def add_range(self, ports: PortRange) -> None:
        """Count what is left of a range from now on."""
        first, last = ports
        self._left[ports] = last - first + 1 - sum(first <= port <= last for port in self._used)

    def slots_left(self, ports: PortRange) -> int:
        """Return for how many slots a range still has ports."""
        return self._left[ports] // PORTS_PER_SLOT

    def pick(self, ports: PortRange, seed: str) -> tuple[int, ...]:
        """Return free ports for one slot, searched from a place that the seed gives."""
        first, last = ports
        size = last - first + 1
        start = crc32(seed.encode()) % size
        found: list[int] = []
        for step in range(size):
            port = first + (start + step) % size
            if port not in self._used:
                found.append(port)
                if len(found) == PORTS_PER_SLOT:
                    break
        return tuple(found)

    def take(self, ports: tuple[int, ...]) -> None:
        """Record ports as used; one that is used twice must be given back twice."""
        for port in ports:
            if port not in self._used:
                self._change(port, -1)
            self._used[port] += 1

    def give(self, ports: tuple[int, ...]) -> None:
        """Record ports as given back."""
        for port in ports:
            self._used[port] -= 1
            if not self._used[port]:
                del self._used[port]
                self._change(port, 1)

    def copy(self) -> PortPool:
        """Return an independent pool in the same state."""
        other = PortPool()
        other._used = self._used.copy()
        other._left = self._left.copy()
        return other

    def _change(self, port: int, by: int) -> None:
        for first, last in self._left:
            if first <= port <= last:
                self._left[first, last] += by
