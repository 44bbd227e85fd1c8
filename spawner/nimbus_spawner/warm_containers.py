"""Warm containers on one engine: made ahead of a claim, by what was asked for lately.

They hold no lease and are in nobody's way: only what is idle is used, and they go as soon as a
host has no room for them. What a claim could not make a session is removed, and the session
starts cold.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nimbus_hub.client.client import Client
from nimbus_hub.client.hosts import Host
from nimbus_hub.client.resources import Slot
from nimbus_hub.errors import NimbusError, NotFound, Unavailable
from nimbus_spawner.calls import call
from nimbus_spawner.engines import FAILED, SessionEngine
from nimbus_spawner.shells import arguments, claim_request, mount_targets, shell_of

__all__ = ["Demand", "WarmContainers", "host_of", "wanted"]

_removals: set[asyncio.Task[None]] = set()

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How long a warm container may be where somebody needs its place."""
READY_SECONDS = 60.0
CLAIM_SECONDS = 10.0
READY_POLL_SECONDS = 0.1
LAST_LINES = 15
COLD_SECONDS = 600.0
"""How long nothing is warmed of what could not be."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A start that happened: what for, on what slot, and when by the loop's clock."""

    shell: str
    slot: Slot
    at: float


def wanted(demands: Sequence[Demand], host: Host, most: int) -> dict[str, int]:
    """Return how many warm containers a host is to have by shell: pure.

    As many as were started, at most ``most`` of a shell, as far as what is idle goes; what was
    asked for last comes first.
    """
    if host.state != "ready":
        return {}
    cpus, memory = host.cpus_free_milli, host.memory_free_bytes
    free = {gpu.index: gpu.free_milli for gpu in host.gpus if not gpu.fault}
    found: dict[str, int] = {}
    for demand in sorted(demands, key=lambda each: -each.at):
        slot, has = demand.slot, found.get(demand.shell, 0)
        is_free = all(free.get(index, 0) >= slot.gpu_milli for index in slot.gpus)
        fits = slot.cpus_milli <= cpus and slot.memory_bytes <= memory and is_free
        if has == most or not fits:
            continue
        found[demand.shell] = has + 1
        cpus, memory = cpus - slot.cpus_milli, memory - slot.memory_bytes
        for index in slot.gpus:
            free[index] -= slot.gpu_milli
    return found


@dataclass(eq=False, slots=True)
class _Warm:
    """A container that waits at an address for whoever knows its secret."""

    id: str
    shell: str
    secret: str
    address: tuple[str, int]
    directory: str


@dataclass(slots=True)
class WarmContainers:
    """Those of one engine; ``host`` tells what of it is idle.

    ``prefix`` is that of the hub's containers, ``port`` where their servers listen, ``most``
    how many there may be of one shell, and ``keep_seconds`` how long a start is a reason to
    expect another one.
    """

    engine: SessionEngine
    host: Callable[[], Awaitable[Host]]
    prefix: str
    port: int
    most: int
    keep_seconds: float
    _demands: list[Demand] = field(default_factory=list)
    _shells: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _warm: list[_Warm] = field(default_factory=list)
    _changing: set[str] = field(default_factory=set)
    _cold_until: dict[str, float] = field(default_factory=dict)
    _keeper: asyncio.Task[None] | None = None

    def knows(self, container_id: str) -> bool:
        """Tell whether a container waits here, is to, or is being claimed."""
        known = {each.id for each in self._warm} | self._changing
        return container_id in known

    def note(self, request: Mapping[str, Any], labels: Mapping[str, str], slot: Slot) -> None:
        """Expect that what was just started will be asked for again.

        ``labels`` are the session's own.
        """
        if not self.most or arguments(request) is None:
            return
        shell = shell_of(request, labels, self.prefix)
        key = _key(shell)
        self._shells[key] = shell
        self._demands.append(Demand(key, slot, _now()))
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())

    async def claim(self, request: Mapping[str, Any], labels: Mapping[str, str]) -> str | None:
        """Return the id of a container that is now what a request asks for; None: there is none."""
        argv = arguments(request)
        if argv is None or not self._warm:
            return None
        key = _key(shell_of(request, labels, self.prefix))
        warm = next((each for each in self._warm if each.shell == key), None)
        if warm is None:
            return None
        self._warm.remove(warm)
        self._changing.add(warm.id)
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                await self._hand_over(warm, request, labels, argv)
        except BaseException as error:
            await asyncio.shield(self._give_up(warm.id))
            # ValueError: it ended without an answer.
            if not isinstance(error, (*FAILED, NimbusError, TimeoutError, ValueError)):
                raise
            log.warning("A warm container of host %s was of no use: %s", self.engine.host, error)
            self._cold_until[key] = _now() + COLD_SECONDS
            return None
        finally:
            self._changing.discard(warm.id)
        return warm.id

    async def _hand_over(
        self,
        warm: _Warm,
        request: Mapping[str, Any],
        labels: Mapping[str, str],
        argv: Sequence[str],
    ) -> None:
        """Make a warm container the person's: first the name and the mounts, then the claim."""
        await self.engine.do("rename", warm.id, request["name"])
        made = await self.engine.do("create_container", **claim_request(request, labels, warm.id))
        if mount_targets(request):
            await self.engine.do("start", made["Id"])
            status = (await self.engine.do("wait", made["Id"]))["StatusCode"]
            if status:
                said = await self.engine.do("logs", made["Id"], tail=1)
                raise Unavailable(f"the mounts could not be lent: {said.decode().strip()}")
        claim = {
            "secret": warm.secret,
            "args": list(argv),
            "env": dict(request["environment"]),
            "inherit": True,
            "cwd": warm.directory,
        }
        answer = await _asked(warm.address, claim)
        if answer != {"claimed": True}:
            raise Unavailable(f"its claim was answered with {answer}")

    async def _keep(self) -> None:
        """Have as many as are wanted, until none are and nothing was asked for lately."""
        while self._demands or self._warm:
            since = _now() - self.keep_seconds
            self._demands = [each for each in self._demands if each.at >= since]
            try:
                await self._adjust(wanted(self._demands, await self.host(), self.most))
            except (*FAILED, NimbusError) as error:
                log.info("Host %s has what warm containers it has: %s", self.engine.host, error)
            await asyncio.sleep(LOOK_SECONDS)
        self._shells.clear()

    async def _adjust(self, plan: Mapping[str, int]) -> None:
        """Take away what is too much, and make one of what is missing."""
        left = dict(plan)
        for warm in list(self._warm):
            left[warm.shell] = left.get(warm.shell, 0) - 1
            if left[warm.shell] < 0:
                self._warm.remove(warm)
                await self._give_up(warm.id)
        for key, missing in left.items():
            if missing > 0 and self._cold_until.get(key, 0.0) < _now():
                await self._make(key)
                return

    async def _make(self, key: str) -> None:
        """Make a container that waits; what does not within a time is none."""
        secret = secrets.token_urlsafe(32)
        request = {
            **self._shells[key],
            "name": f"{self.prefix}-warm-{secrets.token_hex(6)}",
            "environment": {"NIMBUS_WARM_SHA256": hashlib.sha256(secret.encode()).hexdigest()},
        }
        request["command"] = [*request["command"], "--port", str(self.port)]
        made = (await self.engine.do("create_container", **request))["Id"]
        self._changing.add(made)
        try:
            await self.engine.do("start", made)
            async with asyncio.timeout(READY_SECONDS):
                found = await self._waiting(made)
            address = self._address(found["NetworkSettings"])
            directory = found["Config"]["WorkingDir"] or "/"
            self._warm.append(_Warm(made, key, secret, address, directory))
        except BaseException as error:
            self._cold_until[key] = _now() + COLD_SECONDS
            await asyncio.shield(self._give_up(made))
            if not isinstance(error, (NimbusError, TimeoutError)):
                raise
            log.warning("A container of host %s does not get warm: %s", self.engine.host, error)
        finally:
            self._changing.discard(made)

    async def _waiting(self, container_id: str) -> Mapping[str, Any]:
        """Return what the engine says of a container once it waits; Unavailable: it will not."""
        while True:
            found: Mapping[str, Any] = await self.engine.do("inspect_container", container_id)
            if not found["State"]["Running"]:
                said = await self.engine.do("logs", container_id, tail=LAST_LINES)
                raise Unavailable(said.decode(errors="replace").strip())
            with suppress(OSError, ValueError):
                if "error" in await _asked(self._address(found["NetworkSettings"]), {}):
                    return found
            await asyncio.sleep(READY_POLL_SECONDS)

    async def _give_up(self, container_id: str) -> None:
        """Remove a container that was warm, as soon as its engine can be reached."""
        _removals.add(task := asyncio.create_task(self.engine.remove_at_last(container_id)))
        task.add_done_callback(_removals.discard)
        await asyncio.wait({task}, timeout=CLAIM_SECONDS)

    def _address(self, network: Mapping[str, Any]) -> tuple[str, int]:
        """Return where a container is reached: at a port of its host, or at its own address."""
        published = network["Ports"].get(f"{self.port}/tcp")
        if published:
            return published[0]["HostIp"], int(published[0]["HostPort"])
        (joined, *_) = network["Networks"].values()
        return joined["IPAddress"], self.port


async def host_of(nimbus: Client, name: str) -> Host:
    """Return a host with what of it is idle; raise NotFound for one that is no more."""
    hosts: tuple[Host, ...] = await call(nimbus.hosts)
    found = next((each for each in hosts if each.name == name), None)
    if found is None:
        raise NotFound(f"there is no host {name!r}")
    return found


async def _asked(address: tuple[str, int], claim: Mapping[str, Any]) -> Any:
    """Send a claim, or what is none, and return the answer; see `nimbus_spawner.warm`."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(json.dumps(claim).encode() + b"\n")
        return json.loads(await reader.readline())
    finally:
        writer.close()


def _key(shell: Mapping[str, Any]) -> str:
    return json.dumps(shell, sort_keys=True, default=str)


def _now() -> float:
    return asyncio.get_running_loop().time()
