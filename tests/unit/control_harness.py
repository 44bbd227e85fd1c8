"""The control layer over a simulated world, without HTTP: for the tests of its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nimbus_hub.control.cluster_file import ClusterFile
from nimbus_hub.control.control import Control
from nimbus_hub.control.scheduling import Policy, ShippedPolicy
from nimbus_hub.control.settings import Settings
from nimbus_hub.executors.base import Executor
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.heartbeat import Heartbeat
from nimbus_hub.model.host import Gpu, Host
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.replica import Replica
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.decisions import Plan
from nimbus_hub.scheduler.snapshot import Snapshot
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


class HandFile(ClusterFile):
    """Says what it is given."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.error = ""


class CountedPolicy(ShippedPolicy):
    """Counts how often it was asked for a plan, and keeps what it was told and answered."""

    def __init__(self) -> None:
        self.seen: list[tuple[Snapshot, Plan]] = []

    def plan(self, snapshot: Snapshot, now: datetime) -> Plan:
        decided = ShippedPolicy().plan(snapshot, now)
        self.seen.append((snapshot, decided))
        return decided


class World:
    """A service, and what it acts on."""

    def __init__(
        self,
        state: Path,
        *executors: Executor,
        hosts: Sequence[Host] = (CPU_1, GPU_1),
        cluster: Cluster | None = None,
        policy: Policy | None = None,
        keep_jobs: timedelta | None = None,
    ) -> None:
        self.clock = HandClock()
        self.asleep = timedelta(0)
        self.executor = FakeExecutor(hosts, clock=self.clock)
        self.servers = Servers()
        self.file = HandFile(cluster or Cluster())
        self.control = Control(
            store=Store.open(f"sqlite:///{state / 'nimbus.sqlite'}"),
            snapshots=SnapshotStore(state / "snapshots"),
            executors=executors or [self.executor],
            sessions=self.servers,
            settings=Settings("http://hub", b"secret", keep_jobs=keep_jobs),
            clock=self.clock,
            heartbeat=lambda: Heartbeat(self.clock.now(), "a-boot", self.asleep.total_seconds()),
            cluster_file=self.file,
            policy=policy,
        )
        self.store = self.control.records.store
        self.reconciler = self.control.reconciler

    def skip(self, **ahead: int) -> None:
        self.clock.time += timedelta(**ahead)

    def sleep(self, **asleep: int) -> None:
        """Let the machine sleep, and the service with it."""
        self.asleep += timedelta(**asleep)
        self.skip(**asleep)

    async def passes(self, times: int = 3) -> None:
        for _ in range(times):
            await self.reconciler.make_pass()
            await self.reconciler.settle()

    async def settled(self) -> None:
        """Let the others of a failed gang have their say, and what follows happen."""
        await self.passes(1)
        self.skip(seconds=1)
        await self.passes(4)

    async def submit(
        self,
        framework: str = "script",
        *,
        workers: int = 1,
        retries: int = 0,
        owner: str = "ada",
        cpus: int = 1000,
        gpus: int = 0,
        length: timedelta | None = None,
        wishes: Wishes | None = None,
    ) -> Job:
        launch = Launch(("python", "train.py"), framework, retries=retries)
        group = SlotGroup("worker", workers, cpus, gpus=gpus)
        view = await self.control.jobs.submit(
            owner, launch, [group], length=length, wishes=wishes or Wishes()
        )
        return view.job

    async def running(self, workers: int = 1, retries: int = 0, **wished: Any) -> Job:
        job = await self.submit(workers=workers, retries=retries, **wished)
        await self.passes()
        return self.job(job)

    async def session(self, name: str = "", *, gpus: int = 0, **wished: Any) -> Lease:
        """Return the lease of a session, granted if it could be."""
        draft = self.control.leases.draft(
            LeaseKind.SESSION, "ada", [SlotGroup("notebook", gpus=gpus)], name=name, **wished
        )
        lease = await self.control.leases.request(draft)
        await self.passes(1)
        self.servers.alive.add(("ada", name))
        return self.lease(lease)

    def job(self, job: Job) -> Job:
        return self.store.job(job.id)

    def lease(self, lease: Lease) -> Lease:
        return self.store.lease(lease.id)

    def lease_of(self, job: Job) -> Lease:
        """Return the lease a job has now."""
        return self.store.lease(self.job(job).lease_id)

    def replicas(self, job: Job) -> tuple[Replica, ...]:
        return self.store.replicas(job.id, self.job(job).attempt)


async def until(is_so: Callable[[], object], seconds: float = 5.0) -> None:
    """Let the others work until something is so."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - any condition, also without an event
            await asyncio.sleep(0.001)
