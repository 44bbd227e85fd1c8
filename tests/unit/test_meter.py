from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nimbus_hub.control.accounting import By, Period
from nimbus_hub.control.meter import Meter
from nimbus_hub.errors import Unavailable
from nimbus_hub.model.activity import Report
from nimbus_hub.model.job import JobState
from nimbus_hub.model.lease import Lease, LeaseState
from nimbus_hub.model.replica import Usage
from nimbus_hub.model.wishes import Wishes
from tests.unit.control_harness import World

MINUTE = timedelta(minutes=1)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.reconciler.prepare()
    yield made
    made.control.close()


def used(world: World, lease: Lease | str) -> tuple[float, float]:
    """Return what the store knows of a lease's use."""
    found = world.store.lease(lease if isinstance(lease, str) else lease.id)
    return found.cpu_seconds, found.gpu_seconds


async def noted(world: World, seconds: int = 61) -> None:
    """Let so much time pass, and measure."""
    world.skip(seconds=seconds)
    await world.control.meter.step()


def another_meter(world: World) -> Meter:
    """Return the meter of the next service, which remembers nothing."""
    control = world.control
    return Meter(control.records, control.inventory, control.activity, control.metrics, MINUTE)


async def test_what_a_job_uses_is_added_to_its_lease(world: World) -> None:
    job = await world.running(workers=2, gpus=0)
    first, second = world.replicas(job)
    world.executor.use(first.id, 10.0, 4.0)
    world.executor.use(second.id, 5.0)
    await noted(world)
    assert used(world, job.lease_id) == (15.0, 4.0)
    world.executor.use(first.id, 12.0, 6.5)
    await noted(world)
    assert used(world, job.lease_id) == (17.0, 6.5)
    assert world.replicas(job)[0].cpu_seconds == 12.0


async def test_figures_are_written_once_a_minute(world: World) -> None:
    job = await world.running()
    (replica,) = world.replicas(job)
    for second in range(1, 6):
        world.executor.use(replica.id, float(second))
        await noted(world, 10)
    assert used(world, job.lease_id) == (0.0, 0.0)
    await noted(world, 10)
    assert used(world, job.lease_id) == (5.0, 0.0)


async def test_writing_them_wakes_nobody_and_changes_no_version(world: World) -> None:
    job = await world.running()
    (replica,) = world.replicas(job)
    lease = world.lease_of(job)
    world.executor.use(replica.id, 3.0)
    woken: list[int] = []
    world.control.records.wake = lambda: woken.append(1)
    with world.control.bus.subscribe(lambda _: True) as changes:
        await noted(world)
        assert await changes.get(0.01) is None
    assert used(world, lease) == (3.0, 0.0)
    assert world.store.lease(lease.id).version == lease.version
    assert woken == []


async def test_the_last_figures_come_with_the_end(world: World) -> None:
    job = await world.running()
    (replica,) = world.replicas(job)
    await world.control.meter.step()
    world.executor.use(replica.id, 8.0, 2.0)
    world.executor.exit(replica.id, 0)
    await world.passes()
    assert world.job(job).state is JobState.SUCCEEDED
    await noted(world, 1)
    assert used(world, job.lease_id) == (8.0, 2.0)


async def test_a_job_that_ends_between_two_looks_is_measured(world: World) -> None:
    await world.control.meter.step()
    job = await world.running()
    (replica,) = world.replicas(job)
    world.executor.use(replica.id, 0.5)
    world.executor.exit(replica.id, 0)
    await world.passes()
    await noted(world, 1)
    assert used(world, job.lease_id) == (0.5, 0.0)


async def test_each_attempt_counts_from_zero_and_is_added(world: World) -> None:
    job = await world.running(retries=2)
    for cpu in (10.0, 4.0, 7.0):
        (replica,) = world.replicas(job)
        await world.control.meter.step()
        world.executor.use(replica.id, cpu)
        world.executor.exit(replica.id, 1)
        await world.passes(4)
    assert world.job(job).state is JobState.FAILED
    await noted(world, 1)
    assert used(world, job.lease_id) == (21.0, 0.0)


async def test_a_preempted_job_uses_what_its_first_lease_had_and_then_its_next(
    world: World,
) -> None:
    job = await world.running(wishes=Wishes(is_preemptible=True))
    first = world.lease_of(job)
    (replica,) = world.replicas(job)
    world.executor.use(replica.id, 10.0)
    await world.control.leases.end(first.id, LeaseState.PREEMPTED, "others come first")
    await world.passes(6)
    second = world.lease_of(job)
    assert second.id != first.id
    (replica,) = world.replicas(job)
    world.executor.use(replica.id, 3.0)
    await noted(world)
    assert used(world, first) == (10.0, 0.0)
    assert used(world, second) == (3.0, 0.0)


async def test_the_next_service_counts_on_from_what_was_noted(world: World) -> None:
    """What was used while no service ran is counted; what was noted is not counted again."""
    job = await world.running()
    (replica,) = world.replicas(job)
    world.executor.use(replica.id, 100.0, 50.0)
    await noted(world)
    world.executor.use(replica.id, 110.0, 51.0)  # measured by nobody before the crash
    world.control.records._is_current = False  # as a service that has just started
    meter = another_meter(world)
    world.executor.use(replica.id, 130.0, 60.0)
    await meter.close()
    assert used(world, job.lease_id) == (130.0, 60.0)
    await meter.close()
    assert used(world, job.lease_id) == (130.0, 60.0)


async def test_what_ended_while_no_service_ran_is_counted(world: World) -> None:
    job = await world.running()
    (replica,) = world.replicas(job)
    meter = another_meter(world)
    await meter.prepare()
    world.executor.use(replica.id, 9.0)
    world.executor.exit(replica.id, 0)
    await world.passes()
    await meter.close()
    assert used(world, job.lease_id) == (9.0, 0.0)


async def test_figures_that_fall_take_nothing_back(world: World) -> None:
    job = await world.running()
    (replica,) = world.replicas(job)
    world.executor.use(replica.id, 10.0)
    await noted(world)
    world.executor.use(replica.id, 2.0)
    await noted(world)
    world.executor.use(replica.id, 11.0)
    await noted(world)
    assert used(world, job.lease_id) == (11.0, 0.0)


async def test_a_session_counts_what_it_reports(world: World) -> None:
    lease = await world.session(gpus=1)
    await world.control.leases.activate(lease.id)
    now = world.clock.now()
    world.control.activity.put(lease, Report(now, cpu_seconds=30.0, gpu_seconds=20.0))
    await noted(world)
    assert used(world, lease) == (30.0, 20.0)
    world.control.activity.put(lease, Report(now, cpu_seconds=40.0, gpu_seconds=25.0))
    await world.control.meter.close()
    assert used(world, lease) == (40.0, 25.0)


async def test_a_session_cannot_have_used_more_gpu_time_than_there_was(world: World) -> None:
    lease = await world.session(gpus=1)
    report = Report(world.clock.now(), cpu_seconds=1.0, gpu_seconds=10.0**9)
    world.control.activity.put(lease, report)
    await noted(world, 100)
    assert used(world, lease) == (1.0, 100.0)


async def test_an_executor_that_does_not_answer_is_asked_again(world: World) -> None:
    job = await world.running()
    (replica,) = world.replicas(job)
    world.executor.use(replica.id, 10.0)
    world.executor.unreachable = True
    await noted(world)
    assert used(world, job.lease_id) == (0.0, 0.0)
    world.executor.unreachable = False
    await noted(world)
    assert used(world, job.lease_id) == (10.0, 0.0)


async def test_a_store_that_does_not_answer_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await world.running()
    (replica,) = world.replicas(job)
    world.executor.use(replica.id, 10.0)

    def refuse(leases: object, replicas: object) -> None:
        raise Unavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "note_usage", refuse)
        world.executor.exit(replica.id, 0)
        await world.passes()
        world.skip(minutes=2)
        with pytest.raises(Unavailable):
            await world.control.meter.step()
        await world.control.meter.close()  # says so in the log and goes on
    await world.control.meter.step()
    assert used(world, job.lease_id) == (10.0, 0.0)


async def test_all_replicas_of_an_executor_are_measured_in_one_call(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [await world.running(workers=2) for _ in range(2)]
    asked: list[Collection[str]] = []
    measure = world.executor.measure

    async def counted(replica_ids: Collection[str]) -> dict[str, Usage]:
        asked.append(replica_ids)
        return await measure(replica_ids)

    monkeypatch.setattr(world.executor, "measure", counted)
    await world.control.meter.step()
    assert [sorted(ids) for ids in asked] == [
        sorted(replica.id for job in jobs for replica in world.replicas(job))
    ]


async def test_reports_have_what_is_not_written_yet(world: World) -> None:
    job = await world.running(gpus=1)
    (replica,) = world.replicas(job)
    since = world.clock.now()
    await world.control.meter.step()
    world.executor.use(replica.id, 20.0, 10.0)
    await noted(world, 30)
    period = Period(since, since + timedelta(hours=1))
    found = await world.control.accounting.report(period, By.USER, "ada")
    assert found.items["ada"].gpu_seconds == pytest.approx(10.0)
    assert found.items["ada"].gpu_hours_held == pytest.approx(30 / 3600)
    assert found.items["ada"].model_hours_held == {"A100": pytest.approx(30 / 3600)}
    assert used(world, job.lease_id) == (0.0, 0.0)


async def test_it_measures_until_it_is_cancelled(world: World) -> None:
    job = await world.running()
    (replica,) = world.replicas(job)
    control = world.control
    quick = timedelta(milliseconds=1)
    meter = Meter(control.records, control.inventory, control.activity, control.metrics, quick)
    running = asyncio.create_task(meter.run())
    world.executor.use(replica.id, 10.0)
    world.skip(minutes=2)
    async with asyncio.timeout(5):
        while used(world, job.lease_id) != (10.0, 0.0):  # noqa: ASYNC110 - it writes to a file
            await asyncio.sleep(0.002)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_operators_see_memory_and_what_came_and_went_over_the_network(world: World) -> None:
    job = await world.running(workers=2, gpus=0)
    first, second = world.replicas(job)
    world.executor.use(first.id, 1.0, memory_bytes=300, received_bytes=1000, sent_bytes=50)
    world.executor.use(second.id, 1.0, memory_bytes=200)
    await noted(world)
    world.executor.use(first.id, 2.0, memory_bytes=400, received_bytes=1500, sent_bytes=60)
    await noted(world)
    # What was counted before a service takes over is not counted again.
    after = another_meter(world)
    await after.prepare()
    world.skip(seconds=61)
    await after.step()
    text = world.control.metrics.text().decode()
    assert "nimbus_memory_bytes_used 600.0" in text
    assert 'nimbus_network_bytes_total{direction="received"} 1500.0' in text
    assert 'nimbus_network_bytes_total{direction="sent"} 60.0' in text


async def test_operators_see_what_is_held_and_busy(world: World) -> None:
    job = await world.running(gpus=1)
    (replica,) = world.replicas(job)
    await world.control.meter.step()
    world.executor.use(replica.id, 7.0, 15.0)
    await noted(world, 60)
    text = world.control.metrics.text().decode()
    assert "nimbus_gpu_seconds_held_total 60.0" in text
    assert "nimbus_gpu_seconds_busy_total 15.0" in text
    assert "nimbus_cpu_seconds_used_total 7.0" in text


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.floats(0, 100)),
        st.sampled_from([("fail", 0.0), ("preempt", 0.0), ("restart", 0.0), ("look", 0.0)]),
    ),
    max_size=10,
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_whatever_happens_the_leases_have_what_the_replicas_used(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, float]]
) -> None:
    """Over attempts, preemption and restarts of the service, in any order."""
    asyncio.run(_play(World(tmp_path_factory.mktemp("world")), steps))


async def _play(world: World, steps: list[tuple[str, float]]) -> None:
    await world.reconciler.prepare()
    job = await world.running(retries=100, wishes=Wishes(is_preemptible=True))
    meter, total = world.control.meter, 0.0
    spent: dict[str, float] = {}
    for name, amount in steps:
        (replica,) = world.replicas(job)
        if name == "use":
            spent[replica.id] = spent.get(replica.id, 0.0) + amount
            total += amount
            world.executor.use(replica.id, spent[replica.id])
        elif name == "look":
            world.skip(seconds=25)
            await meter.step()
        elif name == "restart":
            await meter.close()
            world.control.records._is_current = False
            world.control.records._listeners.remove(meter._hear)
            meter = another_meter(world)
            await meter.prepare()
        elif name == "fail":
            world.executor.exit(replica.id, 1)
            await world.passes(6)
        else:
            await world.control.leases.end(world.lease_of(job).id, LeaseState.PREEMPTED, "others")
            await world.passes(8)
    await meter.close()
    leases = world.store.leases(limit=1000)
    assert sum(lease.cpu_seconds for lease in leases) == pytest.approx(total)
    world.control.close()
