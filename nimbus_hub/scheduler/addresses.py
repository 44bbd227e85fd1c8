"""Parts of networks: no two leases share one, so that no two slots have one address.

As with ports (ports.py) the lease says where the search starts, so that a part that was just
given back is hardly ever the next one taken: its last container may still be going.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from zlib import crc32

from nimbus_hub.model.network import part_starts, slot_addresses

__all__ = ["Networks", "PartPool"]


class PartPool:
    """The parts in use of one network."""

    __slots__ = ("_network", "_starts", "_used")

    def __init__(self, network: str) -> None:
        """Start with no part used."""
        self._network = network
        self._starts = part_starts(network)
        self._used: set[int] = set()

    def pick(self, seed: str) -> Iterator[str] | None:
        """Take a free part, searched from a place that the seed gives; None for none.

        Returns the addresses of its slots, in order.
        """
        size = len(self._starts)
        if len(self._used) == size:
            return None
        at = crc32(seed.encode()) % size
        while self._starts[at] in self._used:
            at = (at + 1) % size
        self._used.add(self._starts[at])
        return (str(IPv4Address(each)) for each in slot_addresses(self._network, self._starts[at]))

    def take(self, address: str) -> None:
        """Record the part of an address as used; one that is not in the network changes nothing."""
        start = self._start(address)
        if start in self._starts:
            self._used.add(start)

    def give(self, address: str) -> None:
        """Record the part of an address as given back."""
        self._used.discard(self._start(address))

    def _start(self, address: str) -> int:
        number = int(IPv4Address(address))
        return number - number % self._starts.step


class Networks:
    """The pools of all networks; those of two datacenters may have the same addresses."""

    def __init__(self, networks: Iterable[tuple[str, str]]) -> None:
        """Start with no part used; ``networks`` are pairs of datacenter and network."""
        self._pools = {key: PartPool(key[1]) for key in sorted({*networks}) if key[1]}
        # The networks that an address is in are found by masks: there may be one for each host.
        self._by_mask: dict[int, dict[int, dict[str, PartPool]]] = {}
        for (datacenter, name), pool in self._pools.items():
            whole = IPv4Network(name)
            by_start = self._by_mask.setdefault(int(whole.netmask), {})
            by_start.setdefault(int(whole.network_address), {})[datacenter] = pool

    def __getitem__(self, key: tuple[str, str]) -> PartPool:
        """Return the pool of a datacenter's network."""
        return self._pools[key]

    def take(self, address: str, datacenter: str | None) -> None:
        """Record an address's part as used in the networks of a datacenter, or with None of all."""
        if not self._by_mask:
            return
        number = int(IPv4Address(address))
        for mask, by_start in self._by_mask.items():
            pools = by_start.get(number & mask, {})
            for name in pools if datacenter is None else {datacenter} & pools.keys():
                pools[name].take(address)
