"""Engines as hosts: what each has by its own answers, and how it stands.

A host that does not answer is told all the same, as down and with what it had when it last
did: to be left out would mean that it is gone for good.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from nimbus_hub.errors import NimbusError
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.executors.docker.gpus import (
    MODEL_LABEL,
    declared_gpus,
    generic_gpus,
    has_nvidia,
    query_gpus,
)
from nimbus_hub.executors.docker.images import Credentials
from nimbus_hub.executors.docker.networks import whole_network
from nimbus_hub.executors.docker.streams import EventStream
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.host import Gpu, Host, HostState

__all__ = [
    "DOCKER",
    "HostFinder",
    "Membership",
    "Standing",
    "down_host",
    "engine_labels",
    "host_of",
    "told_gpus",
]

log = logging.getLogger(__name__)

DOCKER = "docker"
"""The executor of such hosts."""

_LOOK_SECONDS = 5.0
_SLOW_LOOKS = 5
_QUERY_SECONDS = 20.0
_AGAIN_SECONDS = 3.0
_ANYWHERE = "default"
_DAEMON = {"type": ["daemon"]}


class Standing(NamedTuple):
    """How somebody else says that an engine stands, and why."""

    state: HostState
    reason: str = ""


class Membership(Protocol):
    """Who says that engines are members, and how they stand."""

    def check(self) -> None:
        """Raise Unavailable while not all members are known: who is not told would be gone."""
        ...

    def standing(self, host: str) -> Standing:
        """Return how a host stands; one that is no member is ready."""
        ...


def engine_labels(info: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels that an engine was started with."""
    pairs = (label.partition("=") for label in info.get("Labels") or ())
    return {name: value for name, _, value in pairs}


def host_of(
    engine: Engine, info: Mapping[str, Any], gpus: Sequence[Gpu] = (), network: str = ""
) -> Host:
    """Return the host that an engine is, by what it answers to ``GET /info``.

    What the cluster says of it wins over its own labels.
    """
    labels = {**engine_labels(info), **engine.labels}
    return Host(
        name=engine.host,
        cpus_milli=info["NCPU"] * 1000,
        memory_bytes=info["MemTotal"],
        gpus=tuple(gpus),
        address=engine.address,
        datacenter=engine.datacenter,
        rack=labels.get("rack", _ANYWHERE) if engine.rack == _ANYWHERE else engine.rack,
        executor=DOCKER,
        labels=labels,
        network=network,
    )


def told_gpus(engine: Engine, info: Mapping[str, Any]) -> tuple[Gpu, ...]:
    """Return the devices that somebody declared to an engine, or the cluster for it.

    Raises InvalidRequest for a label that says none.
    """
    labels = {**engine_labels(info), **engine.labels}
    found = generic_gpus(info.get("GenericResources"), labels.get(MODEL_LABEL, ""))
    return found or declared_gpus(labels.get("gpus", "0"), labels.get(MODEL_LABEL, ""))


def down_host(engine: Engine, reason: str, last: Host | None = None) -> Host:
    """Return the host of an engine that does not answer, as it last was.

    One that never did has what a host must have at least.
    """
    if last is None:
        last = host_of(engine, {"NCPU": 1, "MemTotal": 1})
    return replace(last, state=HostState.DOWN, state_reason=reason)


class HostFinder:
    """Tells the hosts that engines are; follows each to know when it goes or comes back."""

    def __init__(
        self,
        image: str = "",
        members: Membership | None = None,
        credentials: Mapping[str, Credentials] | None = None,
    ) -> None:
        """Ask drivers for their GPUs in containers of ``image``, without one never.

        It is pulled with these ``credentials``, by registry.
        """
        self._image = image
        self._credentials = credentials or {}
        self._members = members
        self._last: dict[str, Host] = {}
        self._queries: dict[str, tuple[EngineClient, asyncio.Task[tuple[Gpu, ...]]]] = {}
        self._faults: dict[str, str] = {}
        self._slow: dict[str, int] = {}
        self._streams: dict[str, EventStream] = {}
        self._changed = asyncio.Event()

    async def __call__(self, clients: Sequence[EngineClient]) -> tuple[Host, ...]:
        """Return the hosts, in the order of their engines; raise Unavailable if some may miss."""
        if self._members is not None:
            self._members.check()
        self._follow([client.engine for client in clients])
        return tuple(await asyncio.gather(*map(self._host, clients)))

    async def changed(self) -> None:
        """Wait until an engine has gone or come back, or stands otherwise."""
        await self._changed.wait()
        self._changed.clear()

    def note_change(self) -> None:
        """Have those who wait for a change look again."""
        self._changed.set()

    def close(self) -> None:
        """Follow none any more."""
        self._follow(())
        for host in list(self._queries):
            self._forget_gpus(host)

    async def _host(self, client: EngineClient) -> Host:
        engine = client.engine
        fault, stands = self._faults.get(engine.host), Standing(HostState.READY)
        if self._members is not None:
            stands = self._members.standing(engine.host)
        if not fault and stands.state is HostState.DOWN:
            fault = stands.reason
        if not fault:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    info, network = await client.call(_look, client)
                gpus = await self._gpus(client, info)
                self._last[engine.host] = host_of(engine, info, gpus, network)
                self._slow.pop(engine.host, None)
            except (NimbusError, TimeoutError) as error:
                fault = self._faults.get(engine.host) or self._fault(engine.host, error)
                # Its stream may not have noticed: then nobody tells when it answers again.
                asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self.note_change)
        if fault:
            self._forget_gpus(engine.host)
            return down_host(engine, fault, self._last.get(engine.host))
        return replace(self._last[engine.host], state=stands.state, state_reason=stands.reason)

    def _fault(self, host: str, error: NimbusError | TimeoutError) -> str:
        """Return why a host is down; empty for one that is slow, and there by its stream.

        A manager answers nothing while its Swarm elects another leader.
        """
        if isinstance(error, NimbusError):
            return error.message
        self._slow[host] = self._slow.get(host, 0) + 1
        is_known = host in self._last and self._slow[host] < _SLOW_LOOKS
        return "" if is_known else "its Docker engine is too slow to answer"

    async def _gpus(self, client: EngineClient, info: Mapping[str, Any]) -> tuple[Gpu, ...]:
        """Return the devices: by the driver, asked once; else as declared to the engine."""
        declared = told_gpus(client.engine, info)
        if not self._image or not has_nvidia(info):
            return declared
        host = client.engine.host
        known = self._queries.get(host)
        if known is None or known[0] is not client:
            self._forget_gpus(host)
            task = asyncio.create_task(
                client.carry(query_gpus, client, self._image, self._credentials)
            )
            task.add_done_callback(lambda _: self.note_change())
            known = self._queries[host] = client, task
        # The image may have to be pulled first: the devices come with a later look then.
        await asyncio.wait({known[1]}, timeout=_QUERY_SECONDS)
        if not known[1].done():
            return declared
        if (error := known[1].exception()) is None:
            return known[1].result()
        if not isinstance(error, NimbusError):
            raise error
        log.warning("the GPUs of %s are not known: %s", host, error)
        return declared

    def _forget_gpus(self, host: str) -> None:
        known = self._queries.pop(host, None)
        if known is not None:
            known[1].cancel()

    def _follow(self, engines: Sequence[Engine]) -> None:
        """Follow these engines and no others."""
        wanted = {engine.host: engine for engine in engines}
        for host, stream in list(self._streams.items()):
            if wanted.get(host) != stream.engine:
                self._streams.pop(host).close()
                self._faults.pop(host, None)
        for host, engine in wanted.items():
            if host not in self._streams:
                self._streams[host] = EventStream(engine, _DAEMON, self._teller(host))

    def _teller(self, host: str) -> Callable[[str], None]:
        loop = asyncio.get_running_loop()

        def tell(fault: str) -> None:
            with suppress(RuntimeError):  # The loop may be closed by now.
                loop.call_soon_threadsafe(self._note, host, fault)

        return tell

    def _note(self, host: str, fault: str) -> None:
        before = self._faults.get(host, "")
        words = f"its Docker engine does not answer: {fault}" if fault else ""
        self._faults[host] = words
        if bool(before) != bool(words):
            log.info("host %s: %s", host, words or "its Docker engine answers")
            self._changed.set()


def _look(client: EngineClient) -> tuple[dict[str, Any], str]:
    """Return what an engine says of itself, and the network of its gangs. Blocks."""
    return client.info(), whole_network(client)
