"""Leases that are taken away for others: what is stopped, what waits again, what is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nimbus_hub.model.cluster import Cluster, Queue
from nimbus_hub.model.host import Host
from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import LeaseState
from nimbus_hub.model.replica import ReplicaState
from nimbus_hub.model.slot import Slot
from nimbus_hub.model.wishes import Wishes
from tests.unit.control_harness import GPU_1, HandClock, World

NOW = HandClock().now()
WISHES = Wishes(queue="spare", expected=timedelta(hours=1))
SLOT = Slot("worker", 0, "gpu-1", "127.0.0.1", 1000, 2 * 2**30, (0,), (20000,))
CLUSTER = Cluster(
    queues=(
        Queue(),
        Queue("urgent", priority=10, may_preempt=True),
        Queue("spare", is_preemptible=True),
    )
)
TINY = Host("tiny", 1000, 4 * 2**30)
"""There to be asked for; nothing below fits on it."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """One host with a GPU, where jobs without one are guests."""
    world = World(tmp_path, hosts=(GPU_1, TINY), cluster=CLUSTER)
    await world.control.inventory.refresh()
    yield world
    world.control.close()


async def spare(world: World, **wished: Any) -> Job:
    """Return a running job that may be stopped; it holds the one GPU."""
    job = await world.running(gpus=1, **{"wishes": Wishes(queue="spare"), **wished})
    assert job.state is JobState.RUNNING
    return job


async def urgent(world: World) -> Job:
    """Ask for the GPU with the right to stop what has it."""
    return await world.submit(gpus=1, owner="bob", wishes=Wishes(queue="urgent"))


async def test_a_guest_makes_room_in_the_pass_in_which_gpu_work_comes(world: World) -> None:
    job = await world.running(cpus=5000)
    world.skip(seconds=1)
    coming = await world.submit(cpus=6000, gpus=1, owner="bob")
    await world.reconciler.make_pass()
    lease = world.lease_of(job)
    assert (lease.state, lease.target) == (LeaseState.ACTIVE, LeaseState.PREEMPTED)
    assert lease.reason
    assert world.lease_of(coming).reason_code == "preempting"


async def test_a_guest_and_the_gpu_work_it_made_room_for_both_finish(world: World) -> None:
    job = await world.running(cpus=5000)
    world.skip(seconds=1)
    coming = await world.submit(cpus=6000, gpus=1, owner="bob")
    await world.passes(6)
    assert (world.job(job).state, world.job(job).attempt) == (JobState.QUEUED, 2)
    for each in (coming, job):
        assert world.job(each).state is JobState.RUNNING
        world.executor.exit(world.replicas(each)[0].id, 0)
        await world.passes(6)
        assert world.job(each).state is JobState.SUCCEEDED


async def test_a_preempted_job_waits_again_in_its_place_under_a_new_lease(world: World) -> None:
    job = await spare(world, wishes=WISHES)
    await world.control.jobs.report(job.id, 0.4, "epoch 4")
    world.skip(minutes=5)
    coming = await urgent(world)
    await world.passes(4)
    again, old, new = world.job(job), world.store.lease(job.lease_id), world.lease_of(job)
    assert (old.state, old.ended_at) == (LeaseState.PREEMPTED, NOW + timedelta(minutes=5))
    assert again.reason == f"attempt 1 was preempted: {old.reason}"
    assert (again.state, again.attempt, again.preemptions, again.attempts) == (
        JobState.QUEUED,
        2,
        1,
        2,
    )
    assert (again.progress, again.progress_message, again.started_at) == (None, "", None)
    assert new.id != old.id
    assert new.state is LeaseState.QUEUED
    for name in ("kind", "owner", "name", "groups", "length", "created_at", "environment"):
        assert getattr(new, name) == getattr(old, name)
    assert new.wishes == WISHES
    assert world.job(coming).state is JobState.RUNNING
    assert 'nimbus_requeues_total{cause="preempted"} 1.0' in figures(world)
    assert "nimbus_preemptions_total 1.0" in figures(world)


async def test_a_preempted_job_finishes_once_there_is_room_again(world: World) -> None:
    job = await spare(world)
    coming = await urgent(world)
    await world.passes(4)
    world.executor.exit(world.replicas(coming)[0].id, 0)
    await world.passes(4)
    assert world.job(coming).state is JobState.SUCCEEDED
    running = world.job(job)
    assert (running.state, running.attempt) == (JobState.RUNNING, 2)
    assert running.reason.startswith("attempt 1 was preempted")
    assert [replica.id for replica in world.replicas(job)] == [f"{job.id}.2.worker-0"]
    world.executor.exit(world.replicas(job)[0].id, 0)
    await world.passes()
    assert world.job(job).state is JobState.SUCCEEDED


async def test_a_job_that_ran_for_days_does_not_take_its_slots_back_at_once(world: World) -> None:
    job = await spare(world, length=timedelta(days=5))
    world.skip(days=2)
    coming = await urgent(world)
    await world.passes(8)
    assert world.job(coming).state is JobState.RUNNING
    assert (world.job(job).state, world.job(job).attempt) == (JobState.QUEUED, 2)


async def test_slots_are_others_only_when_every_replica_is_gone(world: World) -> None:
    job = await spare(world)
    world.executor.auto_stop = False
    coming = await urgent(world)
    await world.passes(5)
    assert world.lease_of(job).state is LeaseState.ACTIVE
    assert world.job(coming).state is JobState.QUEUED
    assert world.executor.stopped
    world.executor.exit(world.replicas(job)[0].id, -9)
    await world.passes(4)
    assert world.job(coming).state is JobState.RUNNING


async def test_what_exits_with_0_because_it_was_asked_to_stop_has_not_succeeded(
    world: World,
) -> None:
    job = await spare(world)
    world.executor.auto_stop = False
    await urgent(world)
    await world.passes(2)
    world.executor.exit(world.replicas(job)[0].id, 0)
    await world.passes(2)
    assert (world.job(job).state, world.job(job).attempt) == (JobState.QUEUED, 2)


async def test_what_had_ended_before_it_was_preempted_keeps_its_end(world: World) -> None:
    done, failed = await spare(world), await world.running(cpus=1000)
    for job, code in ((done, 0), (failed, 3)):
        world.executor.exit(world.replicas(job)[0].id, code)
    world.skip(seconds=1)
    for job in (done, failed):
        lease = world.lease_of(job)
        preempted = lease.ending(LeaseState.PREEMPTED, "others need it", world.clock.now())
        world.store.save(preempted, now=world.clock.now())
    await world.passes()
    assert world.job(done).state is JobState.SUCCEEDED
    assert world.job(failed).state is JobState.FAILED
    assert world.job(failed).headline.startswith("worker-0 on tiny exited with code 3")


async def test_preemptions_are_no_retries(world: World) -> None:
    job = await spare(world, retries=1)
    coming = await urgent(world)
    await world.passes(4)
    world.executor.exit(world.replicas(coming)[0].id, 0)
    await world.passes(4)
    world.executor.exit(world.replicas(job)[0].id, 1)
    await world.passes(4)
    retried = world.job(job)
    assert (retried.state, retried.attempt, retried.attempts) == (JobState.RUNNING, 3, 3)
    world.executor.exit(world.replicas(job)[0].id, 1)
    await world.passes(4)
    assert world.job(job).state is JobState.FAILED


async def test_a_job_that_never_started_loses_no_attempt_with_its_lease(world: World) -> None:
    job = await world.submit(gpus=1)
    lease = world.lease_of(job)
    granted = lease.granted((SLOT,), NOW, timedelta(days=7))
    preempted = granted.ending(LeaseState.PREEMPTED, "others need it", NOW)
    world.store.save(preempted, now=NOW)
    await world.passes(1)
    again = world.job(job)
    assert (again.state, again.attempt, again.preemptions) == (JobState.QUEUED, 1, 0)
    assert again.lease_id != lease.id
    assert again.reason == "its lease was preempted: others need it"


async def test_a_stop_that_comes_with_the_preemption_stops_the_job(world: World) -> None:
    job = await spare(world)
    world.executor.auto_stop = False
    await urgent(world)
    await world.passes(2)
    await world.control.jobs.stop(job.id, "stopped by ada")
    world.executor.exit(world.replicas(job)[0].id, -15)
    await world.passes(2)
    over = world.job(job)
    assert (over.state, over.reason) == (JobState.STOPPED, "stopped by ada")
    assert world.lease_of(job).state is LeaseState.PREEMPTED


async def test_a_lease_given_back_while_it_is_taken_away_gets_no_successor(world: World) -> None:
    job = await spare(world)
    world.executor.auto_stop = False
    await urgent(world)
    await world.passes(2)
    await world.control.leases.release(job.lease_id, "given back by ada")
    await world.passes(1)
    world.executor.exit(world.replicas(job)[0].id, -15)
    await world.passes(2)
    over = world.job(job)
    assert (over.state, over.reason) == (JobState.STOPPED, "given back by ada")
    assert world.lease_of(job).state is LeaseState.RELEASED


async def test_what_people_see_of_a_job_never_gets_an_older_version(world: World) -> None:
    job = await spare(world)
    versions = []
    await urgent(world)
    for _ in range(8):
        view = await world.control.jobs.get(job.id)
        versions.append(view.job.version + view.lease.version)
        await world.passes(1)
    assert versions == sorted(versions)
    assert world.job(job).attempt == 2


async def test_a_crash_between_stop_and_requeue_loses_nothing(world: World, tmp_path: Path) -> None:
    job = await spare(world)
    coming = await urgent(world)
    await world.passes(2)
    world.control.close()
    after = World(tmp_path, world.executor, cluster=CLUSTER)
    await after.control.inventory.refresh()
    await after.passes(5)
    assert (after.job(job).state, after.job(job).attempt) == (JobState.QUEUED, 2)
    assert after.job(coming).state is JobState.RUNNING
    after.control.close()


async def test_sessions_are_preempted_only_if_they_asked_to_be(world: World) -> None:
    kept = await world.session("kept", gpus=1)
    await world.submit(gpus=1, owner="bob", wishes=Wishes(queue="urgent"))
    await world.passes(3)
    assert world.lease(kept).target is None


async def test_a_preempted_session_saves_first_and_ends_with_the_reason(world: World) -> None:
    lease = await world.session(gpus=1, wishes=Wishes(is_preemptible=True))
    await world.control.leases.activate(lease.id)
    coming = await world.submit(gpus=1, owner="bob", wishes=Wishes(queue="urgent"))
    await world.passes(3)
    ending = world.lease(lease)
    assert (ending.public_state, ending.target) == (LeaseState.EXPIRING, LeaseState.PREEMPTED)
    assert world.servers.stopped == []
    await world.control.leases.saved(lease.id)
    await world.passes(4)
    over = world.lease(lease)
    assert over.state is LeaseState.PREEMPTED
    assert over.reason == f"{ending.reason}; its documents were saved"
    assert world.servers.stopped == [("ada", "")]
    assert world.job(coming).state is JobState.RUNNING


async def test_output_of_the_last_attempt_is_shown_while_a_job_waits_again(world: World) -> None:
    job = await spare(world)
    world.executor.write(world.replicas(job)[0].id, b"epoch 1\n")
    await urgent(world)
    await world.passes(4)
    (replica,) = await world.control.logs.replicas(world.job(job))
    assert replica.state is ReplicaState.EXITED
    part = await world.control.logs.tail(replica, 1)
    assert part.chunk.data == b"epoch 1\n"


def figures(world: World) -> set[str]:
    return set(world.control.metrics.text().decode().splitlines())
