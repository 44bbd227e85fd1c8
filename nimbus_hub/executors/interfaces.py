"""Network interfaces of this machine."""

from __future__ import annotations

import ipaddress

import psutil

__all__ = ["interface_of"]


def interface_of(address: str) -> str | None:
    """Return the name of the interface that has an address, or one of its network's loopback.

    None for an address that this machine does not have.
    """
    found = psutil.net_if_addrs()
    for name, addresses in found.items():
        if any(each.address == address for each in addresses):
            return name
    # The whole of 127.0.0.0/8 is the loopback interface's, whatever it is called.
    return interface_of("127.0.0.1") if _is_other_loopback(address) else None


def _is_other_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback and address != "127.0.0.1"
    except ValueError:
        return False
