"""Stalls: jobs of which nothing is heard are ended, and nobody else is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.replica import ReplicaState
from nimbus_hub.model.slot import SlotGroup
from tests.unit.control_harness import World

FAULT = (
    "stalled: nothing was heard of it for {}, that is no output of any replica, no report of "
    "progress and nothing new in its log directory; --stall gives it another time, or off"
)
NOTE = (
    "nothing was heard of it for 5m; it ends as stalled at {} UTC unless it prints, reports "
    "progress or writes into its log directory"
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.control.inventory.refresh()
    yield world
    world.control.close()


async def running(
    world: World, stall: float | None = 600, workers: int = 1, retries: int = 0
) -> Job:
    launch = Launch(("python", "train.py"), stall_seconds=stall, retries=retries)
    view = await world.control.jobs.submit("ada", launch, [SlotGroup("worker", workers)])
    await world.passes()
    return world.job(view.job)


async def test_a_silent_job_is_warned_of_and_then_ended_as_failed(world: World) -> None:
    job = await running(world)
    world.skip(minutes=4, seconds=59)
    await world.passes(1)
    assert world.job(job).note == ""
    world.skip(seconds=1)
    await world.passes(1)
    assert world.job(job).note == NOTE.format("12:10:00")
    world.skip(minutes=4, seconds=59)
    await world.passes()
    assert world.job(job).state is JobState.RUNNING
    world.skip(seconds=1)
    await world.passes()
    found = world.job(job)
    assert (found.state, found.reason, found.note) == (JobState.FAILED, FAULT.format("10m"), "")
    assert [replica.state for replica in world.replicas(job)] == [ReplicaState.EXITED]


async def test_what_a_replica_writes_begins_the_time_anew(world: World) -> None:
    job = await running(world, workers=2)
    world.skip(minutes=6)
    await world.passes(1)
    assert world.job(job).note == NOTE.format("12:10:00")
    world.executor.write(world.replicas(job)[1].id, b"step 1\n")
    world.skip(minutes=1)
    await world.passes(1)
    assert world.job(job).note == ""
    world.skip(minutes=8)
    world.executor.log(world.replicas(job)[0].id)
    world.skip(minutes=4)
    await world.passes()
    assert (world.job(job).state, world.job(job).note) == (JobState.RUNNING, "")
    world.skip(minutes=6)
    await world.passes()
    assert world.job(job).state is JobState.FAILED


async def test_a_report_of_progress_is_a_sign_of_life(world: World) -> None:
    job = await running(world)
    for _ in range(3):
        world.skip(minutes=9)
        await world.control.jobs.report(job.id, 0.5, "the same again")
        await world.passes()
    assert (world.job(job).state, world.job(job).note) == (JobState.RUNNING, "")


async def test_that_cpus_are_busy_is_no_sign_of_life(world: World) -> None:
    job = await running(world)
    world.executor.use(world.replicas(job)[0].id, 600.0)
    world.skip(minutes=10)
    await world.passes()
    assert world.job(job).state is JobState.FAILED


async def test_a_stalled_attempt_is_tried_again(world: World) -> None:
    job = await running(world, workers=2, retries=1)
    world.skip(minutes=10)
    await world.passes(4)
    again = world.job(job)
    assert (again.state, again.attempt, again.fault) == (JobState.RUNNING, 2, "")
    assert again.reason == f"attempt 1 of 2 failed: {FAULT.format('10m')}"
    world.skip(minutes=9)
    await world.passes()
    assert world.job(job).state is JobState.RUNNING
    world.skip(minutes=1)
    await world.passes(4)
    assert (world.job(job).state, world.job(job).reason) == (JobState.FAILED, FAULT.format("10m"))


async def test_replicas_that_end_well_when_stopped_do_not_make_it_a_success(world: World) -> None:
    world.executor.auto_stop = False
    job = await running(world)
    world.skip(minutes=10)
    await world.passes()
    assert world.executor.stopped
    world.executor.exit(world.replicas(job)[0].id, 0)
    await world.passes()
    assert (world.job(job).state, world.job(job).reason) == (JobState.FAILED, FAULT.format("10m"))


@pytest.mark.parametrize(("workers", "state"), [(1, JobState.RUNNING), (2, JobState.FAILED)])
async def test_without_a_word_only_jobs_of_several_replicas_stall(
    world: World, workers: int, state: JobState
) -> None:
    job = await running(world, None, workers)
    world.skip(minutes=59)
    await world.passes()
    assert world.job(job).state is JobState.RUNNING
    world.skip(minutes=1)
    await world.passes()
    assert world.job(job).state is state


async def test_a_job_that_may_be_silent_is_left_alone(world: World) -> None:
    job = await running(world, 0, workers=2)
    world.skip(hours=9)
    await world.passes()
    assert (world.job(job).state, world.job(job).note) == (JobState.RUNNING, "")


async def test_a_run_whose_debugger_waits_for_somebody_does_not_stall(world: World) -> None:
    gangs = world.control.gangs
    gang = await gangs.request("ada", "script", [SlotGroup("worker", 2)])
    await world.passes()
    launch = Launch(("python", "train.py"), pdb=True, stall_seconds=60)
    run = (await gangs.submit(await gangs.find(gang.lease.id), launch)).job
    await world.passes()
    world.skip(minutes=20)
    await world.passes()
    assert (world.job(run).state, world.job(run).note) == (JobState.RUNNING, "")


async def test_after_an_outage_the_time_begins_anew(world: World) -> None:
    job = await running(world)
    world.sleep(minutes=30)
    await world.passes()
    assert (world.job(job).state, world.job(job).note) == (JobState.RUNNING, "")
    world.skip(minutes=10)
    await world.passes()
    assert world.job(job).state is JobState.FAILED


async def test_a_host_that_cannot_be_asked_makes_nothing_stall(world: World) -> None:
    job = await running(world)
    world.skip(minutes=4)
    await world.passes()
    world.executor.unreachable = True
    world.skip(minutes=20)
    await world.passes()
    world.executor.unreachable = False
    await world.passes()
    assert world.job(job).state is JobState.RUNNING


async def test_clocks_that_are_ahead_give_no_longer_time(world: World) -> None:
    job = await running(world)
    world.skip(minutes=6)
    world.clock.time, now = world.clock.time.replace(year=2099), world.clock.time
    world.executor.log(world.replicas(job)[0].id)
    world.clock.time = now
    await world.passes()
    assert world.job(job).note == ""
    world.executor._of(world.replicas(job)[0].id).heard_at = None
    world.skip(minutes=10)
    await world.passes()
    assert world.job(job).state is JobState.FAILED
