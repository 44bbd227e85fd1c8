"""Networks of which each slot has an IPv4 address of its own.

The first addresses are the engine's: for its gateway, for containers that are no slots, on an
overlay for each host. The last one is for broadcasts. All between are for slots.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network

from nimbus_hub.errors import InvalidRequest

__all__ = ["engine_part", "read_network", "slot_addresses"]

_LONGEST_PREFIX = 28
_SHARE = 16
_MOST = 256


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


def engine_part(network: str) -> str:
    """Return the part of a network that is the engine's own: a sixteenth, at most a /24."""
    whole = read_network(network)
    size = min(_MOST, max(4, whole.num_addresses // _SHARE))
    return f"{whole.network_address}/{33 - size.bit_length()}"


@lru_cache(maxsize=65536)
def slot_addresses(network: str) -> range:
    """Return the addresses of a network that slots may have, as numbers."""
    whole, own = read_network(network), IPv4Network(engine_part(network))
    return range(int(own.broadcast_address) + 1, int(whole.broadcast_address))
