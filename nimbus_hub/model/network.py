"""Networks of which each slot has an IPv4 address of its own, and each gang a part of its own.

A network is cut into parts of one size. Half of a part is the engine's: its gateway, and on an
overlay an address for each host that joins. The other half is for slots, as many of them as
hosts could join. Docker lets nobody from one part into another.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

from nimbus_hub.errors import InvalidRequest

__all__ = ["engine_half", "most_slots", "part_of", "part_starts", "read_network", "slot_addresses"]

_LONGEST_PREFIX = 28
_FEWEST_BITS = 4
_TAKEN = 2
"""The network's own address and the gateway; and the broadcast, and one to keep halves even."""


def read_network(text: str) -> IPv4Network:
    """Read ``10.64.0.0/16``; raise InvalidRequest for anything else, and for one too small."""
    try:
        found = IPv4Network(text)
    except ValueError:
        raise InvalidRequest(
            f"network must be an IPv4 network like 10.64.0.0/16, got {text!r}"
        ) from None
    if found.prefixlen > _LONGEST_PREFIX:
        raise InvalidRequest(
            f"network must have at least 16 addresses, like 10.64.0.0/{_LONGEST_PREFIX}, "
            f"got {text!r}"
        )
    return found


@lru_cache(maxsize=65536)
def part_starts(network: str) -> range:
    """Return the first addresses of a network's parts, as numbers; steps are their size.

    Of 2^n addresses a part has about 2^(n/2 - 1), and never fewer than 16: a /16 has 512 parts
    of 128 addresses.
    """
    whole = read_network(network)
    bits = max(_FEWEST_BITS, (33 - whole.prefixlen) // 2 - 1)
    first = int(whole.network_address)
    return range(first, first + whole.num_addresses, 2**bits)


def part_of(network: str, address: str) -> str:
    """Return the part of a network that has an address; raise InvalidRequest if none has."""
    number, starts = int(IPv4Address(address)), part_starts(network)
    if number not in range(starts.start, starts.stop):
        raise InvalidRequest(
            f"the address {address} is none of the network {network}: the host had another one "
            "when it was given"
        )
    prefix = 33 - starts.step.bit_length()
    return f"{IPv4Address(number - number % starts.step)}/{prefix}"


def engine_half(part: str) -> str:
    """Return the addresses of a part that are the engine's own."""
    return str(next(IPv4Network(part).subnets()))


def most_slots(network: str) -> int:
    """Return how many slots a gang may have on a network."""
    return part_starts(network).step // 2 - _TAKEN


def slot_addresses(network: str, start: int) -> range:
    """Return the addresses that slots may have of the part that starts there, as numbers."""
    first = start + part_starts(network).step // 2
    return range(first, first + most_slots(network))
