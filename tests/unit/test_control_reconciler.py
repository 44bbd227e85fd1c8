"""The reconciler: how often it looks, what it remembers, whom it steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from nimbus_hub.control.bus import Warned
from nimbus_hub.control.reconciler import Reconciler, _pause_seconds
from nimbus_hub.errors import Unavailable
from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import LeaseState
from nimbus_hub.model.replica import ReplicaStatus
from nimbus_hub.store.store import Known
from tests.unit.control_harness import CPU_1, GPU_1, World, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.control.inventory.refresh()
    yield world
    world.control.close()


@asynccontextmanager
async def acting(reconciler: Reconciler) -> AsyncIterator[None]:
    task = asyncio.create_task(reconciler.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def counted(world: World, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that grows with every pass."""
    passes: list[object] = []
    make_pass = world.reconciler.make_pass

    async def count() -> object:
        passes.append(None)
        return await make_pass()

    monkeypatch.setattr(world.reconciler, "make_pass", count)
    return passes


async def test_nothing_happening_costs_a_pass_a_second(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Waits, because it is about what happens while nothing does.
    lease = await world.session()
    await world.control.leases.activate(lease.id)
    first, second = await world.running(), await world.running(workers=2)
    assert {world.job(job).state for job in (first, second)} == {JobState.RUNNING}
    passes = counted(world, monkeypatch)
    async with acting(world.reconciler):
        await asyncio.sleep(2.2)
    assert 1 <= len(passes) <= 4


async def test_steps_that_overlap_do_not_keep_each_other_going(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [await world.running() for _ in range(3)]
    poll = world.executor.poll
    delays = iter([0.05, 0.09, 0.12] * 1000)

    async def slow_poll(replica_id: str) -> ReplicaStatus:
        await asyncio.sleep(next(delays))
        return await poll(replica_id)

    monkeypatch.setattr(world.executor, "poll", slow_poll)
    passes = counted(world, monkeypatch)
    async with acting(world.reconciler):
        for _ in range(5):
            await asyncio.sleep(0.02)
            world.reconciler.wake()
        await asyncio.sleep(0.4)
        settled = len(passes)
        await asyncio.sleep(0.5)
        assert len(passes) - settled <= 1
    assert {world.job(job).state for job in jobs} == {JobState.RUNNING}


async def test_news_that_come_during_a_step_are_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await world.running()
    poll = world.executor.poll
    polled = asyncio.Event()

    async def late_poll(replica_id: str) -> ReplicaStatus:
        status = await poll(replica_id)
        if not polled.is_set():
            polled.set()
            # Ends after it was asked, and says so while the step is under way.
            world.executor.exit(replica_id, 0)
        return status

    monkeypatch.setattr(world.executor, "poll", late_poll)
    async with acting(world.reconciler):
        await polled.wait()
        await until(lambda: world.job(job).state is JobState.SUCCEEDED, 0.9)


def test_pauses_grow_to_a_bound_whatever_the_number_of_failures() -> None:
    assert [_pause_seconds(0.25, failures) for failures in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert _pause_seconds(0.25, 100_000) == 30.0


async def test_an_unreachable_hub_is_asked_less_and_less_and_then_forgotten(world: World) -> None:
    lease = await world.session()
    world.servers.fault = Unavailable("the hub does not answer")
    await world.control.leases.release(lease.id, "given back")
    await world.passes(3)
    assert world.reconciler._failures == {lease.id: 1}
    world.skip(seconds=1)
    await world.passes(3)
    assert world.reconciler._failures == {lease.id: 2}
    assert world.lease(lease).public_state is LeaseState.EXPIRING
    await world.control.leases.stopped(lease.id, "gone")
    await world.passes(1)
    assert (world.reconciler._failures, world.reconciler._retry_at) == ({}, {})


async def test_a_pass_that_fails_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = world.store.live
    faults = iter([Unavailable("the database does not answer")])

    def fails_once(known: Known) -> object:
        for fault in faults:
            raise fault
        return live(known)

    monkeypatch.setattr(world.store, "live", fails_once)
    job = await world.submit()
    async with acting(world.reconciler):
        await until(lambda: world.store.job(job.id).state is JobState.RUNNING)


async def test_a_server_started_after_its_lease_ended_is_left_alone(world: World) -> None:
    lease = await world.session()
    ending = await world.control.leases.release(lease.id, "given back")
    await world.control.leases.stopped(lease.id, "gone")
    await world.session()
    await world.reconciler._reaper.end_session(ending)
    assert world.servers.stopped == []


async def test_warnings_are_told_once_and_forgotten_with_their_lease(world: World) -> None:
    lease = await world.session()
    with world.control.bus.subscribe(lambda change: isinstance(change, Warned)) as changes:
        world.skip(hours=1, minutes=46)
        await world.control.leases.activate(lease.id)
        world.skip(hours=1, minutes=46)
        await world.passes(2)
        first = await changes.get(0)
        assert isinstance(first, Warned)
        assert first.seconds == 900
        assert await changes.get(0) is None
    await world.control.leases.stopped(lease.id, "gone")
    await world.passes(1)
    assert world.reconciler._reaper._warned == {}


async def test_figures_are_those_of_now(world: World) -> None:
    world.executor._hosts = (GPU_1,)
    await world.control.inventory.refresh()
    await world.submit(workers=6)
    await world.submit(workers=6)
    world.skip(minutes=5)
    await world.passes()
    assert {"nimbus_queue_age_seconds 300.0", 'nimbus_gpus{model="A100"} 1.0'} <= figures(world)
    world.executor._hosts = (CPU_1,)
    await world.control.inventory.refresh()
    await world.passes()
    assert not any("A100" in line for line in figures(world))


def figures(world: World) -> set[str]:
    return set(world.control.metrics.text().decode().splitlines())


async def test_the_service_survives_a_job_it_cannot_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await world.submit()
    step = world.reconciler._runner.step

    async def fails(job: Job) -> None:
        if job.id == bad.id:
            raise RuntimeError("bug")
        await step(job)

    monkeypatch.setattr(world.reconciler._runner, "step", fails)
    good = await world.running()
    assert (world.job(good).state, world.job(bad).state) == (JobState.RUNNING, JobState.QUEUED)
    assert world.reconciler._failures == {bad.id: 1}


async def test_acting_ends_when_told_to_while_it_is_woken(world: World) -> None:
    # Python 3.11's wait_for() lost a cancellation that came together with the event.
    for _ in range(20):
        async with asyncio.timeout(5), acting(world.reconciler):
            await asyncio.sleep(0.01)
            world.reconciler.wake()
