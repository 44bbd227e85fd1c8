"""The control layer over a simulated world, without HTTP: for the tests of its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nimbus_hub.control.control import Control
from nimbus_hub.control.settings import Settings
from nimbus_hub.executors.base import Executor
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.model.host import Gpu, Host
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.replica import Replica
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.store.snapshots import SnapshotStore
from nimbus_hub.store.store import Store

GIB = 2**30
GPU_1 = Host("gpu-1", 8000, 32 * GIB, (Gpu(0, "A100"),))
CPU_1 = Host("cpu-1", 8000, 32 * GIB)


@dataclass
class HandClock:
    """Stands still until it is moved."""

    time: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


@dataclass
class Servers:
    """Notebook servers that stop when asked to."""

    alive: set[tuple[str, str]] = field(default_factory=set)
    stopped: list[tuple[str, str]] = field(default_factory=list)
    fault: Exception | None = None

    async def stop(self, owner: str, name: str) -> bool:
        if self.fault is not None:
            raise self.fault
        self.stopped.append((owner, name))
        return True

    async def running(self) -> frozenset[tuple[str, str]]:
        return frozenset(self.alive)


class World:
    """A service, and what it acts on."""

    def __init__(self, state: Path, *executors: Executor) -> None:
        self.clock = HandClock()
        self.executor = FakeExecutor((CPU_1, GPU_1), clock=self.clock)
        self.servers = Servers()
        self.control = Control(
            store=Store.open(f"sqlite:///{state / 'nimbus.sqlite'}"),
            snapshots=SnapshotStore(state / "snapshots"),
            executors=executors or [self.executor],
            sessions=self.servers,
            settings=Settings(api_url="http://hub", job_token_secret=b"secret"),
            clock=self.clock,
        )
        self.store = self.control.records.store
        self.reconciler = self.control.reconciler

    def skip(self, **ahead: int) -> None:
        self.clock.time += timedelta(**ahead)

    async def passes(self, times: int = 3) -> None:
        for _ in range(times):
            await self.reconciler.make_pass()
            await self.reconciler.settle()

    async def submit(self, framework: str = "script", *, workers: int = 1, retries: int = 0) -> Job:
        launch = Launch(("python", "train.py"), framework, retries=retries)
        view = await self.control.jobs.submit("ada", launch, [SlotGroup("worker", workers)])
        return view.job

    async def running(self, workers: int = 1, retries: int = 0) -> Job:
        job = await self.submit(workers=workers, retries=retries)
        await self.passes()
        return self.job(job)

    async def session(self, name: str = "") -> Lease:
        """Return a granted lease of a session."""
        draft = self.control.leases.draft(
            LeaseKind.SESSION, "ada", [SlotGroup("notebook")], name=name
        )
        lease = await self.control.leases.request(draft)
        await self.passes(1)
        self.servers.alive.add(("ada", name))
        return self.lease(lease)

    def job(self, job: Job) -> Job:
        return self.store.job(job.id)

    def lease(self, lease: Lease) -> Lease:
        return self.store.lease(lease.id)

    def replicas(self, job: Job) -> tuple[Replica, ...]:
        return self.store.replicas(job.id, self.job(job).attempt)


async def until(is_so: Callable[[], object], seconds: float = 5.0) -> None:
    """Let the others work until something is so."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - any condition, also without an event
            await asyncio.sleep(0.001)
