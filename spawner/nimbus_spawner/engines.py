"""The Docker engines that sessions run on: each has connections and threads of its own.

DockerSpawner has one client and one thread for all: an engine that hangs, or that pulls an
image, would hold up everybody on all hosts.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import docker
import requests
import urllib3
from docker import errors as docker_errors
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env
from requests.adapters import HTTPAdapter

from nimbus_hub.errors import InvalidRequest, NimbusError, Unavailable
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.session_container import (
    CLAIM_LABEL,
    LEASE_LABEL,
    SessionContainer,
    session_containers,
)
from nimbus_spawner.containers import PullProgress

__all__ = ["FAILED", "SESSIONS_NETWORK", "SessionEngine", "connect", "connect_usual", "said"]

log = logging.getLogger(__name__)

FAILED = (
    docker_errors.DockerException,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
)
"""What is raised for an engine that cannot be reached, or that refuses something."""

SESSIONS_NETWORK = "nimbus-sessions"
"""A bridge on which no container reaches another one."""

_NO_NEIGHBOURS = {"com.docker.network.bridge.enable_icc": "false"}
_THREADS = 8
_PULLS = 2
_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
_CONNECTIONS = 16
# A host that is cut off says nothing: the kernel asks, and gives up after 15 seconds.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000),
)

_Tell = Callable[[str], None]


class SessionEngine:
    """One engine: its client, its threads, its pulls and the ends of its containers."""

    def __init__(self, host: str, connected: Callable[[], docker.APIClient]) -> None:
        """Connect when first asked for something, in a thread that may block."""
        self.host = host
        self.executor = ThreadPoolExecutor(_THREADS, f"docker-{host}")
        self._pullers = ThreadPoolExecutor(_PULLS, f"docker-{host}-pull")
        self._connected = connected
        self._client: docker.APIClient | None = None
        self._lock = threading.Lock()
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._tellers: dict[str, list[_Tell]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._listener: threading.Thread | None = None

    @property
    def client(self) -> docker.APIClient:
        """Return the SDK's client; the first time this blocks."""
        with self._lock:
            if self._client is None:
                self._client = self._connected()
            return self._client

    async def do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client in a thread; raise what the SDK does."""
        loop = asyncio.get_running_loop()
        work = partial(self._do, method, *args, **kwargs)
        return await loop.run_in_executor(self.executor, work)

    async def remove(self, container_id: str) -> None:
        """Remove a container, running or not, and who lent it its mounts; or what is left."""
        claims = await self.do(
            "containers", all=True, filters={"label": f"{CLAIM_LABEL}={container_id}"}
        )
        for found in (container_id, *(each["Id"] for each in claims)):
            try:
                await self.do("remove_container", found, v=True, force=True)
            except docker_errors.APIError as error:
                # Somebody else removes it, or has.
                if error.status_code not in (404, 409):
                    raise

    async def ensure_sessions_network(self) -> None:
        """Have the network be there that keeps sessions from each other."""
        if not await self.do("networks", names=[f"^{SESSIONS_NETWORK}$"]):
            try:
                await self.do(
                    "create_network",
                    SESSIONS_NETWORK,
                    "bridge",
                    options=_NO_NEIGHBOURS,
                    check_duplicate=True,
                )
            except docker_errors.APIError as error:
                # Another start was quicker.
                if error.status_code != HTTPStatus.CONFLICT:
                    raise

    async def sessions(self, lease_id: str | None = None) -> list[SessionContainer]:
        """Return the containers of sessions, of one lease or of all, with those that are warm."""
        wanted = LEASE_LABEL if lease_id is None else f"{LEASE_LABEL}={lease_id}"
        found = await self.do("containers", all=True, filters={"label": wanted})
        return session_containers(found)

    async def remove_at_last(self, container_id: str) -> None:
        """Remove a container, again and again until the engine has done it."""
        pause = _PAUSE_SECONDS
        while True:
            try:
                return await self.remove(container_id)
            except FAILED as error:
                log.warning("Container %s: %s", container_id[:12], said(self.host, error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def pull(self, image: str, tell: _Tell) -> None:
        """Pull an image, once for all who ask meanwhile; tell each how far it is."""
        tellers = self._tellers.setdefault(image, [])
        if image not in self._pulls:
            task = self._pulls[image] = asyncio.create_task(self._pull(image, tellers))
            task.add_done_callback(lambda task: self._forget_pull(image, task))
        tellers.append(tell)
        try:
            # Who does not wait any longer does not end it for the others.
            await asyncio.shield(self._pulls[image])
        finally:
            tellers.remove(tell)

    @contextmanager
    def news(self, container_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set when a container ended, or that may have been missed."""
        event = self._news[container_id] = asyncio.Event()
        if self._listener is None:
            loop = asyncio.get_running_loop()
            self._listener = threading.Thread(
                target=self._listen, args=(loop,), name=f"docker-{self.host}-events", daemon=True
            )
            self._listener.start()
        try:
            yield event
        finally:
            if self._news.get(container_id) is event:
                del self._news[container_id]

    def _do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.client, method)(*args, **kwargs)

    async def _pull(self, image: str, tellers: list[_Tell]) -> None:
        loop = asyncio.get_running_loop()

        def told(text: str) -> None:
            for tell in tellers:
                tell(text)

        def work() -> None:
            progress = PullProgress()
            for event in self.client.pull(image, stream=True, decode=True):
                text = progress.note(event)
                if text:
                    loop.call_soon_threadsafe(told, text)

        try:
            await loop.run_in_executor(self._pullers, work)
        except (InvalidRequest, docker_errors.APIError) as error:
            words = error.message if isinstance(error, InvalidRequest) else error.explanation
            raise InvalidRequest(f"the image {image} cannot be pulled: {words or error}") from error
        except FAILED as error:
            why = said(self.host, error).message
            raise Unavailable(f"the image {image} was not pulled: {why}") from error

    def _forget_pull(self, image: str, task: asyncio.Task[None]) -> None:
        del self._pulls[image], self._tellers[image]
        if not task.cancelled():
            # Whoever waits is told; if nobody does any more, nobody needs to know.
            task.exception()

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell of ends as long as the hub lives; connect again whenever that breaks."""
        wanted = {"type": "container", "event": ["die", "destroy"], "label": LEASE_LABEL}
        pause = threading.Event()
        while not loop.is_closed():
            with suppress(*FAILED, RuntimeError):
                events = self.client.events(decode=True, filters=wanted)
                loop.call_soon_threadsafe(self._wake_all)
                for event in events:
                    loop.call_soon_threadsafe(self._wake, event["id"])
            pause.wait(_PAUSE_SECONDS)

    def _wake(self, container_id: str) -> None:
        if container_id in self._news:
            self._news[container_id].set()

    def _wake_all(self) -> None:
        for event in self._news.values():
            event.set()


class _Watchful(HTTPAdapter):
    """Connections over TCP that end when their host is cut off, also while it owes an answer."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make connections whose other end the kernel asks for."""
        options = [*urllib3.connection.HTTPConnection.default_socket_options, *_KEEPALIVE]
        super().init_poolmanager(*args, socket_options=options, **kwargs)

    def send(
        self, request: Any, stream: bool = False, timeout: Any = None, *args: Any, **kw: Any
    ) -> Any:
        """Send a request, and be quick to find that nobody is there."""
        return super().send(request, stream, (_CONNECT_SECONDS, timeout), *args, **kw)


def connect(engine: Engine, more: Mapping[str, Any]) -> docker.APIClient:
    """Return the SDK's client of a host's engine; ``more`` is for its constructor."""
    tls: TLSConfig | bool = False
    if engine.tls:
        folder = Path(engine.tls)
        pair = str(folder / "cert.pem"), str(folder / "key.pem")
        tls = TLSConfig(client_cert=pair, ca_cert=str(folder / "ca.pem"), verify=True)
    usual = {"base_url": engine.endpoint, "tls": tls, "use_ssh_client": True}
    return _negotiated({**usual, **more})


def connect_usual(tls: Mapping[str, Any], more: Mapping[str, Any]) -> docker.APIClient:
    """Return the SDK's client as DockerSpawner makes it: of the environment and its settings."""
    usual = {"tls": TLSConfig(**tls)} if tls else {}
    return _negotiated({**usual, **kwargs_from_env(), **more})


def said(host: str, error: Exception) -> NimbusError:
    """Return an error of an engine as a sentence for people."""
    if isinstance(error, docker_errors.APIError):
        return Unavailable(f"the Docker engine of host {host} says: {error.explanation or error}")
    if isinstance(error, docker_errors.DockerException):
        return Unavailable(f"the settings for containers on host {host} do not go: {error}")
    return Unavailable(f"the Docker engine of host {host} does not answer: {error}")


def _negotiated(wanted: Mapping[str, Any]) -> docker.APIClient:
    """Return a client of the engine's version, unless another is wanted."""
    if "version" in wanted and wanted["version"] != "auto":
        return _client(wanted)
    first = _client({**wanted, "version": docker.constants.DEFAULT_DOCKER_API_VERSION})
    try:
        version = first.version(api_version=False)["ApiVersion"]
    finally:
        first.close()
    return _client({**wanted, "version": version})


def _client(wanted: Mapping[str, Any]) -> docker.APIClient:
    client = docker.APIClient(**wanted)
    # Else REQUESTS_CA_BUNDLE in the environment would win over the engine's own authority.
    client.trust_env = False
    for scheme in ("http://", "https://"):
        client.mount(scheme, _Watchful(pool_maxsize=_CONNECTIONS))
    return client
