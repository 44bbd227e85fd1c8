"""What jobs left: deleted by wish or by age, and nothing of it that is still wanted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from nimbus_hub.errors import Conflict, Deleted
from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.model.snapshot import SnapshotFile
from nimbus_hub.store.snapshots import SnapshotStore
from tests.unit.control_harness import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a service that deletes nothing by itself."""
    made = World(tmp_path)
    yield made
    made.control.close()


@pytest.fixture
def tidy(tmp_path: Path) -> Iterator[World]:
    """Give one that keeps things for 30 days."""
    made = World(tmp_path, keep_jobs=timedelta(days=30))
    yield made
    made.control.close()


async def done(world: World) -> Job:
    """Return a job that has left something."""
    job = await world.running()
    (replica,) = world.replicas(job)
    world.executor.put(replica.id, "output/model", b"x")
    world.executor.exit(replica.id, 0)
    await world.settled()
    return world.job(job)


def is_there(world: World, job: Job) -> bool:
    return any(world.executor.keeps(each.id) for each in world.replicas(job))


async def test_a_deleted_jobs_record_stays_and_says_so(world: World) -> None:
    await world.reconciler.prepare()
    job, other = await done(world), await done(world)
    seconds = world.lease_of(job).cpu_seconds
    deleted = await world.control.retention.delete(job.id, "deleted by ada")
    with pytest.raises(Deleted, match=r"files of job j-\w+ were deleted at .* UTC: deleted by ada"):
        deleted.check_left()
    # Its use may not be noted yet.
    await world.passes(1)
    assert is_there(world, job)
    world.skip(minutes=1)
    await world.passes(1)
    assert not is_there(world, job)
    assert is_there(world, other)
    found = world.job(job)
    assert (found.state, found.ended_at, found.is_kept) == (JobState.SUCCEEDED, job.ended_at, False)
    assert found.deletion == "deleted by ada"
    assert world.lease_of(job).cpu_seconds == seconds
    assert await world.control.retention.delete(job.id, "again") == found


async def test_what_is_not_over_is_not_deleted(tidy: World) -> None:
    await tidy.reconciler.prepare()
    job = await tidy.running(length=timedelta(days=7))
    with pytest.raises(Conflict, match=f"job {job.id} is running; stop it first: nimbus stop"):
        await tidy.control.retention.delete(job.id, "deleted by ada")
    for _ in range(8):
        tidy.skip(days=5)
        await tidy.control.retention.step()
    assert is_there(tidy, job)
    assert tidy.job(job).deleted_at is None


async def test_what_is_old_is_deleted_with_the_reason(tidy: World) -> None:
    await tidy.reconciler.prepare()
    old = await done(tidy)
    tidy.skip(days=20)
    young = await done(tidy)
    tidy.skip(days=11)
    await tidy.passes(1)
    assert (is_there(tidy, old), is_there(tidy, young)) == (False, True)
    assert tidy.job(old).deletion == "what jobs leave is kept for 30d after their end"
    assert tidy.job(young).deleted_at is None


async def test_nothing_is_deleted_for_its_age_unless_somebody_says_so(world: World) -> None:
    await world.reconciler.prepare()
    job = await done(world)
    world.skip(days=3000)
    await world.passes(1)
    assert is_there(world, job)


async def test_a_host_that_does_not_answer_is_asked_again_and_holds_up_nobody(
    world: World,
) -> None:
    await world.reconciler.prepare()
    job = await done(world)
    await world.control.retention.delete(job.id, "deleted by ada")
    world.skip(minutes=1)
    world.executor.unreachable = True
    await world.passes(1)
    assert world.job(job).is_kept
    world.executor.unreachable = False
    world.skip(minutes=10)
    await world.passes(1)
    assert not is_there(world, job)
    assert not world.job(job).is_kept


async def test_a_restart_goes_on_with_what_is_to_be_deleted(world: World, tmp_path: Path) -> None:
    await world.reconciler.prepare()
    job = await done(world)
    await world.control.retention.delete(job.id, "deleted by ada")
    next_service = World(tmp_path, world.executor)
    next_service.clock.time = world.clock.time + timedelta(minutes=1)
    await next_service.reconciler.prepare()
    await next_service.passes(1)
    assert not is_there(world, job)
    next_service.control.close()


async def test_a_snapshot_goes_with_the_last_job_that_needs_it(
    world: World, tmp_path: Path
) -> None:
    await world.reconciler.prepare()
    snapshots = SnapshotStore(tmp_path / "snapshots")
    digest = hashlib.sha256(b"x").hexdigest()
    snapshots.add("ada", digest, [b"x"])
    snapshot, _ = snapshots.commit("ada", [SnapshotFile("train.py", 1, digest)])
    for path in (tmp_path / "snapshots").rglob("*"):
        os.utime(path, (1, 1))
    launch = Launch(("python", "train.py"), snapshot=snapshot)
    job = (await world.control.jobs.submit("ada", launch, [SlotGroup("worker")])).job
    await world.passes()
    assert world.store.needed_snapshots() == {"ada": {snapshot}}
    assert snapshots.has("ada", snapshot)
    await world.control.jobs.stop(job.id, "enough")
    await world.settled()
    world.skip(hours=2)
    await world.passes(1)
    assert snapshots.has("ada", snapshot)
    await world.control.retention.delete(job.id, "deleted by ada")
    world.skip(hours=2)
    await world.passes(1)
    assert not snapshots.has("ada", snapshot)
    assert snapshots.missing("ada", [digest]) == (digest,)
