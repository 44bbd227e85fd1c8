"""Faults between a holder and the runs in its place: what is slow, full or comes too early."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest
import pytest_asyncio

from nimbus_hub.executors.accounts import Accounts
from nimbus_hub.executors.limits import ReplicaLimits
from nimbus_hub.executors.local import LocalExecutor
from nimbus_hub.executors.processes import Process
from nimbus_hub.executors.records import Record
from nimbus_hub.model.replica import ReplicaState
from tests.contract.conftest import BOUND_SECONDS, HOST, LocalDriver
from tests.contract.held import Held

Eventually = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.mark.parametrize("holder", [None, "h1"])
async def test_input_may_end_before_a_run_begins(held: Held, holder: str | None) -> None:
    await held.hold()
    held.files["run.py"] = "import sys\nprint(len(sys.stdin.read()))\n"
    spec = held.spec("python", "run.py", holder=holder, has_input=True)
    record = Record(held.local.record(spec.id))
    record.make()
    record.make_input()
    await held.local.executor.write_input(spec.id, b"")
    await held.local.executor.start(spec)
    status = await held.ended(held.local.executor, spec.id)
    assert (status.exit_code, await held.local.output(spec.id)) == (0, "0\n")


async def test_a_refusal_is_recorded_as_soon_as_there_is_room(
    held: Held, eventually: Eventually
) -> None:
    await held.hold()
    held.files["run.py"] = "import time; time.sleep(1000)"
    first = await held.begin("python", "run.py")
    spec = held.spec("python", "run.py")
    # No file can be written where this is: so is a full disk, for this file alone.
    full = held.local.record(spec.id) / ".status.json.partial"
    full.mkdir(parents=True)
    told: list[str] = []
    held.local.executor.watch(told.append)
    await held.local.executor.start(spec)
    await eventually(lambda: spec.id in told)
    assert (await held.local.executor.poll(spec.id)).state is ReplicaState.STARTING
    # It is found again, as by a service that was started anew.
    assert (await held.local.executor.poll(spec.id)).state is ReplicaState.STARTING
    errors = held.local.record("h1") / "supervisor.log"
    await eventually(lambda: errors.read_text().count("cannot record the end") >= 2)
    assert told.count(spec.id) == 1
    full.rmdir()
    await eventually(lambda: told.count(spec.id) == 2)
    status = await held.local.executor.poll(spec.id)
    assert (status.state, status.exit_code, status.reason) == (
        ReplicaState.EXITED,
        None,
        "another run is going on where it was to run",
    )
    assert (await held.local.executor.poll(first.id)).state is ReplicaState.RUNNING


@dataclass
class SlowGroups:
    """Directories for groups. To make a run's takes until its holder has begun it after all."""

    directory: Path
    holder: Process | None = None

    def create(self, replica_id: str, cpus_milli: int, memory_bytes: int) -> ReplicaLimits:
        """Make one."""
        group = self.directory / f"group-{replica_id}"
        group.mkdir()
        if self.holder is not None:
            self.holder.send(signal.SIGCONT)
            record = Record(self.directory / "state" / "replicas" / replica_id)
            end = monotonic() + BOUND_SECONDS
            while record.read().supervisor is None and monotonic() < end:
                sleep(0.005)
        return ReplicaLimits((group,))


@pytest_asyncio.fixture
async def slow(local: LocalDriver) -> AsyncIterator[SlowGroups]:
    """Give the groups of the local executor, which from now on are these."""
    groups = SlowGroups(local.directory)
    await local.executor.close()
    local.executor = LocalExecutor(
        local.directory / "state",
        {"default": Path(sys.executable).parent},
        local.snapshots,
        [HOST],
        accounts=Accounts(local.account),
        limits=groups,
    )
    yield groups


async def test_no_group_is_left_of_a_run_that_its_holder_begins_late(
    held: Held, slow: SlowGroups, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimbus_hub.executors.local.HAND_OVER_SECONDS", 0.2)
    await held.hold()
    slow.holder = Record(held.local.record("h1")).read().supervisor
    assert slow.holder is not None
    slow.holder.send(signal.SIGSTOP)
    held.files["run.py"] = "print('run')"
    status, output = await held.run("python", "run.py")
    assert (status.exit_code, output, held.is_held("r1")) == (0, "run\n", True)
    own = slow.directory / "group-r1"
    await eventually(lambda: not own.exists())
    record = Record(held.local.record("r1"))
    assert record.groups() == Record(held.local.record("h1")).groups()
