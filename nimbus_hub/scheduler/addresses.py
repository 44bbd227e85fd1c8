"""Addresses of networks: no two slots of a network have the same.

As with ports (ports.py) the lease says where the search starts, so that an address that was
just given back is hardly ever the next one taken: its last container may still be going.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from zlib import crc32

from nimbus_hub.model.network import slot_addresses

__all__ = ["AddressPool", "Networks"]


class AddressPool:
    """The addresses in use of one network."""

    __slots__ = ("_all", "_used")

    def __init__(self, network: str) -> None:
        """Start with no address used."""
        self._all = slot_addresses(network)
        self._used: set[int] = set()

    def pick(self, seed: str) -> str:
        """Return a free address, searched from a place that the seed gives; empty for none."""
        size = len(self._all)
        if len(self._used) == size:
            return ""
        at = crc32(seed.encode()) % size
        while self._all[at] in self._used:
            at = (at + 1) % size
        return str(IPv4Address(self._all[at]))

    def take(self, address: str) -> None:
        """Record an address as used; one that is not for slots changes nothing."""
        number = int(IPv4Address(address))
        if number in self._all:
            self._used.add(number)

    def give(self, address: str) -> None:
        """Record an address as given back."""
        self._used.discard(int(IPv4Address(address)))


class Networks:
    """The pools of all networks."""

    def __init__(self, networks: Iterable[str]) -> None:
        """Start with no address used."""
        self._pools = {name: AddressPool(name) for name in sorted({*networks} - {""})}
        # The networks that an address is in are found by masks: there may be one for each host.
        self._by_mask: dict[int, dict[int, AddressPool]] = {}
        for name, pool in self._pools.items():
            whole = IPv4Network(name)
            by_start = self._by_mask.setdefault(int(whole.netmask), {})
            by_start[int(whole.network_address)] = pool

    def __getitem__(self, network: str) -> AddressPool:
        """Return the pool of a network."""
        return self._pools[network]

    def take(self, address: str) -> None:
        """Record an address as used in every network that has it."""
        if not self._by_mask:
            return
        number = int(IPv4Address(address))
        for mask, by_start in self._by_mask.items():
            pool = by_start.get(number & mask)
            if pool is not None:
                pool.take(address)
