"""Docker engines: each is one host of the cluster; a Swarm's nodes are engines, too."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.network import read_network

__all__ = ["BRIDGE", "HOST_NETWORK", "Engine", "Swarm"]

BRIDGE = "bridge"
"""A network of the engine alone: its containers reach each other, those of others do not."""
HOST_NETWORK = "host"
"""The host's own network, at full speed; slots share its address and its ports."""

_ENDPOINT = re.compile(r"unix:///\S+|(tcp|ssh)://(?:[^\s@/]+@)?([^\s@/:]+|\[[0-9a-f:]+\])(:\d+)?/?")
_NAME = re.compile(r"[A-Za-z0-9](?:[-_]*[A-Za-z0-9]){0,39}")


@dataclass(frozen=True, slots=True)
class Engine:
    """One Docker engine: the host named ``host``.

    ``endpoint`` is like ``unix:///var/run/docker.sock``, ``tcp://10.0.0.5:2376`` or
    ``ssh://user@gpu-1``; ``tls`` the directory with ca.pem, cert.pem and key.pem for tcp.
    ``address`` is the IPv4 address that other hosts reach it at. ``network`` is "bridge",
    "host" or what the overlays of a Swarm are named after; ``subnet`` the addresses of which
    each gang's network gets some, on a bridge some that are free if it is empty.
    """

    host: str
    endpoint: str
    tls: str = ""
    address: str = "127.0.0.1"
    datacenter: str = "default"
    rack: str = "default"
    labels: dict[str, str] = field(default_factory=dict)
    network: str = BRIDGE
    subnet: str = ""

    def __post_init__(self) -> None:
        """Refuse an engine that could not be reached, or not safely."""
        _check_endpoint(self.endpoint, self.tls)
        _check_network(self.network, self.subnet)
        if self.network not in (BRIDGE, HOST_NETWORK) and not self.subnet:
            raise InvalidRequest(
                f"subnet must be given with the overlay {self.network}: the addresses that all "
                "hosts of its Swarm share, like 10.64.0.0/16"
            )


@dataclass(frozen=True, slots=True)
class Swarm:
    """A Docker Swarm: its nodes are the engines of a datacenter.

    ``engine`` is the endpoint of each node, in which ``{address}`` and ``{hostname}`` are the
    node's. ``tls`` is for them and for the manager.
    """

    datacenter: str
    manager: str
    tls: str = ""
    engine: str = "tcp://{address}:2376"
    network: str = "nimbus"
    subnet: str = "10.64.0.0/16"

    def __post_init__(self) -> None:
        """Refuse a Swarm that could not be reached, or not safely."""
        example = self.endpoint("192.0.2.1", "node")
        _check_endpoint(self.manager, self.tls_for(self.manager))
        _check_endpoint(example, self.tls_for(example), self.engine)
        if self.network == BRIDGE:
            raise InvalidRequest(
                "a swarm's network must be host or a name for its overlays, got bridge"
            )
        _check_network(self.network, "" if self.network == HOST_NETWORK else self.subnet)

    def endpoint(self, address: str, hostname: str) -> str:
        """Return the endpoint of a node."""
        return self.engine.replace("{address}", address).replace("{hostname}", hostname)

    def tls_for(self, endpoint: str) -> str:
        """Return the directory of the certificates for an endpoint, empty if it needs none."""
        return self.tls if endpoint.startswith("tcp://") else ""


def _check_endpoint(endpoint: str, tls: str, given: str = "") -> None:
    """Refuse an endpoint, which errors quote as it was ``given``."""
    given = given or endpoint
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None:
        raise InvalidRequest(
            "an endpoint must be like unix:///var/run/docker.sock, tcp://10.0.0.5:2376 or "
            f"ssh://user@gpu-1, got {given!r}"
        )
    is_tcp = match[1] == "tcp"
    if tls and not is_tcp:
        raise InvalidRequest(f"tls must be left out: only tcp endpoints use it, got {given!r}")
    if is_tcp and not tls and not _is_loopback(match[2]):
        raise InvalidRequest(
            f"tls must name the directory with ca.pem, cert.pem and key.pem: who reaches "
            f"{given} without it is root there"
        )


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost"


def _check_network(network: str, subnet: str) -> None:
    if not _NAME.fullmatch(network):
        raise InvalidRequest(
            f"network must be bridge, host or a name for overlays, got {network!r}"
        )
    if network == HOST_NETWORK and subnet:
        raise InvalidRequest(f"subnet must be left out with the host's network, got {subnet!r}")
    if subnet:
        read_network(subnet)
