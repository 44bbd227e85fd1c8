"""Ports of one address: no two slots there have one in common.

Where the search starts depends on the lease, not on what is free: a port that was just
given back is hardly ever the next one taken. Late packets and sockets in TIME_WAIT of the
last holder then meet nobody, and no memory of past ports is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from nimbus_hub.model.slot import PORTS_PER_SLOT

__all__ = ["PortPool", "PortRange"]

PortRange = tuple[int, int]
"""The first and the last port that a host may give."""


class PortPool:
    """The ports in use at one address."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        """Start with no port used."""
        self._used: set[int] = set()

    def pick(self, ports: PortRange, seed: str) -> tuple[int, ...]:
        """Return free ports for one slot, searched from a place that the seed gives.

        Returns fewer than a slot needs when the range has no more.
        """
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

    def take(self, ports: Iterable[int]) -> None:
        """Record ports as used."""
        self._used.update(ports)

    def give(self, ports: Iterable[int]) -> None:
        """Record ports as given back."""
        self._used.difference_update(ports)
