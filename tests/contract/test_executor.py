"""The contract of executors, held by each of them. Real processes, since that is the point."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING

import pytest

from nimbus_hub.errors import Conflict
from nimbus_hub.model.replica import LogChunk, ReplicaState, ReplicaStatus

if TYPE_CHECKING:
    from tests.contract.conftest import Driver

    Until = Callable[..., Awaitable[ReplicaStatus]]

CREATED = ReplicaStatus(ReplicaState.CREATED)
ON_ITS_WAY = {ReplicaState.PULLING, ReplicaState.STARTING, ReplicaState.RUNNING}


async def running(driver: Driver, until: Until, replica_id: str) -> ReplicaStatus:
    await driver.executor.start(driver.spec(replica_id))
    return await until(driver.executor, replica_id, ReplicaState.RUNNING)


async def test_hosts_are_the_declared_ones(driver: Driver) -> None:
    assert [host.name for host in await driver.executor.hosts()] == ["local"]


async def test_what_was_never_started_is_created(driver: Driver) -> None:
    assert await driver.executor.poll("r1") == CREATED
    assert await driver.executor.read_output("r1", 0, 100) == LogChunk(0, b"", False)
    assert await driver.executor.read_output("r1", -10, 100) == LogChunk(0, b"", False)


async def test_a_started_replica_is_on_its_way_at_once_and_then_runs(
    driver: Driver, until: Until
) -> None:
    await driver.executor.start(driver.spec("r1"))
    assert (await driver.executor.poll("r1")).state in ON_ITS_WAY
    status = await until(driver.executor, "r1", ReplicaState.RUNNING)
    assert status.started_at is not None
    assert status.started_at.tzinfo is UTC
    assert (status.exit_code, status.ended_at, status.reason) == (None, None, "")
    assert status.directory.endswith("nimbus/job-1")


async def test_starting_twice_starts_once(driver: Driver, until: Until, ended: Until) -> None:
    spec = driver.spec("r1")
    await asyncio.gather(*(driver.executor.start(spec) for _ in range(5)))
    await until(driver.executor, "r1", ReplicaState.RUNNING)
    await driver.executor.start(spec)
    await driver.write("r1", b"alive")
    await driver.exit("r1", 0)
    before = await ended(driver.executor, "r1")
    await driver.executor.start(spec)
    assert await ended(driver.executor, "r1") == before
    assert driver.starts("r1") == 1


@pytest.mark.parametrize("code", [0, 3, 255, -9, -11])
async def test_the_exit_code_is_the_process_own(
    driver: Driver, until: Until, ended: Until, code: int
) -> None:
    started_at = (await running(driver, until, "r1")).started_at
    await driver.exit("r1", code)
    status = await ended(driver.executor, "r1")
    assert (status.state, status.exit_code) == (ReplicaState.EXITED, code)
    assert status.started_at == started_at
    assert status.ended_at is not None
    assert status.ended_at.tzinfo is UTC
    assert started_at is not None
    assert started_at <= status.ended_at


async def test_a_stopped_replica_ends(driver: Driver, until: Until, ended: Until) -> None:
    await running(driver, until, "r1")
    await driver.executor.stop("r1", 10)
    await driver.executor.stop("r1", 10)
    status = await ended(driver.executor, "r1")
    assert (status.state, status.exit_code, status.reason) == (
        ReplicaState.EXITED,
        -15,
        "stopped",
    )


async def test_stopping_what_is_gone_succeeds(driver: Driver, until: Until, ended: Until) -> None:
    await running(driver, until, "r1")
    await driver.exit("r1", 7)
    before = await ended(driver.executor, "r1")
    await driver.executor.stop("r1", 10)
    assert await driver.executor.poll("r1") == before


async def test_what_is_stopped_before_its_start_never_starts(driver: Driver, ended: Until) -> None:
    await driver.executor.stop("r1", 10)
    await driver.executor.start(driver.spec("r1"))
    status = await ended(driver.executor, "r1")
    assert (status.state, status.exit_code) == (ReplicaState.EXITED, None)
    assert status.reason == "stopped before it was started"
    assert driver.starts("r1") == 0
    assert await driver.executor.read_output("r1", 0, 10) == LogChunk(0, b"", True)


async def test_output_is_read_from_any_offset(driver: Driver, until: Until, ended: Until) -> None:
    await running(driver, until, "r1")
    await driver.write("r1", b"one two")
    read = driver.executor.read_output
    assert await read("r1", 0, 3) == LogChunk(0, b"one", False)
    assert await read("r1", 4, 100) == LogChunk(4, b"two", False)
    assert await read("r1", -3, 2) == LogChunk(4, b"tw", False)
    assert await read("r1", -100, 100) == LogChunk(0, b"one two", False)
    assert await read("r1", 100, 10) == LogChunk(100, b"", False)
    await driver.write("r1", b" three")
    await driver.exit("r1", 1)
    await ended(driver.executor, "r1")
    assert await read("r1", 0, 3) == LogChunk(0, b"one", False)
    assert await read("r1", 8, 100) == LogChunk(8, b"three", True)
    assert await read("r1", -5, 100) == LogChunk(8, b"three", True)
    assert await read("r1", 13, 10) == LogChunk(13, b"", True)


async def test_a_replica_that_vanishes_is_lost_with_a_reason(
    driver: Driver, until: Until, ended: Until
) -> None:
    await running(driver, until, "r1")
    await driver.lose("r1")
    status = await ended(driver.executor, "r1")
    assert (status.state, status.exit_code) == (ReplicaState.LOST, None)
    assert re.match(r"its \w+ (was|went) ", status.reason)
    assert status.ended_at is not None
    assert await driver.executor.poll("r1") == status
    await driver.executor.stop("r1", 1)
    assert (await driver.executor.read_output("r1", 0, 10)).is_complete


async def test_changes_are_told_to_who_watches(
    driver: Driver, until: Until, eventually: Callable[[Callable[[], object]], Awaitable[None]]
) -> None:
    told: list[str] = []
    driver.executor.watch(told.append)
    await driver.executor.start(driver.spec("r1"))
    await eventually(lambda: told)
    await until(driver.executor, "r1", ReplicaState.RUNNING)
    told.clear()
    await driver.exit("r1", 0)
    await eventually(lambda: told)
    assert set(told) == {"r1"}
    assert (await driver.executor.poll("r1")).state is ReplicaState.EXITED


async def test_who_takes_no_input_or_is_over_is_not_written_to(
    driver: Driver, until: Until, ended: Until
) -> None:
    with pytest.raises(Conflict):
        await driver.executor.write_input("r1", b"x")
    await running(driver, until, "r1")
    for data in (b"x", b""):
        with pytest.raises(Conflict):
            await driver.executor.write_input("r1", data)
    await driver.executor.start(replace(driver.spec("r2"), has_input=True))
    await until(driver.executor, "r2", ReplicaState.RUNNING)
    await driver.executor.write_input("r2", b"x")
    await driver.exit("r2", 0)
    await ended(driver.executor, "r2")
    with pytest.raises(Conflict):
        await driver.executor.write_input("r2", b"x")


async def test_a_run_needs_no_holder_to_start(driver: Driver, until: Until, ended: Until) -> None:
    run = replace(driver.spec("r1"), holder="h1", workspace="gang")
    await driver.executor.start(run)
    await until(driver.executor, "r1", ReplicaState.RUNNING)
    await driver.exit("r1", 3)
    assert (await ended(driver.executor, "r1")).exit_code == 3


async def test_a_holder_runs_until_it_is_stopped(
    driver: Driver, until: Until, ended: Until
) -> None:
    holder = replace(driver.spec("h1"), argv=("python",), modules=("fractions", "no_such_module"))
    await driver.executor.start(holder)
    await until(driver.executor, "h1", ReplicaState.RUNNING)
    run = replace(driver.spec("r1"), holder="h1", workspace="gang")
    await driver.executor.start(run)
    await until(driver.executor, "r1", ReplicaState.RUNNING)
    await driver.exit("r1", 0)
    assert (await ended(driver.executor, "r1")).exit_code == 0
    assert (await driver.executor.poll("h1")).state is ReplicaState.RUNNING
    await driver.executor.stop("h1", 10)
    status = await ended(driver.executor, "h1")
    assert (status.exit_code, status.reason) == (-15, "stopped")
