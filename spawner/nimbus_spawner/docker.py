"""NimbusDockerSpawner: sessions as containers, each on the engine of the host it was granted.

DockerSpawner's settings keep working: images, volumes, templates, networks, what is extra.
What a lease grants is not the site's to say: CPUs, memory, GPUs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from inspect import isawaitable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from docker import errors as docker_errors
from tornado.web import HTTPError
from traitlets import Dict, Float, Int, Unicode, default, validate

from nimbus_hub.client.resources import Lease
from nimbus_hub.errors import Conflict, InvalidRequest, NimbusError, Unavailable
from nimbus_hub.model.engine import BRIDGE, HOST_NETWORK
from nimbus_hub.model.quantities import parse_duration
from nimbus_spawner.calls import call, insist
from nimbus_spawner.certificates import alt_name, archive, paths_inside, text_of, user_ids
from nimbus_spawner.containers import (
    container_env,
    granted_host,
    labels,
    pip_env,
    pip_notice,
    why_it_ended,
)
from nimbus_spawner.engines import FAILED, SESSIONS_NETWORK, SessionEngine, said
from nimbus_spawner.host_docker import HostDockerSpawner
from nimbus_spawner.leftovers import is_over, remove_of, sweep
from nimbus_spawner.spawner import NimbusSpawner
from nimbus_spawner.warm_containers import WarmContainers, host_of

__all__ = ["NimbusDockerSpawner"]

_LOOK_SECONDS = 10.0
"""How long news of an end is waited for until the engine is asked."""

_TELLING_SECONDS = 20.0
"""How long a service that does not answer is taken to be restarting."""

_PUBLISHED = (BRIDGE, SESSIONS_NETWORK)
"""The networks whose containers are reached at ports of their host."""

_sweeps: set[asyncio.Task[None]] = set()
_pools: dict[tuple[SessionEngine, str], WarmContainers] = {}


class NimbusDockerSpawner(NimbusSpawner, HostDockerSpawner):
    """Start sessions' servers as containers that hold a lease."""

    environment_images = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="Image of an environment. Default: DockerSpawner.image.",
    ).tag(config=True)

    starting_cpus = Float(
        2.0,
        min=0.0,
        help="CPUs that a session may use until its server answers, if it was granted less.",
    ).tag(config=True)
    warm_containers = Int(
        1,
        min=0,
        help="How many containers of a size and environment may wait on a host for the next "
        "session, as far as the host is idle. Their mounts are lent to them by a container with "
        "the right to mount; 0: every session starts cold.",
    ).tag(config=True)
    warm_time = Unicode(
        "1h", help="How long another session like the last one is expected, like 30m or 8h."
    ).tag(config=True)

    own_options = frozenset({"image"})
    cert_paths: dict[str, str]
    host_ip: str
    _created_with: dict[str, Any] | None = None
    _cpus: Mapping[str, int] = MappingProxyType({})
    internal_hostname: str
    trusted_alt_names: list[str]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._own_ip = self.host_ip
        self._image_id, self._image_env = "", list[str]()
        self._certificates: dict[str, bytes] = {}

    @validate("warm_time")
    def _validate_warm_time(self, proposal: Mapping[str, Any]) -> str:
        parse_duration(proposal["value"])
        return str(proposal["value"])

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

    @default("network_name")
    def _default_network_name(self) -> str:
        return SESSIONS_NETWORK

    @default("use_internal_ip")
    def _default_use_ip(self) -> bool:
        # There are no ports to map on the host's own network.
        return self.network_name not in _PUBLISHED

    @default("use_internal_hostname")
    def _default_use_hostname(self) -> bool:
        # The hub cannot look up a container's name on another host.
        return bool(self.internal_ssl and self.network_name not in (*_PUBLISHED, HOST_NETWORK))

    @default("ssl_alt_names")
    def _default_ssl_alt_names(self) -> Any:
        # Asked for when the host is known.
        return type(self)._alt_names

    # life

    async def launch(self) -> Any:
        """Start the container on the engine of the host that was granted."""
        lease = self._lease
        assert lease is not None
        await self._take(lease)
        try:
            await self._make_room()
            if self.network_name == SESSIONS_NETWORK:
                await self.engine.ensure_sessions_network()
            if self.internal_ssl:
                await self._make_certificates()
            address = await super().launch()
        except FAILED as error:
            raise said(self.host, error) from error
        task = asyncio.create_task(sweep(self.engine, self.nimbus, self._warm))
        _sweeps.add(task)
        task.add_done_callback(_sweeps.discard)
        return address

    async def settle(self) -> None:
        """Hold the session to the CPUs it was granted, and expect another like it."""
        lease, request, self._created_with = self._lease, self._created_with, None
        assert lease is not None
        if request is None:
            return  # A container that was stopped, not removed, and is started again.
        try:
            await self.docker("update_container", self.object_id, **self._cpus)
        except FAILED as error:
            raise said(self.host, error) from error
        if self._may_be_warm:
            self._warm.note(request, labels(lease), lease.slots[0])

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
            try:
                await self._turn_to(slot.host)
                await remove_of(self.engine, lease.id)
            except (*FAILED, NimbusError) as error:
                self.log.warning("Lease %s may have left a container: %s", lease.id, error)

    # the container

    async def create_certs(self) -> dict[str, str]:
        """Make none for internal SSL yet: they name the host, which JupyterHub does not know."""
        return {}

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Move none: they are put into the container."""
        return paths

    @property
    def volume_binds(self) -> dict[str, dict[str, str]]:
        """Return the site's volumes alone, and none for certificates."""
        found: dict[str, dict[str, str]] = self._volumes_to_binds(self.volumes, {})
        return dict(self._volumes_to_binds(self.read_only_volumes, found, mode="ro"))

    async def check_allowed(self, image: str) -> str:
        """Return the image that a user's choice means; raise InvalidRequest if it is refused."""
        try:
            found: str = await super().check_allowed(image)
        except HTTPError as error:
            raise InvalidRequest(str(error.log_message)) from error
        return found

    def get_env(self) -> dict[str, str]:
        """Return the environment, as it is within a container."""
        env = pip_env(self._image_env) | super().get_env()
        return env | container_env(self._lease.slots[0]) if self._lease is not None else env

    async def create_object(self) -> Any:
        """Create the container: what the site says, and what was granted."""
        lease = self._lease
        assert lease is not None
        found = await self.docker("inspect_image", self.image)
        self._image_id, self._image_env = found["Id"], found["Config"]["Env"] or []
        env = {**pip_env(self._image_env), **self.environment}
        if notice := pip_notice(env, self._image_env):
            self._progress.tell(60, notice)
        more = dict(await self._evaluated(self.extra_create_kwargs))
        more["labels"] = {**dict(more.get("labels") or {}), **labels(lease)}
        host = granted_host(await self._evaluated(self.extra_host_config), lease.slots[0])
        with self._with(extra_create_kwargs=more, extra_host_config=host):
            return await super().create_object()

    async def start_object(self) -> None:
        """Start the container; its certificates are put in before."""
        if self._certificates:
            await self._put_certificates()
        await super().start_object()

    async def get_ip_and_port(self) -> tuple[str, int]:
        """Return where the server is reached."""
        if self.network_name == HOST_NETWORK:
            return self.host_ip, self.port
        found: tuple[str, int] = await super().get_ip_and_port()
        return found

    async def docker(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the engine; what creates the session's container may find it warm."""
        if method == "create_container":
            return await self._created(kwargs)
        return await super().docker(method, *args, **kwargs)

    async def _created(self, request: dict[str, Any]) -> dict[str, Any]:
        lease, host = self._lease, request["host_config"]
        assert lease is not None
        self._cpus = {"cpu_period": host["CpuPeriod"], "cpu_quota": host["CpuQuota"]}
        host["CpuQuota"] = max(host["CpuQuota"], int(self.starting_cpus * host["CpuPeriod"]))
        # A tag may come to mean another image than that which waits.
        self._created_with = {**request, "image": self._image_id}
        claimed = None
        if self._may_be_warm:
            claimed = await self._warm.claim(self._created_with, labels(lease))
        if claimed is not None:
            return {"Id": claimed}
        made: dict[str, Any] = await super().docker("create_container", **request)
        return made

    @property
    def _may_be_warm(self) -> bool:
        """Tell whether a session like this one may wait for a person.

        An image that a user named may be anything, and is not trusted to mount. On the host's
        network a port is the slot's.
        """
        is_sites = not self.user_options.get("image")
        is_apart = not self.internal_ssl and self.network_name != HOST_NETWORK
        return self.warm_containers > 0 and is_sites and is_apart

    @property
    def _warm(self) -> WarmContainers:
        """Return the warm containers of the host's engine."""
        key = engine, host = self.engine, self.host
        if key not in _pools:
            keep_seconds = parse_duration(self.warm_time).total_seconds()
            told = partial(host_of, self.nimbus, host)
            _pools[key] = WarmContainers(
                engine, told, self.prefix, self.port, self.warm_containers, keep_seconds
            )
        return _pools[key]

    def tell_pull(self, image: str, text: str) -> None:
        """Show how far a pull is."""
        self._progress.tell(55, f"Pulling {image}: {text}")

    async def _take(self, lease: Lease) -> None:
        """Take over what was granted."""
        slot = lease.slots[0]
        await self._turn_to(slot.host)
        self.final_state, self.last_output = None, ""
        self.cpu_limit, self.mem_limit = slot.cpus_milli / 1000, slot.memory_bytes
        self.image = self.environment_images.get(lease.environment, self.image)
        engine = self.engine_values
        self.host_ip = self._own_ip if engine is None else engine.address
        if self.network_name == HOST_NETWORK:
            self.port = slot.ports[0]

    async def _turn_to(self, host: str) -> None:
        """Learn where the engine of a host is; the service knows that of every host."""
        self.host, self.told_engine = host, {}
        if host in self.engines:
            return
        try:
            found = await insist(partial(call, self.nimbus.engine, host), _TELLING_SECONDS)
        except Conflict as error:
            if self.engines:
                raise Unavailable(
                    f"host {host} has no Docker engine in the cluster file, nor in "
                    "NimbusDockerSpawner.engines"
                ) from error
            return  # It is the hub's own engine.
        self.told_engine = asdict(found)

    def _alt_names(self) -> list[str]:
        """Return where a session is reached, for its certificate."""
        names = [f"DNS:{self.internal_hostname}", alt_name(self.host_ip)]
        return [*self.trusted_alt_names, *names]

    async def _make_certificates(self) -> None:
        """Make the certificates, and keep them until there is a container to put them into."""
        made = await super().create_certs()
        # Read at once: another session of this user has files of the same names.
        self._certificates = _contents(made)
        self.cert_paths = paths_inside()

    async def _put_certificates(self) -> None:
        found = await self.docker("inspect_container", self.object_id)
        user, passwd = found["Config"]["User"], ""
        if user:
            with suppress(docker_errors.NotFound):
                pieces, _ = await self.docker("get_archive", self.object_id, "/etc/passwd")
                passwd = await asyncio.to_thread(text_of, pieces)
        packed = archive(self._certificates, *user_ids(user, passwd))
        await self.docker("put_archive", self.object_id, "/", packed)
        self._certificates = {}

    async def _make_room(self) -> None:
        """Remove a container that has the name already; raise Conflict if it may be in use."""
        found = await self.get_object()
        if found is None:
            return
        self.object_id = ""
        leases = {each.id: each.lease_id for each in await self.engine.sessions()}
        lease_id = leases.get(found["Id"], "")
        if not lease_id or not await is_over(self.nimbus, lease_id):
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


def _contents(paths: Mapping[str, str]) -> dict[str, bytes]:
    return {name: Path(path).read_bytes() for name, path in paths.items()}
