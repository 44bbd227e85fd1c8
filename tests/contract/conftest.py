"""Executors under test, each with a driver that makes replicas do what a test wants."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio

from nimbus_hub.executors.accounts import Account, Accounts
from nimbus_hub.executors.base import Executor
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.executors.limits import NoLimits
from nimbus_hub.executors.local import LocalExecutor
from nimbus_hub.model.host import Host
from nimbus_hub.model.replica import ReplicaSpec, ReplicaState, ReplicaStatus
from tests.contract.held import Held
from tests.contract.snapshots import MemorySnapshots

BOUND_SECONDS = 30.0
HOST = Host("local", cpus_milli=4000, memory_bytes=2**33)

# Runs what it reads from a pipe, line by line, after it has noted that it was begun.
PUPPET = """
import os, signal, sys
open(sys.argv[1] + ".begun", "a").write("x")
for line in open(sys.argv[1]):
    exec(line)
"""


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for a condition; fail after a bound."""
    async with asyncio.timeout(BOUND_SECONDS):
        while not condition():  # noqa: ASYNC110 (files and processes have no event)
            await asyncio.sleep(0.005)


async def until(executor: Executor, replica_id: str, *states: ReplicaState) -> ReplicaStatus:
    """Poll until a replica is in one of these states; fail after a bound."""
    async with asyncio.timeout(BOUND_SECONDS):
        while (status := await executor.poll(replica_id)).state not in states:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return status


async def ended(executor: Executor, replica_id: str) -> ReplicaStatus:
    """Poll until a replica is over."""
    return await until(executor, replica_id, ReplicaState.EXITED, ReplicaState.LOST)


class Driver(Protocol):
    """An executor, and the hand in its puppets."""

    @property
    def executor(self) -> Executor:
        """Return the executor under test."""

    def spec(self, replica_id: str) -> ReplicaSpec:
        """Return the spec of a puppet."""

    def starts(self, replica_id: str) -> int:
        """Return how often its program was begun."""

    async def write(self, replica_id: str, data: bytes) -> None:
        """Let it write to its output, and wait until it has."""

    async def exit(self, replica_id: str, code: int) -> None:
        """Let it end with an exit code, or minus a signal."""

    async def lose(self, replica_id: str) -> None:
        """Let it vanish without a word."""

    def put(self, replica_id: str, path: str, data: bytes) -> None:
        """Let it write a file below its job's directory."""


@dataclass
class FakeDriver:
    """Drives the fake by its own methods."""

    executor: FakeExecutor = field(default_factory=lambda: FakeExecutor([HOST]))

    def spec(self, replica_id: str) -> ReplicaSpec:
        return ReplicaSpec(replica_id, "job-1", "ada", "local", ("puppet",))

    def starts(self, replica_id: str) -> int:
        return sum(spec.id == replica_id for spec in self.executor.started)

    async def write(self, replica_id: str, data: bytes) -> None:
        self.executor.write(replica_id, data)

    async def exit(self, replica_id: str, code: int) -> None:
        self.executor.exit(replica_id, code)

    async def lose(self, replica_id: str) -> None:
        self.executor.lose(replica_id)

    def put(self, replica_id: str, path: str, data: bytes) -> None:
        self.executor.put(replica_id, path, data)


@dataclass
class LocalDriver:
    """Drives real processes through a named pipe each."""

    directory: Path
    executor: LocalExecutor
    account: Account
    snapshots: MemorySnapshots
    written: dict[str, int] = field(default_factory=dict)
    pipes: dict[str, int] = field(default_factory=dict)

    def spec(self, replica_id: str) -> ReplicaSpec:
        pipe = self.directory / replica_id
        if not pipe.exists():
            os.mkfifo(pipe)
        # Opened for both ways, it needs no partner and does not end while the test runs.
        self.pipes.setdefault(replica_id, os.open(pipe, os.O_RDWR))
        argv = ("python", "-I", "-S", "-c", PUPPET, str(pipe))
        return ReplicaSpec(replica_id, "job-1", self.account.name, "local", argv)

    def command(self, replica_id: str, *argv: str, **changes: Any) -> ReplicaSpec:
        """Return the spec of any program."""
        made = ReplicaSpec(replica_id, "job-1", self.account.name, "local", argv)
        return replace(made, **changes)

    def starts(self, replica_id: str) -> int:
        begun = self.directory / f"{replica_id}.begun"
        return len(begun.read_text()) if begun.exists() else 0

    async def do(self, replica_id: str, line: str) -> None:
        os.write(self.pipes[replica_id], f"{line}\n".encode())

    async def write(self, replica_id: str, data: bytes) -> None:
        await self.do(replica_id, f"os.write(1, {data!r})")
        size = self.written[replica_id] = self.written.get(replica_id, 0) + len(data)
        log = self.record(replica_id) / "output.log"
        await eventually(lambda: log.exists() and log.stat().st_size >= size)

    async def exit(self, replica_id: str, code: int) -> None:
        line = f"os._exit({code})" if code >= 0 else f"os.kill(os.getpid(), {-code})"
        await self.do(replica_id, line)

    async def lose(self, replica_id: str) -> None:
        await self.do(replica_id, "os.kill(os.getppid(), signal.SIGKILL)")

    def put(self, replica_id: str, path: str, data: bytes) -> None:
        target = self.account.home / "nimbus/job-1" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def record(self, replica_id: str) -> Path:
        return self.directory / "state" / "replicas" / replica_id

    async def output(self, replica_id: str) -> str:
        return (await self.executor.read_output(replica_id, 0, 2**20)).data.decode()

    def another(self) -> LocalExecutor:
        """Return an executor as the next service would have it, over the same state."""
        return local_executor(self.directory, self.account, self.snapshots)

    async def close(self) -> None:
        """End what still runs, and wait until it is gone."""
        cleaner = self.another()
        records = self.directory / "state" / "replicas"
        ids = [path.name for path in records.iterdir()] if records.exists() else []
        for replica_id in ids:
            await cleaner.stop(replica_id, 0)
        for replica_id in ids:
            await ended(cleaner, replica_id)
        await cleaner.close()
        await self.executor.close()
        for descriptor in self.pipes.values():
            os.close(descriptor)


def local_executor(directory: Path, account: Account, snapshots: MemorySnapshots) -> LocalExecutor:
    """Return an executor as a person's own service has it."""
    return LocalExecutor(
        directory / "state",
        {"default": Path(sys.executable).parent},
        snapshots,
        [HOST],
        accounts=Accounts(account),
        limits=NoLimits(),
    )


@pytest_asyncio.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalDriver]:
    """Give the local executor with its records and homes in a directory of the test."""
    account = replace(Account.current(), home=tmp_path)
    snapshots = MemorySnapshots({"abc": {"code/train.py": "# train\n"}})
    executor = local_executor(tmp_path, account, snapshots)
    driver = LocalDriver(tmp_path, executor, account, snapshots)
    yield driver
    await driver.close()


@pytest.fixture
def held(local: LocalDriver) -> Held:
    """Give the local executor as one that keeps holders warm."""
    return Held(local, until, ended)


@pytest.fixture(params=["fake", "local"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Give each executor in turn."""
    if request.param == "fake":
        return FakeDriver()
    found: LocalDriver = request.getfixturevalue("local")
    return found


@pytest.fixture(name="eventually")
def _eventually() -> Callable[[Callable[[], object]], object]:
    return eventually


@pytest.fixture(name="until")
def _until() -> Callable[..., object]:
    return until


@pytest.fixture(name="ended")
def _ended() -> Callable[..., object]:
    return ended
