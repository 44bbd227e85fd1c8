"""DockerSpawner with an engine for each host, whose errors are no ends of containers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

from docker import APIClient
from docker import errors as docker_errors
from dockerspawner import DockerSpawner
from traitlets import Dict, Float, TraitError, Unicode, default, validate

from nimbus_hub.errors import InvalidRequest, Unavailable
from nimbus_hub.model.engine import Engine
from nimbus_spawner.containers import engine_from, exit_status
from nimbus_spawner.engines import FAILED, SessionEngine, connect, connect_usual

__all__ = ["HostDockerSpawner"]

_POLL_SECONDS = 10.0
_LAST_LINES = 15
_UNKNOWN = 0


class HostDockerSpawner(DockerSpawner):  # type: ignore[misc]
    """Start servers as containers on the engine of the host named ``host``."""

    engines = Dict(
        key_trait=Unicode(),
        value_trait=Dict(),
        help="The Docker engine of a host by the host's name, where it is not as the cluster file "
        "has it: endpoint; for tcp also tls, the directory with ca.pem, cert.pem and key.pem; and "
        "address, where hub and proxy reach the host if that is not where its endpoint is. A host "
        "that neither names is on the hub's own engine.",
    ).tag(config=True)
    pull_timeout = Float(
        240.0,
        min=1.0,
        help="Seconds the pull of an image may take. A session that needs more than the "
        "service's start_time in all loses its lease.",
    ).tag(config=True)

    object_id: str
    image: str
    host = Unicode("", help="The host whose engine has the container, or nothing.")
    last_output = Unicode("", help="The last lines of a container that has ended.")

    _known: ClassVar[dict[tuple[str, ...], SessionEngine]] = {}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.final_state: Mapping[str, Any] | None = None
        self.told_engine: dict[str, str] = {}

    @default("remove")
    def _default_remove(self) -> bool:
        # What is granted is fixed when a container is made.
        return True

    @validate("engines")
    def _validate_engines(self, proposal: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        try:
            for host, given in proposal["value"].items():
                engine_from(host, given)
        except InvalidRequest as error:
            raise TraitError(error.message) from error
        return dict(proposal["value"])

    # engines

    @property
    def engine(self) -> SessionEngine:
        """Return the engine of the host."""
        found = self.engine_values
        key = (found.host, found.endpoint, found.tls) if found else ()
        if key not in self._known:
            self._known[key] = self._new_engine(found)
        return self._known[key]

    @property
    def engine_values(self) -> Engine | None:
        """Return where the engine is, as configured or told; None for the hub's own."""
        given = self.engines.get(self.host) or self.told_engine
        return engine_from(self.host, given) if given else None

    @property
    def client(self) -> APIClient:
        """Return the SDK's client for the host."""
        return self.engine.client

    @property
    def executor(self) -> ThreadPoolExecutor:
        """Return the threads that call the host's engine."""
        return self.engine.executor

    def _new_engine(self, found: Engine | None) -> SessionEngine:
        more = dict(self.client_kwargs)
        if found is None:
            return SessionEngine("local", partial(connect_usual, dict(self.tls_config), more))
        return SessionEngine(found.host, partial(connect, found, more))

    # life

    async def pull_image(self, image: str) -> None:
        """Pull an image as the policy says, once for all who wait for it."""
        policy = self.pull_policy.lower()
        if policy == "skip" or (policy != "always" and await self._has_image(image)):
            return
        if policy == "never":
            raise InvalidRequest(f"host {self.host} does not have the image {image}")
        try:
            async with asyncio.timeout(self.pull_timeout):
                await self.engine.pull(image, partial(self.tell_pull, image))
        except TimeoutError:
            raise Unavailable(
                f"the image {image} was not pulled within {self.pull_timeout:g} s"
            ) from None

    def tell_pull(self, image: str, text: str) -> None:
        """Tell people how far a pull is."""
        self.log.info("Pulling %s: %s", image, text)

    async def poll(self) -> int | None:
        """Return None while the server runs or its engine cannot be asked, else how it ended."""
        if not self.object_id:
            return _UNKNOWN
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                found = await self.docker("inspect_container", self.object_id)
        except docker_errors.NotFound:
            self.final_state, self.object_id = None, ""
            return _UNKNOWN
        except (*FAILED, Unavailable) as error:
            self.log.warning("Cannot ask for container %s: %s", self.object_name, error)
            return None
        status = exit_status(found["State"])
        if status is not None and self.final_state != found["State"]:
            self.final_state = found["State"]
            self.last_output = await self._last_output()
        return status

    async def stop(self, now: bool = False) -> None:
        """Stop the container; ``object_id`` stays if its engine cannot be reached."""
        try:
            await super().stop(now=now)
        except (*FAILED, Unavailable) as error:
            self.log.warning("Container %s is not stopped yet: %s", self.object_name, error)

    async def remove_object(self) -> None:
        """Remove the container, running or not."""
        await self.engine.remove(self.object_id)

    async def _has_image(self, image: str) -> bool:
        try:
            await self.docker("inspect_image", image)
        except docker_errors.NotFound:
            return False
        return True

    async def _last_output(self) -> str:
        try:
            text: bytes = await self.docker("logs", self.object_id, tail=_LAST_LINES)
        except FAILED:
            return ""
        return text.decode(errors="replace").strip()

    # state

    def get_state(self) -> dict[str, Any]:
        """Return what a restarted hub needs, the host with the container."""
        state: dict[str, Any] = super().get_state()
        if self.object_id:
            state["host"] = self.host
            if self.told_engine:
                # A hub that starts looks for its sessions before anybody could tell it.
                state["engine"] = self.told_engine
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over a container of the hub's last run."""
        super().load_state(state)
        self.host, self.told_engine = state.get("host", ""), state.get("engine", {})

    def clear_state(self) -> None:
        """Forget the container; where it may still be is known to who removes it."""
        super().clear_state()
        self.host, self.object_id, self.told_engine = "", "", {}
