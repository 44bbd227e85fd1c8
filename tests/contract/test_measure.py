"""What replicas used, measured on real processes: CPU time is the kernel's to tell."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from nimbus_hub.executors.accounts import Accounts
from nimbus_hub.executors.limits import NoLimits, find_limits
from nimbus_hub.executors.local import LocalExecutor
from nimbus_hub.model.replica import ReplicaState, ReplicaStatus, Usage
from tests.contract.snapshots import MemorySnapshots

if TYPE_CHECKING:
    from tests.contract.conftest import Driver, LocalDriver

    Until = Callable[..., Awaitable[ReplicaStatus]]

BURN = """
import os, sys, time
def burn(seconds):
    while time.process_time() < seconds: pass
if os.fork() == 0:
    burn(0.3)
    os._exit(0)
os.wait()
burn(0.3)
print("burnt", flush=True)
sys.stdin.close()
time.sleep(float(sys.argv[1]))
"""
"""Half of it in a child that has ended when the other half is done."""


@pytest_asyncio.fixture(params=["processes", "control groups"])
async def measured(
    request: pytest.FixtureRequest, local: LocalDriver
) -> AsyncIterator[LocalExecutor]:
    """Give the local executor, without control groups and with those of this machine."""
    limits = NoLimits() if request.param == "processes" else find_limits()
    if request.param == "control groups" and isinstance(limits, NoLimits):
        pytest.skip("no control groups may be made here")
    executor = LocalExecutor(
        local.directory / "state",
        {"default": Path(sys.executable).parent},
        MemorySnapshots(),
        accounts=Accounts(local.account),
        limits=limits,
    )
    yield executor
    await executor.close()


async def burnt(local: LocalDriver, replica_id: str) -> None:
    async with asyncio.timeout(30):
        while "burnt" not in await local.output(replica_id):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_cpu_time_counts_children_that_have_ended(
    local: LocalDriver, measured: LocalExecutor, ended: Until
) -> None:
    await measured.start(local.command("r1", "python", "-I", "-S", "-c", BURN, "60"))
    await burnt(local, "r1")
    used = (await measured.measure(["r1", "r2"]))["r1"]
    assert 0.55 < used.cpu_seconds < 3.0
    assert used.memory_bytes > 2**20
    assert used.gpu_seconds == 0
    # A service that was restarted finds the same, and the end adds only what came after.
    adopted = local.another()
    again = (await adopted.measure(["r1"]))["r1"]
    await measured.stop("r1", 5)
    await ended(measured, "r1")
    after = await adopted.measure(["r1"])
    assert used.cpu_seconds <= again.cpu_seconds <= after["r1"].cpu_seconds < 3.0
    assert (await local.executor.measure(["r1"]))["r1"].cpu_seconds > 0.55
    await adopted.close()


async def test_a_short_replica_is_measured_after_its_end(
    local: LocalDriver, measured: LocalExecutor, ended: Until
) -> None:
    await measured.start(local.command("r1", "python", "-I", "-S", "-c", BURN, "0"))
    await ended(measured, "r1")
    assert 0.55 < (await measured.measure(["r1"]))["r1"].cpu_seconds < 3.0


async def test_what_was_never_started_is_left_out(driver: Driver, until: Until) -> None:
    assert await driver.executor.measure(["r1"]) == {}
    assert await driver.executor.measure([]) == {}


async def test_a_lost_replica_keeps_what_was_seen_of_it(local: LocalDriver, ended: Until) -> None:
    executor = local.executor
    await executor.start(local.spec("r1"))
    await local.write("r1", b"x")
    before = await executor.measure(["r1"])
    await local.lose("r1")
    assert (await ended(executor, "r1")).state is ReplicaState.LOST
    assert (await executor.measure(["r1"]))["r1"].cpu_seconds >= before["r1"].cpu_seconds
    assert await local.another().measure(["r1"]) == {}


async def test_a_replica_that_could_not_run_used_nothing(local: LocalDriver, ended: Until) -> None:
    await local.executor.start(local.command("r1", "no-such-program"))
    await ended(local.executor, "r1")
    found = (await local.executor.measure(["r1"]))["r1"]
    assert found == Usage(pytest.approx(0.0, abs=0.2))


async def test_a_run_on_a_holder_is_in_the_holders_figures_alone(
    local: LocalDriver, measured: LocalExecutor, until: Until, ended: Until
) -> None:
    (local.directory / "burn.py").write_text(BURN)
    await measured.start(local.command("h1", "python", modules=()))
    await until(measured, "h1", ReplicaState.RUNNING)
    before = (await measured.measure(["h1"]))["h1"].cpu_seconds
    argv = ("python", str(local.directory / "burn.py"), "0")
    run = local.command("r1", *argv, holder="h1", job_id="job-2", workspace="l-1")
    await measured.start(run)
    await ended(measured, "r1")
    assert "burnt" in await local.output("r1")
    found = await measured.measure(["h1", "r1"])
    assert list(found) == ["h1"]
    assert 0.55 < found["h1"].cpu_seconds - before < 3.0
    await measured.stop("h1", 5)
    await ended(measured, "h1")
