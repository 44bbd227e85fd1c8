"""The network of an engine's slots: found, or made once.

A bridge is the engine's alone. An overlay is made on a manager of the Swarm and attachable, so
that plain containers join it. Containers that are no slots get their addresses from the
engine's part (`model.network`), so that none is ever one of a slot's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any

import docker
from docker.types import IPAMConfig, IPAMPool

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.model.engine import BRIDGE, HOST_NETWORK, Engine
from nimbus_hub.model.network import engine_part

__all__ = ["OURS", "ensure_network", "ensure_overlay", "free_subnet", "network_name"]

OURS = "nimbus"
"""The bridge's name on every engine."""

_LABELS = {"nimbus.network": "slots"}


def network_name(network: str) -> str:
    """Return what an engine calls the network of its slots."""
    return OURS if network == BRIDGE else network


def ensure_network(client: EngineClient) -> str:
    """Have an engine's network be there; return its addresses, empty for the host's own.

    Raises InvalidRequest for one that cannot be used, with what to do. Blocks.
    """
    engine = client.engine
    if engine.network == HOST_NETWORK:
        return ""
    if engine.network == BRIDGE:
        return client.use(partial(_bridge, engine=engine))
    return client.use(partial(_overlay_here, engine=engine))


def ensure_overlay(client: EngineClient, name: str, subnet: str) -> str:
    """Have an attachable overlay be there, on a manager; return its addresses. Blocks."""
    return client.use(partial(_overlay, name=name, subnet=subnet))


def free_subnet(taken: Iterable[str], address: str) -> str:
    """Return a network that overlaps none that an engine has, and has not its own address."""
    used = [ip_network(each) for each in taken]
    others = [each for each in used if isinstance(each, IPv4Network)]
    own = IPv4Network(IPv4Address(address))
    for number in range(64, 128):
        subnet = IPv4Network(f"10.{number}.0.0/16")
        if not any(subnet.overlaps(each) for each in (*others, own)):
            return str(subnet)
    raise InvalidRequest("no network from 10.64.0.0/16 to 10.127.0.0/16 is free: name a subnet")


def _bridge(client: docker.APIClient, engine: Engine) -> str:
    found = client.networks()
    for each in found:
        if each["Name"] == OURS:
            return _checked(each, "bridge", engine.subnet, f"host {engine.host}")
    taken = [subnet for each in found for subnet in _subnets(each)]
    subnet = engine.subnet or free_subnet(taken, engine.address)
    client.create_network(OURS, "bridge", ipam=_ipam(subnet), labels=_LABELS, check_duplicate=True)
    return subnet


def _overlay_here(client: docker.APIClient, engine: Engine) -> str:
    """Return the addresses of an overlay on one of its hosts; only managers see all of them."""
    if client.info()["Swarm"]["ControlAvailable"]:
        return _overlay(client, engine.network, engine.subnet)
    if not engine.subnet:
        raise InvalidRequest(
            f"the addresses of the overlay {engine.network} are not known on host {engine.host}, "
            "which is no manager of its Swarm: name them as subnet"
        )
    return engine.subnet


def _overlay(client: docker.APIClient, name: str, subnet: str) -> str:
    for each in client.networks(names=[name]):
        if each["Name"] == name:
            found = _checked(each, "overlay", "", "the Swarm")
            if not each.get("Attachable"):
                raise InvalidRequest(
                    f"the overlay {name} must be attachable: remove it, and it is made anew, or "
                    "create it with --attachable"
                )
            return found
    if not subnet:
        raise InvalidRequest(f"there is no network {name} yet, and to make it needs a subnet")
    client.create_network(
        name, "overlay", ipam=_ipam(subnet), labels=_LABELS, attachable=True, scope="swarm"
    )
    return subnet


def _checked(found: Mapping[str, Any], driver: str, subnet: str, where: str) -> str:
    """Return the addresses of a network that is there; refuse one that is not as it must be."""
    name = found["Name"]
    if found["Driver"] != driver:
        raise InvalidRequest(
            f"network {name} of {where} must be of the driver {driver}, got {found['Driver']}"
        )
    there = _subnets(found)
    if not there or (subnet and subnet not in there):
        raise InvalidRequest(
            f"network {name} of {where} has the addresses {', '.join(there) or 'of nobody'}, "
            f"and {subnet or 'an IPv4 network'} is wanted: change the subnet, or remove the "
            f"network with docker network rm {name} when nothing uses it"
        )
    return subnet or there[0]


def _subnets(found: Mapping[str, Any]) -> list[str]:
    configs = (found.get("IPAM") or {}).get("Config") or []
    return [each["Subnet"] for each in configs if ":" not in each.get("Subnet", ":")]


def _ipam(subnet: str) -> IPAMConfig:
    return IPAMConfig(pool_configs=[IPAMPool(subnet=subnet, iprange=engine_part(subnet))])
