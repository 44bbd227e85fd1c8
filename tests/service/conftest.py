"""A real service on a free port of this machine: store, control, API; no hub."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from nimbus_hub.api.describe import description
from nimbus_hub.api.identity import Caller, Identity, JobIdentity, Scope
from nimbus_hub.api.routes import tornado_routes
from nimbus_hub.api.services import Services
from nimbus_hub.client import Client
from nimbus_hub.control.control import Control
from nimbus_hub.control.notices import Notices
from nimbus_hub.control.settings import Settings
from nimbus_hub.executors.base import Executor
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.model.host import Gpu, Host
from nimbus_hub.notifiers.registry import read_notifiers
from nimbus_hub.store.sent import Sent
from nimbus_hub.store.snapshots import SnapshotStore
from nimbus_hub.store.store import Store

GIB = 2**30
PREFIX = "/services/nimbus"
EVERYTHING = frozenset(Scope)
USER = frozenset({Scope.READ, Scope.USE})
CALLERS = {
    "ada-token": Caller("ada", USER),
    "bob-token": Caller("bob", USER),
    "reader-token": Caller("ada", frozenset({Scope.READ})),
    "nobody-token": Caller("eve", frozenset()),
    "admin-token": Caller("nimbus-spawner", EVERYTHING),
}


class KnownTokens:
    """Stands for the hub: the callers above by their tokens."""

    async def caller(self, token: str) -> Caller | None:
        return CALLERS.get(token)


@dataclass
class Servers:
    """The notebook servers a hub would run: stopped when asked to, in two steps."""

    alive: set[tuple[str, str]] = field(default_factory=set)
    stopping: list[tuple[str, str]] = field(default_factory=list)

    async def stop(self, owner: str, name: str) -> bool:
        self.stopping.append((owner, name))
        self.alive.discard((owner, name))
        return self.stopping.count((owner, name)) > 1

    async def running(self) -> frozenset[tuple[str, str]]:
        return frozenset(self.alive)


@dataclass
class SteppedClock:
    """The machine's clock, moved forward by the test."""

    ahead: timedelta = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Service:
    """A service that runs in a thread of its own; killed and started again at will."""

    state: Path
    executor: Executor
    servers: Servers
    clock: SteppedClock
    database_url: str
    url: str = ""
    control: Control | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None
    _over: asyncio.Event | None = None
    port: int = 0
    clients: list[Client] = field(default_factory=list)
    notifiers: dict[str, object] = field(default_factory=dict)
    environments: dict[str, str] = field(default_factory=lambda: {"default": ""})

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(20)

    def stop(self) -> None:
        """End at once, as a crash would: nothing is told to anybody."""
        assert self._loop is not None
        assert self._over is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)

    def client(self, token: str) -> Client:
        client = Client(self.url, token)
        self.clients.append(client)
        return client

    def raw(self, token: str | None) -> httpx.Client:
        headers = {"Authorization": f"token {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def do(self, action: Callable[[], object]) -> None:
        """Run something in the service's thread, as an executor's own news would."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(action)

    def skip(self, ahead: timedelta) -> None:
        """Let time pass."""
        self.clock.ahead += ahead
        assert self.control is not None
        self.do(self.control.reconciler.wake)

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        settings = Settings(
            api_url=self.url,
            environments=self.environments,
            job_token_secret=b"secret of the tests",
            save=timedelta(seconds=1),
            stop_grace=timedelta(seconds=2),
        )
        snapshots = SnapshotStore(self.state / "snapshots", 10 * 2**20)
        self.control = Control(
            store=Store.open(self.database_url),
            snapshots=snapshots,
            executors=[self.executor],
            sessions=self.servers,
            settings=settings,
            clock=self.clock,
        )
        jobs = JobIdentity(settings.job_token_secret, self.control.records.job)
        identities: tuple[Identity, ...] = (jobs, KnownTokens())
        web = Application(
            tornado_routes(PREFIX, Services(self.control, identities)), openapi=description()
        )
        sockets = bind_sockets(self.port, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}{PREFIX}"
        server = HTTPServer(web)
        server.add_sockets(sockets)
        await self.control.reconciler.prepare()
        acting = asyncio.create_task(self.control.reconciler.run())
        telling = asyncio.create_task(self._notices(self.control).run())
        await asyncio.sleep(0)
        ready.set()
        await self._over.wait()
        server.stop()
        for task in (acting, telling):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await server.close_all_connections()
        self.control.close()

    def _notices(self, control: Control) -> Notices:
        routes = read_notifiers(self.notifiers)
        sent = Sent(self.state / "notices")
        site = "https://hub.example.org/"
        return Notices(control.records, control.leases, control.metrics, routes, sent, site)


def hosts() -> tuple[Host, ...]:
    gpus = tuple(Gpu(index, "A100") for index in range(4))
    return (
        Host("gpu-1", 8000, 32 * GIB, gpus),
        Host("cpu-1", 8000, 32 * GIB),
    )


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def make_service(tmp_path: Path, clock: SteppedClock) -> Iterator[Callable[[Executor], Service]]:
    made: list[Service] = []

    def make(executor: Executor) -> Service:
        url = f"sqlite:///{tmp_path / 'nimbus.sqlite'}"
        service = Service(tmp_path, executor, Servers(), clock, url)
        service.start()
        made.append(service)
        return service

    yield make
    for service in made:
        for client in service.clients:
            client.close()
        if service._thread is not None and service._thread.is_alive():
            service.stop()


@pytest.fixture
def executor() -> FakeExecutor:
    return FakeExecutor(hosts())


@pytest.fixture
def service(make_service: Callable[[Executor], Service], executor: FakeExecutor) -> Service:
    return make_service(executor)
