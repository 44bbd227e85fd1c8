"""The nodes of a Swarm as engines: who is a member, and how the Swarm says each stands.

The manager is asked when it tells that a node changed, and once a minute. When it goes, another
manager is asked, and until one answers all stays as it was: nodes do not need it to run.
Labels of a node say what the Swarm does not know: ``nimbus.host``, ``nimbus.endpoint``,
``rack``, ``gpu`` (the model) and ``gpus``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from nimbus_hub.errors import InvalidRequest, NimbusError, Unavailable
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.executors.docker.hosts import Standing
from nimbus_hub.executors.docker.networks import refuse_overlaps
from nimbus_hub.executors.docker.streams import EventStream
from nimbus_hub.model.engine import HOST_NETWORK, Engine, Swarm
from nimbus_hub.model.host import HostState

__all__ = ["ENDPOINT_LABEL", "HOST_LABEL", "Member", "Swarms", "member"]

log = logging.getLogger(__name__)

HOST_LABEL = "nimbus.host"
"""The label that names the host; without it the node's host name does."""
ENDPOINT_LABEL = "nimbus.endpoint"

_NODES = {"type": ["node"]}
_SOON_SECONDS = 5.0
_LATER_SECONDS = 60.0
_AVAILABILITY = {"drain": "is drained in the Swarm", "pause": "is paused in the Swarm"}
_LEFT = ("down", "disconnected")


@dataclass(frozen=True, slots=True)
class Member:
    """A node: its engine, and how it stands."""

    engine: Engine
    standing: Standing
    is_manager: bool = False


def member(swarm: Swarm, node: Mapping[str, Any]) -> Member:
    """Return what a node is, by what ``GET /nodes`` tells of it.

    Raises InvalidRequest for one whose label is no endpoint.
    """
    spec, status, description = node["Spec"], node["Status"], node["Description"]
    labels = {**(description["Engine"].get("Labels") or {}), **(spec.get("Labels") or {})}
    manager = node.get("ManagerStatus")
    address = _address(status.get("Addr", ""), manager)
    hostname = description["Hostname"]
    endpoint = labels.get(ENDPOINT_LABEL) or swarm.endpoint(address, hostname)
    engine = Engine(
        host=labels.get(HOST_LABEL) or hostname,
        endpoint=endpoint,
        tls=swarm.tls_for(endpoint),
        address=address,
        datacenter=swarm.datacenter,
        rack=labels.get("rack", "default"),
        labels=labels,
        network=swarm.network,
        subnet="" if swarm.network == HOST_NETWORK else swarm.subnet,
    )
    return Member(engine, _standing(spec["Availability"], status), spec["Role"] == "manager")


def _standing(availability: str, status: Mapping[str, Any]) -> Standing:
    """Return how a node stands; one that a new manager does not know yet counts as there."""
    if status["State"] in _LEFT:
        why = status.get("Message")
        return Standing(HostState.DOWN, f"the Swarm says it is down{f': {why}' if why else ''}")
    if availability in _AVAILABILITY:
        return Standing(HostState.DRAINING, _AVAILABILITY[availability])
    return Standing(HostState.READY)


def _address(address: str, manager: Mapping[str, Any] | None) -> str:
    """Return where a node is reached; of a manager its Swarm may know only 0.0.0.0."""
    with suppress(ValueError):
        found = ip_address(address)
        if not (found.is_unspecified or found.is_loopback) or not manager:
            return address
    return str(manager["Addr"]).rpartition(":")[0] if manager else address


@dataclass
class _Known:
    """What is known of a Swarm, and who tells it."""

    swarm: Swarm
    members: tuple[Member, ...] = ()
    client: EngineClient | None = None
    stream: EventStream | None = None
    problems: set[str] = field(default_factory=set)
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_wanted: bool = False
    """Whether to ask once more: something was told since the last time began."""
    timer: asyncio.TimerHandle | None = None


class Swarms:
    """The members of all Swarms. Used in the event loop; asks in threads."""

    def __init__(
        self, swarms: Callable[[], Sequence[Swarm]], on_change: Callable[[], None]
    ) -> None:
        """Ask ``swarms`` again and again: the cluster may change."""
        self._swarms = swarms
        self._on_change = on_change
        self._known: dict[Swarm, _Known] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def engines(self) -> tuple[Engine, ...]:
        """Return the engines of all nodes, by what was told last."""
        return tuple(each.engine for known in self._known.values() for each in known.members)

    def check(self) -> None:
        """Raise Unavailable while a Swarm has not told its nodes since this began."""
        for swarm in self._swarms():
            known = self._known.get(swarm)
            if known is None or not known.members:
                why = "; ".join(sorted(known.problems)) if known is not None else "not asked yet"
                raise Unavailable(
                    f"the nodes of the Swarm of {swarm.datacenter} are unknown: {why}"
                )

    def standing(self, host: str) -> Standing:
        """Return how a Swarm says that a host stands; ready if it is in none."""
        for known in self._known.values():
            for each in known.members:
                if each.engine.host == host:
                    return each.standing
        return Standing(HostState.READY)

    async def refresh(self) -> None:
        """Take in Swarms that are new and ask all; one that does not answer stays as it was."""
        wanted = dict.fromkeys(self._swarms())
        for swarm in [swarm for swarm in self._known if swarm not in wanted]:
            _let_go(self._known.pop(swarm))
        for swarm in wanted:
            self._known.setdefault(swarm, _Known(swarm))
        await asyncio.gather(*(self._ask(known) for known in list(self._known.values())))

    async def close(self) -> None:
        """Follow none any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for known in self._known.values():
            _let_go(known)
        self._known.clear()

    async def _ask(self, known: _Known) -> None:
        """Ask for the nodes; who comes while somebody asks waits and shares the next answer."""
        known.is_wanted = True
        async with known.asking:
            if known.is_wanted:
                known.is_wanted = False
                await self._ask_managers(known)

    async def _ask_managers(self, known: _Known) -> None:
        """Ask a manager, the next one if it does not answer."""
        for manager in _managers(known):
            if self._known.get(known.swarm) is not known:
                return  # It has left the cluster meanwhile.
            if known.client is None or known.client.engine != manager:
                self._turn_to(known, manager)
            assert known.client is not None
            try:
                members = await known.client.call(_members, known.client, known)
            except NimbusError as error:
                _say_once(known, error.message)
                continue
            known.problems.clear()
            self._take(known, members)
            return

    def _take(self, known: _Known, members: tuple[Member, ...]) -> None:
        if members == known.members:
            return
        before = {each.engine.host: each.standing for each in known.members}
        for each in members:
            if before.get(each.engine.host) != each.standing:
                log.info("host %s: %s", each.engine.host, each.standing.reason or "is ready")
        known.members = members
        self._on_change()

    def _turn_to(self, known: _Known, manager: Engine) -> None:
        """Follow another manager."""
        _let_go(known)
        known.client = EngineClient(manager)
        loop = asyncio.get_running_loop()

        def tell(fault: str) -> None:
            with suppress(RuntimeError):  # The loop may be closed by now.
                loop.call_soon_threadsafe(self._hear, known, manager)

        known.stream = EventStream(manager, _NODES, tell)

    def _hear(self, known: _Known, manager: Engine) -> None:
        """Ask again: a node changed, or the manager itself went or came."""
        if known.client is not None and known.client.engine == manager:
            self._ask_now(known, _SOON_SECONDS)

    def _ask_now(self, known: _Known, again_seconds: float) -> None:
        """Ask, and once more later: a manager that has just begun does not tell all changes."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._ask(known))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if known.timer is not None:
            known.timer.cancel()
        known.timer = loop.call_later(again_seconds, self._ask_now, known, _LATER_SECONDS)


def _members(client: EngineClient, known: _Known) -> tuple[Member, ...]:
    """Return the nodes as a manager tells them. Blocks."""
    swarm = known.swarm
    nodes = client.use(lambda sdk: sdk.nodes())
    if swarm.network != HOST_NETWORK:
        overlays = client.use(lambda sdk: sdk.networks(filters={"driver": "overlay"}))
        refuse_overlaps(swarm.subnet, overlays, f"the Swarm of {swarm.datacenter}")
    return tuple(_each(known, nodes))


def _each(known: _Known, nodes: Iterable[Mapping[str, Any]]) -> Iterable[Member]:
    """Yield all members by name; leave out who cannot be reached at all, or has another's name."""
    found: dict[str, Member] = {}
    for node in sorted(nodes, key=lambda node: str(node["ID"])):
        if "Hostname" not in (node.get("Description") or {}):
            continue  # It joins just now and has not told yet: it is asked for again soon.
        try:
            each = member(known.swarm, node)
        except InvalidRequest as error:
            _say_once(known, f"node {node['ID']} is left out: {error.message}")
            continue
        other = found.setdefault(each.engine.host, each)
        if other is not each:
            # One that joined again is there twice, and down where it was before.
            if other.standing.state is HostState.DOWN:
                found[each.engine.host] = each
            elif each.standing.state is not HostState.DOWN:
                words = f"two nodes are named {each.engine.host}: label one {HOST_LABEL}=NAME"
                _say_once(known, words)
    return (found[name] for name in sorted(found))


def _managers(known: _Known) -> list[Engine]:
    """Return whom to ask: who was asked last, the one configured, all other managers."""
    swarm = known.swarm
    tls = swarm.tls_for(swarm.manager)
    configured = Engine(f"the manager of {swarm.datacenter}", swarm.manager, tls)
    others = [
        each.engine
        for each in known.members
        if each.is_manager and each.engine.endpoint != swarm.manager
    ]
    last = [known.client.engine] if known.client is not None else []
    return list({engine.endpoint: engine for engine in (*last, configured, *others)}.values())


def _say_once(known: _Known, problem: str) -> None:
    if problem not in known.problems:
        known.problems.add(problem)
        log.warning("the Swarm of %s: %s", known.swarm.datacenter, problem)


def _let_go(known: _Known) -> None:
    if known.timer is not None:
        known.timer.cancel()
    if known.stream is not None:
        known.stream.close()
    if known.client is not None:
        known.client.close()
    known.client = known.stream = known.timer = None
