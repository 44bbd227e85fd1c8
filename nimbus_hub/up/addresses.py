"""Which ports the hub and its parts listen on."""

from __future__ import annotations

import secrets
import socket
from dataclasses import replace

from nimbus_hub.errors import Conflict, InvalidRequest
from nimbus_hub.up.state import Addresses, State

__all__ = ["choose_addresses", "free_port", "is_free"]

_INSIDE = "127.0.0.1"
_OURS = range(10_000, 20_000)
"""Below those that systems give to connections that go out: one of these could have a port while
its server is away, and sessions that go on know the hub by it. Jobs have those above."""


def choose_addresses(state: State, ip: str, port: int) -> Addresses:
    """Return where to listen: the public port as asked, the others as last time if free.

    Raises Conflict if the public port is taken.
    """
    if not 0 < port < 65536:
        raise InvalidRequest(f"the port must be from 1 to 65535, got {port}")
    if not is_free(ip, port):
        raise Conflict(
            f"port {port} on {ip} is in use by another program; "
            f"choose another one: nimbus-hub up --port {port + 1}  (or: make run PORT={port + 1})"
        )
    taken = {port}
    kept = state.addresses() or Addresses(ip, port, 0, 0, 0)
    chosen = replace(
        kept,
        ip=ip,
        port=port,
        hub_port=_port(kept.hub_port, taken),
        proxy_api_port=_port(kept.proxy_api_port, taken),
        service_port=_port(kept.service_port, taken),
    )
    state.keep_addresses(chosen)
    return chosen


def is_free(ip: str, port: int) -> bool:
    """Tell whether one may listen there now."""
    try:
        _listen(ip, port).close()
    except OSError:
        return False
    return True


def _port(wanted: int, taken: set[int]) -> int:
    """Return the wanted port, or any free one if it is 0, taken or in use."""
    if wanted and wanted not in taken and is_free(_INSIDE, wanted):
        taken.add(wanted)
        return wanted
    while (found := free_port()) in taken:
        continue
    taken.add(found)
    return found


def free_port() -> int:
    """Return a port that is free now, and likely to be when it is wanted again."""
    while not is_free(_INSIDE, port := _OURS.start + secrets.randbelow(len(_OURS))):
        continue
    return port


def _listen(ip: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As the servers do: connections of the last run that linger are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((ip, port))
        probe.listen(1)
    except BaseException:
        probe.close()
        raise
    return probe
