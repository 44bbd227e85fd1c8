"""Hosts that leave or stay down: what is lost, what is tried again, what is stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from nimbus_hub.model.host import Host, HostState
from nimbus_hub.model.job import JobState
from nimbus_hub.model.lease import LeaseState
from nimbus_hub.model.replica import ReplicaState
from tests.unit.control_harness import CPU_1, GIB, World

SMALL_1 = Host("small-1", 2000, 8 * GIB)
SMALL_2 = Host("small-2", 2000, 8 * GIB)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Two hosts of which a gang of two needs both, and a third."""
    world = World(tmp_path, hosts=(SMALL_1, SMALL_2))
    await world.control.inventory.refresh()
    yield world
    world.control.close()


async def have(world: World, *hosts: Host) -> None:
    world.executor._hosts = hosts
    await world.reconciler._refresh()


async def test_a_job_of_a_host_that_left_is_tried_again_elsewhere(world: World) -> None:
    job = await world.running(workers=2, cpus=2000, retries=1)
    await have(world, SMALL_2, CPU_1)
    await world.passes(6)
    again, old = world.job(job), world.store.lease(job.lease_id)
    assert (old.state, old.reason) == (
        LeaseState.LOST,
        "host small-1 is not in the inventory any more",
    )
    assert (again.state, again.attempt, again.preemptions) == (JobState.RUNNING, 2, 0)
    assert again.reason == f"attempt 1 was lost: {old.reason}"
    assert again.lease_id != old.id
    assert {slot.host for slot in world.lease_of(job).slots} == {"cpu-1"}


async def test_without_attempts_left_the_job_fails_with_the_reason(world: World) -> None:
    job = await world.running(workers=2, cpus=2000)
    await have(world, SMALL_2)
    await world.passes(4)
    over = world.job(job)
    assert (over.state, over.reason) == (
        JobState.FAILED,
        "host small-1 is not in the inventory any more",
    )
    assert world.lease_of(job).state is LeaseState.LOST


async def test_replicas_on_the_other_hosts_are_stopped_first(world: World) -> None:
    job = await world.running(workers=2, cpus=2000, retries=1)
    world.executor.auto_stop = False
    await have(world, SMALL_2, CPU_1)
    await world.passes(4)
    assert world.lease_of(job).id == job.lease_id
    assert world.lease_of(job).state is LeaseState.ACTIVE
    states = {replica.host: replica.state for replica in world.replicas(job)}
    assert states == {"small-1": ReplicaState.LOST, "small-2": ReplicaState.RUNNING}
    alive = next(r for r in world.replicas(job) if r.host == "small-2")
    assert alive.id in {replica for replica, _ in world.executor.stopped}
    world.executor.exit(alive.id, -15)
    await world.passes(4)
    assert world.job(job).attempt == 2


async def test_a_host_that_is_down_is_waited_for_and_then_given_up(world: World) -> None:
    job = await world.running(retries=1)
    down = replace(SMALL_1, state=HostState.DOWN)
    await have(world, down, SMALL_2)
    world.skip(seconds=119)
    await world.passes(2)
    assert world.lease_of(job).target is None
    assert await world.reconciler.make_pass() <= world.clock.now().replace(minute=2, second=0)
    world.skip(seconds=2)
    await world.passes(5)
    assert (
        world.store.lease(job.lease_id).reason == "host small-1 is down since 2026-03-01 12:00 UTC"
    )
    assert (world.job(job).state, world.job(job).attempt) == (JobState.RUNNING, 2)
    assert world.lease_of(job).slots[0].host == "small-2"


async def test_a_host_that_comes_back_in_time_loses_nothing(world: World) -> None:
    job = await world.running()
    await have(world, replace(SMALL_1, state=HostState.DOWN), SMALL_2)
    world.skip(seconds=100)
    await world.passes(1)
    await have(world, SMALL_1, SMALL_2)
    await world.passes(1)
    await have(world, replace(SMALL_1, state=HostState.DOWN), SMALL_2)
    world.skip(seconds=100)
    await world.passes(2)
    assert world.job(job) == job


async def test_what_still_runs_on_a_host_said_to_be_down_is_stopped_before_its_slots_are_free(
    world: World,
) -> None:
    job = await world.running()
    world.executor.auto_stop = False
    await have(world, replace(SMALL_1, state=HostState.DOWN), SMALL_2)
    world.skip(minutes=3)
    await world.passes(3)
    (replica,) = world.replicas(job)
    assert (replica.state, world.job(job).state) == (ReplicaState.RUNNING, JobState.RUNNING)
    assert replica.id in {each for each, _ in world.executor.stopped}
    world.executor.exit(replica.id, -15)
    await world.passes(3)
    assert world.job(job).state is JobState.FAILED


async def test_what_only_starts_on_a_host_that_is_given_up_is_lost_and_stopped(
    world: World,
) -> None:
    """Its executor may know how far it was, and not that the host is away."""
    world.executor.auto_run = world.executor.auto_stop = False
    job = await world.running(retries=1)
    (replica,) = world.replicas(job)
    await have(world, replace(SMALL_1, state=HostState.DOWN), SMALL_2)
    world.skip(minutes=3)
    await world.passes(4)
    assert replica.id in {each for each, _ in world.executor.stopped}
    again = world.job(job)
    assert (again.state, again.attempt) == (JobState.STARTING, 2)
    assert {slot.host for slot in world.lease_of(job).slots} == {"small-2"}


async def test_what_a_host_that_takes_nothing_new_refused_is_started_elsewhere(
    world: World,
) -> None:
    world.executor.auto_run = False
    job = await world.running(retries=1)
    (replica,) = world.replicas(job)
    full = replace(SMALL_1, state=HostState.DRAINING, state_reason="its disk is full")
    world.executor._hosts = (full, SMALL_2)
    world.executor.lose(replica.id, "no space left on device")
    await world.passes(4)
    old = world.store.lease(job.lease_id)
    assert (old.state, old.reason) == (
        LeaseState.LOST,
        "host small-1 is draining: its disk is full",
    )
    again = world.job(job)
    assert (again.state, again.attempt) == (JobState.STARTING, 2)
    assert again.reason.startswith("attempt 1 failed: worker-0 on small-1 was lost: no space")
    assert {slot.host for slot in world.lease_of(job).slots} == {"small-2"}


async def test_what_was_left_behind_is_stopped_when_its_host_is_back(world: World) -> None:
    job = await world.running(retries=0)
    (replica,) = world.replicas(job)
    world.executor.unreachable = True
    await world.reconciler._refresh()
    world.skip(minutes=3)
    await world.passes(4)
    assert world.job(job).state is JobState.FAILED
    assert world.executor.stopped == []
    world.executor.unreachable = False
    world.executor.auto_stop = False
    await world.reconciler._refresh()
    coming = await world.submit(workers=2, cpus=2000)
    await world.passes(3)
    assert {each for each, _ in world.executor.stopped} == {replica.id}
    assert world.job(coming).state is JobState.QUEUED
    assert "draining" in world.lease_of(coming).reason
    world.executor.exit(replica.id, -15)
    await world.passes(3)
    assert world.job(coming).state is JobState.RUNNING


async def test_what_was_left_behind_is_known_after_a_restart(world: World, tmp_path: Path) -> None:
    job = await world.running()
    (replica,) = world.replicas(job)
    world.executor.unreachable = True
    await world.reconciler._refresh()
    world.skip(minutes=3)
    await world.passes(4)
    world.executor.unreachable = False
    after = World(tmp_path, world.executor)
    await after.control.inventory.refresh()
    await after.control._leftovers.load()
    await after.passes(2)
    assert [each for each, _ in world.executor.stopped] == [replica.id]
    assert after.control.scheduling.hosts == after.control.inventory.hosts
    after.control.close()


async def test_a_job_that_succeeded_before_its_host_left_has_succeeded(world: World) -> None:
    job = await world.running()
    world.executor.exit(world.replicas(job)[0].id, 0)
    world.skip(seconds=1)
    await have(world, replace(SMALL_1, state=HostState.DOWN), SMALL_2)
    world.skip(minutes=3)
    await world.passes(3)
    assert world.job(job).state is JobState.SUCCEEDED


async def test_a_session_is_lost_at_once_with_its_host(world: World) -> None:
    lease = await world.session()
    await world.control.leases.activate(lease.id)
    host = world.lease(lease).slots[0].host
    await have(world, *(each for each in (SMALL_1, SMALL_2) if each.name != host))
    await world.passes(1)
    over = world.lease(lease)
    assert (over.state, over.reason) == (
        LeaseState.LOST,
        f"host {host} is not in the inventory any more",
    )
    await world.reconciler._sweep_sessions()
    assert world.servers.stopped == [("ada", "")]
    figures = world.control.metrics.text().decode()
    assert "nimbus_lost_leases_total 1.0" in figures


async def test_a_server_started_anew_is_not_stopped_for_the_lost_one(world: World) -> None:
    lease = await world.session()
    host = world.lease(lease).slots[0].host
    await have(world, *(each for each in (SMALL_1, SMALL_2) if each.name != host))
    await world.passes(1)
    assert world.lease(lease).state is LeaseState.LOST
    await world.session()
    await world.reconciler._sweep_sessions()
    assert world.servers.stopped == []
