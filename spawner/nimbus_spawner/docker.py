"""NimbusDockerSpawner: sessions as containers, each on the engine of the host it was granted.

DockerSpawner's settings keep working: images, volumes, templates, networks, what is extra.
What a lease grants is not the site's to say: CPUs, memory, GPUs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager, suppress
from inspect import isawaitable
from typing import Any

from tornado.web import HTTPError
from traitlets import Dict, Unicode, default

from nimbus_hub.client.client import Client
from nimbus_hub.client.resources import Lease
from nimbus_hub.errors import Conflict, InvalidRequest, NimbusError, NotFound, Unavailable
from nimbus_hub.model.engine import BRIDGE, HOST_NETWORK
from nimbus_spawner.calls import call
from nimbus_spawner.containers import (
    LEASE_LABEL,
    container_env,
    engine_from,
    granted_host,
    labels,
    why_it_ended,
)
from nimbus_spawner.engines import FAILED, SessionEngine, said
from nimbus_spawner.host_docker import HostDockerSpawner
from nimbus_spawner.spawner import NimbusSpawner

__all__ = ["NimbusDockerSpawner"]

_LOOK_SECONDS = 10.0
"""How long news of an end is waited for until the engine is asked."""

_sweeps: set[asyncio.Task[None]] = set()


class NimbusDockerSpawner(NimbusSpawner, HostDockerSpawner):
    """Start sessions' servers as containers that hold a lease."""

    environment_images = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="Image of an environment. Default: DockerSpawner.image.",
    ).tag(config=True)

    own_options = frozenset({"image"})
    cert_paths: dict[str, str]

    @default("start_timeout")
    def _default_start_timeout(self) -> int:
        return int(super()._default_start_timeout() + self.pull_timeout)

    @default("prefix")
    def _default_prefix(self) -> str:
        return "nimbus-session"

    @default("volumes")
    def _default_volumes(self) -> dict[str, str]:
        return {"nimbus-home-{username}": "/home/jovyan"}

    @default("default_url")
    def _default_default_url(self) -> str:
        return "/lab"

    @default("use_internal_ip")
    def _default_use_ip(self) -> bool:
        # There are no ports to map on the host's own network.
        return bool(self.network_name != BRIDGE)

    # life

    async def launch(self) -> Any:
        """Start the container on the engine of the host that was granted."""
        lease = self._lease
        assert lease is not None
        self._take(lease)
        try:
            await self._make_room()
            if self.internal_ssl:
                self.cert_paths = await super().move_certs(self.cert_paths)
            address = await super().launch()
        except FAILED as error:
            raise said(self.host, error) from error
        sweep = asyncio.create_task(_sweep(self.engine, self.nimbus))
        _sweeps.add(sweep)
        sweep.add_done_callback(_sweeps.discard)
        return address

    def how_it_ended(self, status: int) -> str:
        """Return the reason for a server that ended by itself, with what the engine knows."""
        return why_it_ended(self.final_state, status)

    def last_lines(self) -> str:
        """Return the end of the container's output."""
        return self.last_output

    async def wait_until_gone(self) -> None:
        """Return the moment the engine says that the container ended."""
        with self.engine.news(self.object_id) as news:
            while await self.poll() is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), _LOOK_SECONDS)
                news.clear()

    def remains(self) -> Awaitable[None] | None:
        """Return what removes the container, as soon as its engine can be reached."""
        is_kept = self.final_state is not None and not self.remove
        if not self.object_id or is_kept:
            return None
        try:
            return self.engine.remove_at_last(self.object_id)
        except Unavailable as error:
            self.log.warning("Container %s is left: %s", self.object_name, error)
            return None

    async def end_leftover(self, lease: Lease) -> None:
        """Remove the container of a start that was cut off."""
        for slot in lease.slots:
            self.host = slot.host
            try:
                await _remove_of(self.engine, lease.id)
            except (*FAILED, NimbusError) as error:
                self.log.warning("Lease %s may have left a container: %s", lease.id, error)

    # the container

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Keep the certificates for internal SSL until it is known where they are to be."""
        return paths

    async def check_allowed(self, image: str) -> str:
        """Return the image that a user's choice means; raise InvalidRequest if it is refused."""
        try:
            found: str = await super().check_allowed(image)
        except HTTPError as error:
            raise InvalidRequest(str(error.log_message)) from error
        return found

    def get_env(self) -> dict[str, str]:
        """Return the environment, as it is within a container."""
        env = super().get_env()
        return env | container_env(self._lease.slots[0]) if self._lease is not None else env

    async def create_object(self) -> Any:
        """Create the container: what the site says, and what was granted."""
        lease = self._lease
        assert lease is not None
        more = dict(await self._evaluated(self.extra_create_kwargs))
        more["labels"] = {**dict(more.get("labels") or {}), **labels(lease)}
        host = granted_host(await self._evaluated(self.extra_host_config), lease.slots[0])
        with self._with(extra_create_kwargs=more, extra_host_config=host):
            return await super().create_object()

    async def get_ip_and_port(self) -> tuple[str, int]:
        """Return where the server is reached."""
        if self.network_name == HOST_NETWORK:
            return self.host_ip, self.port
        found: tuple[str, int] = await super().get_ip_and_port()
        return found

    def tell_pull(self, image: str, text: str) -> None:
        """Show how far a pull is."""
        self._progress.tell(55, f"Pulling {image}: {text}")

    def _take(self, lease: Lease) -> None:
        """Take over what was granted."""
        slot = lease.slots[0]
        self.host, self.final_state, self.last_output = slot.host, None, ""
        self.cpu_limit, self.mem_limit = slot.cpus_milli / 1000, slot.memory_bytes
        self.image = self.environment_images.get(lease.environment, self.image)
        if slot.host in self.engines:
            self.host_ip = engine_from(slot.host, self.engines[slot.host]).address
        if self.network_name == HOST_NETWORK:
            self.port = slot.ports[0]

    async def _make_room(self) -> None:
        """Remove a container that has the name already; raise Conflict if it may be in use."""
        found = await self.get_object()
        if found is None:
            return
        self.object_id = ""
        lease_id = (found["Config"]["Labels"] or {}).get(LEASE_LABEL, "")
        if not lease_id or not await _is_over(self.nimbus, lease_id):
            raise Conflict(
                f"host {self.host} has a container {self.object_name} already, which is not of "
                "an ended session of this hub; set NimbusDockerSpawner.prefix"
            )
        await self.engine.remove(found["Id"])

    async def _evaluated(self, given: Any) -> Mapping[str, Any]:
        value = self._eval_if_callable(given)
        if isawaitable(value):
            value = await value
        return dict(value)

    @contextmanager
    def _with(self, **values: Any) -> Iterator[None]:
        before = {name: getattr(self, name) for name in values}
        try:
            for name, value in values.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


async def _sweep(engine: SessionEngine, nimbus: Client) -> None:
    """Remove what hubs that died left running on an engine; nobody else's."""
    try:
        found = await engine.do("containers", filters={"label": LEASE_LABEL})
        live = {lease.id for lease in await call(nimbus.leases, state="live")}
        for each in found:
            lease_id = each["Labels"][LEASE_LABEL]
            if lease_id not in live and await _is_over(nimbus, lease_id):
                await engine.remove(each["Id"])
    except (*FAILED, NimbusError):
        return  # The next start on this host does it.


async def _remove_of(engine: SessionEngine, lease_id: str) -> None:
    """Remove the containers of a lease."""
    wanted = {"label": f"{LEASE_LABEL}={lease_id}"}
    for each in await engine.do("containers", all=True, filters=wanted):
        await engine.remove(each["Id"])


async def _is_over(nimbus: Client, lease_id: str) -> bool:
    """Tell whether a lease has ended; one of another service has not."""
    try:
        return (await call(nimbus.lease, lease_id)).is_ended
    except NotFound:
        return False
