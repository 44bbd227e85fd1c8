"""Debug gangs: how they are held, warmed, run on and given back, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from nimbus_hub.control.gangs import Gang, GangState
from nimbus_hub.control.jobs import JobView
from nimbus_hub.errors import Conflict, Ended, Impossible, InvalidRequest, NotFound
from nimbus_hub.model.host import Gpu, Host
from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.lease import Lease, LeaseState
from nimbus_hub.model.replica import ReplicaState
from nimbus_hub.model.slot import SlotGroup
from tests.unit.control_harness import GIB, World

TWO = (SlotGroup("worker", 2),)
TRAIN = Launch(("python", "train.py"))
HOSTS = (
    Host("cpu-1", 8000, 32 * GIB, rack="a"),
    Host("gpu-1", 8000, 32 * GIB, (Gpu(0, "A100"), Gpu(1, "A100")), rack="b"),
    Host("gpu-2", 8000, 32 * GIB, (Gpu(0, "A100"), Gpu(1, "A100")), rack="b"),
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path, hosts=HOSTS)
    await world.control.inventory.refresh()
    yield world
    world.control.close()


async def held(world: World, framework: str = "script", parent: Lease | None = None) -> Gang:
    """Return a gang that is ready."""
    gang = await world.control.gangs.request("ada", framework, TWO, parent=parent)
    await world.passes()
    gang = await world.control.gangs.get(gang.lease.id)
    assert gang.state is GangState.READY
    return gang


async def submitted(world: World, gang: Gang, launch: Launch = TRAIN) -> JobView:
    return await world.control.gangs.submit(await world.control.gangs.find(gang.lease.id), launch)


async def running(world: World, gang: Gang, launch: Launch = TRAIN) -> Job:
    run = (await submitted(world, gang, launch)).job
    await world.passes()
    assert world.job(run).state is JobState.RUNNING
    return world.job(run)


async def test_a_run_is_forked_from_the_warm_replica_of_its_slot(world: World) -> None:
    gang = await held(world, "pytorch")
    run = await running(world, gang, Launch(("python", "train.py"), "pytorch"))
    warm, forked = world.executor.started[:2], world.executor.started[2:]
    assert [(spec.argv, spec.modules) for spec in warm] == [(("python",), ("torch",))] * 2
    assert [(spec.holder, spec.workspace) for spec in forked] == [
        (f"{gang.holder.id}.1.worker-0", gang.lease.id),
        (f"{gang.holder.id}.1.worker-1", gang.lease.id),
    ]
    assert [spec.modules for spec in forked] == [None, None]
    assert forked[1].env["RANK"] == "1"
    assert run.run == 0


async def test_a_gang_is_warm_before_it_is_ready(world: World) -> None:
    world.executor.auto_warm = False
    gang = await world.control.gangs.request("ada", "script", TWO)
    assert gang.state is GangState.QUEUED
    await world.passes()
    gang = await world.control.gangs.get(gang.lease.id)
    assert (gang.state, gang.reason) == (
        GangState.WARMING,
        "its replicas are being warmed up",
    )
    assert gang.lease.state is LeaseState.ACTIVE
    for replica in gang.replicas:
        world.executor.run(replica.id)
    await world.passes()
    assert (await world.control.gangs.get(gang.lease.id)).state is GangState.READY


async def test_a_run_waits_until_its_gang_is_warm(world: World) -> None:
    world.executor.auto_warm = False
    gang = await world.control.gangs.request("ada", "script", TWO)
    run = (await submitted(world, gang)).job
    await world.passes()
    assert world.job(run).state is JobState.QUEUED
    for replica in (await world.control.gangs.get(gang.lease.id)).replicas:
        world.executor.run(replica.id)
    await world.passes()
    assert world.job(run).state is JobState.RUNNING


async def test_runs_follow_each_other_on_the_same_slots(world: World) -> None:
    gang = await held(world)
    for number in range(3):
        run = await running(world, gang)
        assert (run.run, run.turn) == (number, number + 1)
        for replica in world.replicas(run):
            world.executor.exit(replica.id, 0)
        await world.passes()
        assert world.job(run).state is JobState.SUCCEEDED
    gang = await world.control.gangs.get(gang.lease.id)
    assert (gang.state, gang.runs, gang.run) == (GangState.READY, 3, None)
    assert [replica.attempt for replica in gang.replicas] == [1, 1]


async def test_one_run_at_a_time(world: World) -> None:
    gang = await held(world)
    run = await running(world, gang)
    with pytest.raises(Conflict) as caught:
        await submitted(world, gang)
    assert caught.value.message == (
        f"gang {gang.lease.id} runs {run.id} (train.py) now; "
        f"stop it with `nimbus stop {run.id}` or wait"
    )
    seen = await world.control.gangs.get(gang.lease.id)
    assert (seen.state, seen.reason) == (GangState.BUSY, f"runs {run.id} (train.py)")
    await world.control.jobs.stop(run.id, "stopped by ada")
    with pytest.raises(Conflict, match="is still stopping"):
        await submitted(world, gang)


async def test_of_two_runs_at_once_one_is_refused(world: World) -> None:
    gang = await held(world)
    record = await world.control.gangs.find(gang.lease.id)
    both = await asyncio.gather(
        *(world.control.gangs.submit(record, TRAIN) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in both) == ["Conflict", "JobView"]


async def test_a_failed_run_leaves_its_gang_and_is_tried_again_on_it(world: World) -> None:
    gang = await held(world)
    run = await running(world, gang, replace(TRAIN, retries=1))
    world.executor.exit(f"{run.id}.1.worker-1", 3)
    await world.settled()
    assert (world.job(run).state, world.job(run).attempt) == (JobState.RUNNING, 2)
    assert world.executor.started[-1].holder == f"{gang.holder.id}.1.worker-1"
    world.executor.exit(f"{run.id}.2.worker-0", 3)
    await world.settled()
    assert world.job(run).state is JobState.FAILED
    assert (await world.control.gangs.get(gang.lease.id)).state is GangState.READY


async def test_no_attempt_listens_where_the_one_before_it_did(world: World) -> None:
    """Also not the next run's first: a port may not be free yet."""
    gang = await held(world, "pytorch")
    launch = Launch(("python", "train.py"), "pytorch", retries=1)
    for _ in range(2):
        run = await running(world, gang, launch)
        for attempt in (1, 2):
            world.executor.exit(f"{run.id}.{attempt}.worker-0", 3)
            await world.settled()
        assert world.job(run).state is JobState.FAILED
    ports = [spec.env["MASTER_PORT"] for spec in world.executor.started if spec.modules is None]
    by_turn = ports[::2]
    assert ports[1::2] == by_turn
    assert len(by_turn) == 4
    assert all(before != after for before, after in pairwise(by_turn))


async def test_giving_back_stops_the_run_before_its_gang(world: World) -> None:
    world.executor.auto_stop = False
    gang = await held(world)
    run = await running(world, gang)
    await world.control.leases.release(gang.lease.id, "given back by ada")
    await world.passes()
    forked = [f"{run.id}.1.worker-0", f"{run.id}.1.worker-1"]
    assert {name for name, _ in world.executor.stopped} == set(forked)
    for name in forked:
        world.executor.exit(name, -15)
    await world.passes()
    warm = [replica.id for replica in gang.replicas]
    assert {name for name, _ in world.executor.stopped} == {*forked, *warm}
    assert world.lease(gang.lease).state is LeaseState.ACTIVE
    for name in warm:
        world.executor.exit(name, -15)
    await world.passes()
    lease = world.lease(gang.lease)
    assert (lease.state, lease.reason) == (LeaseState.RELEASED, "given back by ada")
    assert [(job.state, job.reason) for job in map(world.job, (run, gang.holder))] == [
        (JobState.STOPPED, "given back by ada")
    ] * 2


async def test_a_gang_ends_when_its_time_is_over(world: World) -> None:
    gang = await held(world)
    run = await running(world, gang)
    world.skip(hours=1)
    await world.passes(4)
    lease = world.lease(gang.lease)
    assert (lease.state, lease.reason) == (
        LeaseState.EXPIRED,
        "its lease ran out and was not renewed",
    )
    assert world.job(run).state is JobState.STOPPED


@pytest.mark.parametrize("is_started", [True, False])
async def test_a_gang_ends_with_its_session(world: World, is_started: bool) -> None:
    session = await world.session()
    if is_started:
        gang = await held(world, parent=session)
    else:
        await world.session("other", gpus=2)
        await world.session("third", gpus=2)
        groups = [SlotGroup("worker", gpus=1)]
        gang = await world.control.gangs.request("ada", "script", groups, parent=session)
        await world.passes()
        assert world.lease(gang.lease).state is LeaseState.QUEUED
    await world.control.leases.stopped(session.id, "its server ended")
    await world.passes(4)
    lease = world.lease(gang.lease)
    assert lease.state is (LeaseState.RELEASED if is_started else LeaseState.CANCELLED)
    assert lease.reason == "its session ended: its server ended"
    assert world.job(gang.holder).state is JobState.STOPPED


async def test_a_gang_ends_as_soon_as_its_session_is_ending(world: World) -> None:
    session = await world.session()
    gang = await held(world, parent=session)
    world.servers.fault = ConnectionError("the hub is away")
    await world.control.leases.release(session.id, "given back by ada")
    await world.passes(4)
    assert not world.lease(session).state.is_end
    assert world.lease(gang.lease).reason == "its session ended: given back by ada"


async def test_a_gang_is_near_its_session(world: World) -> None:
    await world.session("first", gpus=2)
    session = await world.session(gpus=1)
    groups = [SlotGroup("worker", gpus=1)]
    gang = await world.control.gangs.request("ada", "script", groups, parent=session)
    await world.passes()
    lease = world.lease(gang.lease)
    host = session.slots[0].host
    assert [slot.host for slot in lease.slots] == [host]
    assert lease.placement.endswith(f"near your session on {host}")


async def test_a_gang_that_its_sessions_datacenter_cannot_hold_is_refused(
    tmp_path: Path,
) -> None:
    hosts = (
        Host("east-1", 8000, 32 * GIB, datacenter="east"),
        Host("west-1", 8000, 32 * GIB, (Gpu(0, "A100"),), datacenter="west"),
    )
    world = World(tmp_path, hosts=hosts)
    await world.control.inventory.refresh()
    session = await world.session()
    groups = [SlotGroup("worker", gpus=1)]
    with pytest.raises(Impossible, match="no host in east has GPUs"):
        await world.control.gangs.request("ada", "script", groups, parent=session)
    world.control.close()


async def test_a_warm_replica_that_dies_is_started_again(world: World) -> None:
    gang = await held(world)
    world.executor.lose(gang.replicas[0].id, "killed by the kernel")
    await world.passes(4)
    seen = await world.control.gangs.get(gang.lease.id)
    assert (seen.state, seen.holder.attempt) == (GangState.READY, 2)
    run = await running(world, gang)
    assert world.executor.started[-1].holder == f"{gang.holder.id}.2.worker-1"
    assert world.job(run).state is JobState.RUNNING


async def test_warm_replicas_are_not_started_again_under_a_run(world: World) -> None:
    gang = await held(world)
    run = await running(world, gang)
    world.executor.exit(gang.replicas[0].id, 0)
    await world.passes(4)
    assert world.job(gang.holder).attempt == 1
    assert world.job(run).state is JobState.RUNNING
    for replica in world.replicas(run):
        world.executor.exit(replica.id, 0)
    await world.passes(4)
    assert world.job(run).state is JobState.SUCCEEDED
    assert world.job(gang.holder).attempt == 2


async def test_a_gang_that_cannot_be_warmed_is_lost_with_the_reason(world: World) -> None:
    world.executor.auto_warm = False
    gang = await world.control.gangs.request("ada", "script", TWO)
    run = (await submitted(world, gang)).job
    while not world.job(gang.holder).state.is_end:
        await world.passes(2)
        for replica in world.replicas(gang.holder):
            if not replica.state.is_end and replica.state is not ReplicaState.CREATED:
                world.executor.exit(replica.id, 1, "no module named torch")
    lease = world.lease(gang.lease)
    assert lease.state is LeaseState.LOST
    assert lease.reason == (
        "its warm replicas failed: worker-0 on cpu-1 exited with code 1 "
        "(no module named torch); the others were stopped"
    )
    assert (world.job(run).state, world.job(run).reason) == (JobState.FAILED, lease.reason)


async def test_stopping_the_job_that_holds_a_gang_gives_it_back(world: World) -> None:
    gang = await held(world)
    run = await running(world, gang)
    await world.control.jobs.stop(gang.holder.id, "stopped by ada")
    await world.passes(5)
    lease = world.lease(gang.lease)
    assert (lease.state, lease.reason) == (LeaseState.RELEASED, "stopped by ada")
    assert world.job(run).state is JobState.STOPPED


async def test_a_gang_whose_host_is_lost_is_not_asked_for_again(world: World) -> None:
    groups = (SlotGroup("worker", 2, 8000, gpus=2),)
    gang = await world.control.gangs.request("ada", "script", groups)
    await world.passes()
    run = await running(world, gang)
    world.executor._hosts = HOSTS[:2]
    await world.reconciler._refresh()
    await world.passes(5)
    reason = "host gpu-2 is not in the inventory any more"
    lease = world.lease(gang.lease)
    assert (lease.state, lease.reason) == (LeaseState.LOST, reason)
    for job in (run, gang.holder):
        assert (world.job(job).state, world.job(job).reason) == (JobState.FAILED, reason)
    stopped = {name for name, _ in world.executor.stopped}
    assert {f"{run.id}.1.worker-0", gang.holder.id + ".1.worker-0"} <= stopped
    assert not (await world.control.records.live()).leases


@pytest.mark.parametrize(
    ("launch", "groups", "sentence"),
    [
        (
            TRAIN,
            (SlotGroup("worker", 3),),
            "holds 2 workers with 1 CPU and 2G of memory, and a run uses it as it is; "
            "3 workers with 1 CPU and 2G of memory were asked for",
        ),
        (
            replace(TRAIN, environment="other"),
            None,
            "holds environment 'default', 'other' was asked for",
        ),
    ],
)
async def test_a_run_uses_its_gang_as_it_is(
    world: World, launch: Launch, groups: tuple[SlotGroup, ...] | None, sentence: str
) -> None:
    gang = await held(world)
    record = await world.control.gangs.find(gang.lease.id)
    with pytest.raises(InvalidRequest) as caught:
        await world.control.gangs.submit(record, launch, groups)
    assert sentence in caught.value.message


async def test_another_framework_may_run_if_it_takes_the_roles(world: World) -> None:
    groups = (SlotGroup("ps"), SlotGroup("worker"))
    gang = await world.control.gangs.request("ada", "script", groups)
    await world.passes()
    with pytest.raises(InvalidRequest, match="parameter-server"):
        await submitted(world, gang, replace(TRAIN, framework="pytorch"))
    workers = await world.control.gangs.request("bob", "script", TWO)
    await world.passes()
    assert (await submitted(world, workers, replace(TRAIN, framework="pytorch"))).job.run == 0


async def test_a_run_on_a_gang_that_is_over_is_told_so(world: World) -> None:
    gang = await held(world)
    await world.control.leases.release(gang.lease.id, "given back by ada")
    with pytest.raises(Ended, match="is ending: given back by ada"):
        await submitted(world, gang)
    await world.passes()
    with pytest.raises(Ended, match="is over: given back by ada; hold another with"):
        await submitted(world, gang)


async def test_a_run_that_comes_with_the_end_of_its_gang_is_refused(world: World) -> None:
    gang = await held(world)
    record = await world.control.gangs.find(gang.lease.id)
    await world.control.leases.release(gang.lease.id, "given back by ada")
    with pytest.raises(Ended):
        await world.control.gangs.submit(record, TRAIN)


async def test_one_gang_for_a_session_and_one_of_a_name_without(world: World) -> None:
    session = await world.session("work")
    gang = await held(world, parent=session)
    request = world.control.gangs.request
    with pytest.raises(Conflict) as caught:
        await request("ada", "script", TWO, parent=session)
    assert caught.value.message == (
        f"session 'work' has gang {gang.lease.id} (debug) already; "
        "give it back first with `nimbus debug stop`"
    )
    own = await request("ada", "script", [SlotGroup("worker")])
    with pytest.raises(Conflict, match=rf"^ada has gang {own.lease.id} \(debug\) already"):
        await request("ada", "script", [SlotGroup("worker")])
    both = await asyncio.gather(
        *(request("bob", "script", [SlotGroup("worker")]) for _ in range(2)),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in both) == ["Conflict", "Gang"]
    assert (await request("ada", "script", [SlotGroup("worker")], name="other")).lease.name


async def test_a_gang_needs_a_live_session_that_runs(world: World) -> None:
    request = world.control.gangs.request
    session = await world.session()
    job = await world.running()
    with pytest.raises(NotFound, match="is not that of a live session"):
        await request("ada", "script", TWO, parent=world.lease_of(job))
    with pytest.raises(Conflict, match="is still queued"):
        await request("ada", "script", TWO, parent=replace(session, slots=()))
    world.servers.fault = ConnectionError("the hub is away")
    ending = await world.control.leases.release(session.id, "given back by ada")
    with pytest.raises(Ended, match="is ending: given back by ada"):
        await request("ada", "script", TWO, parent=ending)


async def test_what_a_replica_says_while_it_runs_is_recorded_and_taken_back(
    world: World,
) -> None:
    gang = await held(world)
    run = await running(world, gang, replace(TRAIN, pdb=True))
    name = f"{run.id}.1.worker-0"
    world.executor.say(name, "waits in its debugger (post-mortem)")
    await world.passes()
    assert world.replicas(run)[0].reason == "waits in its debugger (post-mortem)"
    assert world.job(run).version > run.version
    world.executor.exit(name, 1)
    await world.settled()
    assert world.job(run).headline.startswith("worker-0 on cpu-1 exited with code 1; ")


async def test_a_debugger_gets_its_input(world: World) -> None:
    gang = await held(world)
    run = await running(world, gang, replace(TRAIN, pdb=True))
    spec = next(spec for spec in world.executor.started if spec.job_id == run.id)
    assert (spec.has_input, spec.env["NIMBUS_PDB"]) == (True, "1")
    await world.control.jobs.write_input(run.id, "worker-0", b"p x\n")
    assert world.executor.input(f"{run.id}.1.worker-0") == b"p x\n"
    with pytest.raises(NotFound, match="it has worker-0, worker-1"):
        await world.control.jobs.write_input(run.id, "worker-7", b"p x\n")


async def test_only_a_run_with_a_debugger_takes_input(world: World) -> None:
    gang = await held(world)
    run = await running(world, gang)
    with pytest.raises(Conflict, match="takes no input; run it with --pdb"):
        await world.control.jobs.write_input(run.id, "worker-0", b"p x\n")
    with pytest.raises(InvalidRequest, match="--pdb needs a debug gang"):
        await world.control.jobs.submit("ada", replace(TRAIN, pdb=True), TWO)


async def test_a_gang_is_never_a_guest(world: World) -> None:
    groups = [SlotGroup("worker", 1, 7000)]
    gangs = [await world.control.gangs.request(owner, "script", groups) for owner in ("ada", "bob")]
    await world.passes()
    await world.submit(gpus=2, cpus=7000)
    await world.submit(gpus=2, cpus=7000)
    await world.passes()
    assert not [gang for gang in gangs if world.lease(gang.lease).target]


async def test_held_time_of_a_gang_counts_for_fair_share(world: World) -> None:
    await world.control.gangs.request("ada", "script", [SlotGroup("worker", gpus=2)])
    await world.passes()
    world.skip(minutes=30)
    live = await world.control.records.live()
    snapshot = world.control.scheduling.snapshot(live.leases, world.clock.now())
    assert snapshot.usage["ada"] == pytest.approx(2 * 30 * 60, rel=0.01)


async def test_a_service_that_starts_again_goes_on_with_gang_and_run(
    world: World, tmp_path: Path
) -> None:
    gang = await held(world)
    run = await running(world, gang)
    world.control.close()
    again = World(tmp_path, world.executor, hosts=HOSTS)
    await again.control.inventory.refresh()
    await again.passes()
    seen = await again.control.gangs.get(gang.lease.id)
    assert (seen.state, again.job(run).state) == (GangState.BUSY, JobState.RUNNING)
    for replica in again.replicas(run):
        world.executor.exit(replica.id, 0)
    await again.passes()
    assert (await again.control.gangs.get(gang.lease.id)).state is GangState.READY
    again.control.close()
