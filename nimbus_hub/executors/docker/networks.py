"""The networks of gangs: each has one of its own, into which Docker lets nobody else.

A bridge is on the gang's engine. An overlay is made on a manager of the Swarm, attachable, so
that plain containers join it. The addresses of one are a part of the host's whole network
(`model.network`): its name says which part, and a label whose it is. It is made when a
container that names it is there but not started, and removed when the gang has no container
on an engine any more: in that order none is taken for forgotten that somebody is about to use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any, NamedTuple, TypeVar

import docker
from docker import errors as docker_errors
from docker.types import IPAMConfig, IPAMPool

from nimbus_hub.errors import InvalidRequest, NimbusError, NotFound, Unavailable
from nimbus_hub.executors.docker.containers import GANG_LABEL
from nimbus_hub.executors.docker.engine import EngineClient, Engines
from nimbus_hub.model.check import HostCheck
from nimbus_hub.model.engine import BRIDGE, HOST_NETWORK, Engine
from nimbus_hub.model.network import engine_half, part_of
from nimbus_hub.model.replica import ReplicaSpec

__all__ = [
    "Attachment",
    "Networks",
    "attachment",
    "bridge_network",
    "free_subnet",
    "overlapping",
    "refuse_overlaps",
    "whole_network",
]

R = TypeVar("R")

LINGER_SECONDS = 2.0
"""How long a network is kept for the next attempt of a gang, or its next run."""

_BRIDGES = "nimbus"
_WHOLE_LABEL = "nimbus.network"
_NO_NETWORK = "none"
_NOT_YET = (
    "Pool overlaps with other one",
    "networks have overlapping IPv4",
    "already exists",
    # A manager, where two ask at the same instant.
    "name conflicts with an existing object",
)
"""What is said of a network that another makes, or has not removed everywhere; codes vary."""
_TRIES = 10
_PAUSE_SECONDS = 0.1


class Attachment(NamedTuple):
    """The network that a container is in, and its address there, if it is one of its own.

    ``part`` are the network's addresses, ``whole`` those of all networks like it; both are
    empty for one that is not a gang's.
    """

    network: str
    address: str = ""
    part: str = ""
    whole: str = ""


def attachment(engine: Engine, whole: str, spec: ReplicaSpec) -> Attachment:
    """Return where a replica is attached; raise InvalidRequest for an address of elsewhere.

    What waits for runs, which have its address then, is in no network.
    """
    if engine.network == HOST_NETWORK:
        return Attachment(HOST_NETWORK)
    if not spec.address or spec.modules is not None:
        return Attachment(_NO_NETWORK)
    part = part_of(whole, spec.address)
    kind = _BRIDGES if engine.network == BRIDGE else engine.network
    # Names of overlays are parts of names of hosts: no dots.
    start = part.partition("/")[0].replace(".", "-")
    return Attachment(f"{kind}-{start}", spec.address, part, whole)


def whole_network(client: EngineClient) -> str:
    """Return the network of which each gang on an engine gets a part, empty for the host's own.

    Raises InvalidRequest for one that cannot be used, with what to do. Blocks.
    """
    engine = client.engine
    if engine.network == BRIDGE:
        return bridge_network(engine, client.use(lambda sdk: sdk.networks()))
    return engine.subnet


def bridge_network(engine: Engine, found: Sequence[Mapping[str, Any]]) -> str:
    """Return it by what networks an engine has: the same as long as one of ours is there."""
    ours = sorted(
        each["Labels"][_WHOLE_LABEL]
        for each in found
        if each["Driver"] == "bridge" and _gang_of(each)
    )
    if ours:
        return engine.subnet or ours[0]
    if engine.subnet:
        refuse_overlaps(engine.subnet, found, f"host {engine.host}")
        return engine.subnet
    return free_subnet((subnet for each in found for subnet in _subnets(each)), engine.address)


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


def overlapping(subnet: str, found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of networks that are no gang's and have addresses of a subnet."""
    whole = IPv4Network(subnet)
    return [
        each["Name"]
        for each in found
        if not _gang_of(each) and any(whole.overlaps(IPv4Network(own)) for own in _subnets(each))
    ]


def refuse_overlaps(subnet: str, found: Iterable[Mapping[str, Any]], where: str) -> None:
    """Raise InvalidRequest if others have addresses that are to be those of gangs."""
    names = overlapping(subnet, found)
    if names:
        raise InvalidRequest(
            f"the subnet {subnet} of {where} has addresses of its network {names[0]}: choose "
            f"another subnet, or remove that network with docker network rm {names[0]} when "
            "nothing uses it"
        )


class Networks:
    """Makes and removes them. Used in the event loop; asks in threads."""

    def __init__(self, engines: Engines) -> None:
        """Find the managers of Swarms among the engines."""
        self._engines = engines
        self._managers: dict[tuple[str, str], str] = {}
        self._leaving: dict[tuple[str, str], asyncio.Task[None]] = {}
        # By host, as last seen or begun there: one whose engine is silent keeps its networks.
        self._gangs: dict[str, set[str]] = {}

    async def find(self, client: EngineClient, spec: ReplicaSpec) -> Attachment:
        """Return where a replica is attached; its network need not be there yet."""
        whole = await client.call(whole_network, client)
        return attachment(client.engine, whole, spec)

    async def ensure(self, client: EngineClient, at: Attachment, gang: str) -> None:
        """Have the network of a gang be there, whoever else makes it at the same time.

        Raises Unavailable while another has its addresses, or no manager answers.
        """
        if not at.part:
            return
        self._gangs.setdefault(client.engine.host, set()).add(gang)
        driver = "bridge" if client.engine.network == BRIDGE else "overlay"
        for _ in range(_TRIES):
            said = await self._where_made(client, partial(_have, driver=driver, at=at, gang=gang))
            if not said:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
        raise Unavailable(f"the network {at.network} cannot be made yet: {said}")

    def leave(self, client: EngineClient, gang: str) -> None:
        """Have a gang's network go soon, unless it has containers on an engine then."""
        key = client.engine.host, gang
        if gang and client.engine.network != HOST_NETWORK and key not in self._leaving:
            task = self._leaving[key] = asyncio.create_task(self._leave(client, gang))
            task.add_done_callback(lambda _: self._leaving.pop(key))

    async def sweep(self, client: EngineClient) -> None:
        """Remove what a service that was killed has left: networks of gangs without containers."""
        engine = client.engine
        if engine.network == HOST_NETWORK:
            return
        is_maker = engine.network == BRIDGE or await client.call(_is_manager, client)
        # Before the containers: a network that is there by now has had one before.
        found = await client.call(_networks, client) if is_maker else []
        self._gangs[engine.host] = await client.call(_gangs, client)
        like = [each.engine.host for each in self._alike(client)]
        known = set[str]().union(*(self._gangs.get(host, ()) for host in like))
        for each in found:
            if _gang_of(each) not in known:
                await client.call(_remove, client, each["Id"])

    async def check(self, client: EngineClient) -> tuple[HostCheck, ...]:
        """Tell whether an overlay can be made: only a manager does that."""
        if client.engine.network in (BRIDGE, HOST_NETWORK):
            return ()
        try:
            host = await self._where_made(client, lambda maker: maker.engine.host)
        except Unavailable as error:
            remedy = "see that a manager is among the hosts, and more than half of all answer"
            return (HostCheck("manager", False, error.message, remedy),)
        return (HostCheck("manager", True, f"networks of gangs are made on {host}"),)

    async def close(self) -> None:
        """Leave what is to go to the next service."""
        tasks = list(self._leaving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave(self, client: EngineClient, gang: str) -> None:
        await asyncio.sleep(LINGER_SECONDS)
        # An engine that is silent is swept when it is back.
        with suppress(NimbusError):
            if gang not in await client.call(_gangs, client):
                await self._where_made(client, partial(_remove_of, gang=gang))

    def _alike(self, client: EngineClient) -> list[EngineClient]:
        """Return the engines that share an engine's networks: itself, or all of its Swarm."""
        own = client.engine
        return [
            each
            for each in self._engines.all()
            if each.engine.host == own.host
            or (
                own.network != BRIDGE
                and (each.engine.datacenter, each.engine.network) == (own.datacenter, own.network)
            )
        ]

    async def _where_made(self, client: EngineClient, work: Callable[[EngineClient], R]) -> R:
        """Do something where an engine's networks are made: there, or on a manager."""
        engine = client.engine
        if engine.network == BRIDGE:
            return await client.carry(work, client)
        key = engine.datacenter, engine.network
        last = self._managers.get(key)
        problem = "none of its hosts is one"
        for each in sorted(self._alike(client), key=lambda other: other.engine.host != last):
            try:
                if await each.call(_is_manager, each):
                    self._managers[key] = each.engine.host
                    return await each.carry(work, each)
            except Unavailable as error:
                problem = error.message
        raise Unavailable(f"no manager of the Swarm of {engine.datacenter} answers: {problem}")


def _is_manager(client: EngineClient) -> bool:
    return bool(client.info()["Swarm"]["ControlAvailable"])


def _have(client: EngineClient, driver: str, at: Attachment, gang: str) -> str:
    """Have a network be there; return why it cannot be yet. Blocks.

    An engine refuses a second bridge with the same addresses, and a Swarm a second overlay of
    the same name, also while the first is being made or removed and told to nobody.
    """
    found = client.use(partial(_named, name=at.network))
    if found is None:
        return client.use(partial(_create, driver=driver, at=at, gang=gang))
    owner = _gang_of(found)
    if not owner:
        raise InvalidRequest(
            f"another network has the name {at.network}: remove it with "
            f"docker network rm {at.network}"
        )
    if owner == gang:
        return ""
    if owner not in _gangs(client):
        _remove(client, found["Id"])
    return f"{owner} has not left it"


def _create(sdk: docker.APIClient, driver: str, at: Attachment, gang: str) -> str:
    """Make a network; return why that is not possible now."""
    pool = IPAMPool(
        subnet=at.part,
        iprange=engine_half(at.part),
        gateway=str(IPv4Network(at.part)[1]),
    )
    more = {"attachable": True, "scope": "swarm"} if driver == "overlay" else {}
    labels = {GANG_LABEL: gang, _WHOLE_LABEL: at.whole}
    ipam = IPAMConfig(pool_configs=[pool])
    try:
        sdk.create_network(
            at.network, driver, ipam=ipam, labels=labels, check_duplicate=True, **more
        )
    except docker_errors.APIError as error:
        said = str(error.explanation)
        if not any(each in said for each in _NOT_YET):
            raise
        return said
    return ""


def _named(sdk: docker.APIClient, name: str) -> dict[str, Any] | None:
    return next((each for each in sdk.networks(names=[name]) if each["Name"] == name), None)


def _networks(client: EngineClient, gang: str = "") -> list[dict[str, Any]]:
    """Return the networks of one gang or all that an engine knows of."""
    label = f"{GANG_LABEL}={gang}" if gang else GANG_LABEL
    found: list[dict[str, Any]] = client.use(lambda sdk: sdk.networks(filters={"label": label}))
    return found


def _gangs(client: EngineClient) -> set[str]:
    """Return the gangs that have containers on an engine, running or not."""
    return {each["Labels"].get(GANG_LABEL, "") for each in client.containers()}


def _remove_of(client: EngineClient, gang: str) -> None:
    for each in _networks(client, gang):
        _remove(client, each["Id"])


def _remove(client: EngineClient, network_id: str) -> None:
    """Remove a network; one that is gone, or in use on whatever host, is left alone."""
    with suppress(InvalidRequest, NotFound):
        client.use(lambda sdk: sdk.remove_network(network_id))


def _gang_of(found: Mapping[str, Any]) -> str:
    return str((found.get("Labels") or {}).get(GANG_LABEL, ""))


def _subnets(found: Mapping[str, Any]) -> list[str]:
    configs = (found.get("IPAM") or {}).get("Config") or []
    return [each["Subnet"] for each in configs if ":" not in each.get("Subnet", ":")]
