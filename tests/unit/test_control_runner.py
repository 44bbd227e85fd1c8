"""The runner: replicas that cannot start, hosts that leave, masters that break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nimbus_hub.control import runner
from nimbus_hub.control.blame import how
from nimbus_hub.errors import Conflict, InvalidRequest, NotFound, Unavailable
from nimbus_hub.masters.base import Master, ReplicaCommand, Verdict
from nimbus_hub.masters.script import ScriptMaster
from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import LeaseState
from nimbus_hub.model.replica import Replica, ReplicaSpec, ReplicaState
from nimbus_hub.model.slot import Slot
from tests.unit.control_harness import GPU_1, World

REPLICA = Replica("j-1.1.worker-0", "j-1", 1, "worker", 0, 0, "gpu-1")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.control.inventory.refresh()
    yield world
    world.control.close()


@pytest.mark.parametrize(
    ("state", "code", "reason", "sentence"),
    [
        (ReplicaState.EXITED, 3, "", "exited with code 3"),
        (ReplicaState.EXITED, -9, "over its memory", "was ended by signal 9 (over its memory)"),
        (ReplicaState.EXITED, None, "no program 'pyton'", "did not run: no program 'pyton'"),
        (ReplicaState.LOST, None, "its host went away", "was lost: its host went away"),
    ],
)
def test_how_a_replica_ended_is_said(
    state: ReplicaState, code: int | None, reason: str, sentence: str
) -> None:
    assert how(replace(REPLICA, state=state, exit_code=code, reason=reason)) == sentence


@pytest.mark.parametrize("error", [InvalidRequest, NotFound, Conflict])
async def test_a_refused_start_fails_the_job_with_the_reason(
    world: World, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    async def refuse(spec: ReplicaSpec) -> None:
        raise error("there is no snapshot 1234")

    monkeypatch.setattr(world.executor, "start", refuse)
    job = await world.running()
    assert (job.state, job.reason) == (
        JobState.FAILED,
        "worker-0 on cpu-1 did not run: there is no snapshot 1234",
    )
    assert world.store.lease(job.lease_id).state is LeaseState.RELEASED


async def test_a_start_that_a_crash_cut_off_is_done_again(world: World) -> None:
    world.executor.auto_run = False
    job = await world.running()
    assert [r.state for r in world.replicas(job)] == [ReplicaState.STARTING]
    world.executor._replicas.clear()
    world.executor.auto_run = True
    await world.passes()
    assert world.job(job).state is JobState.RUNNING


async def test_a_replica_that_its_host_has_forgotten_is_lost(world: World) -> None:
    job = await world.running()
    world.executor._replicas.clear()
    await world.passes()
    assert world.job(job).reason == (
        "worker-0 on cpu-1 was lost: its host knows nothing of it any more"
    )
    assert len(world.executor.started) == 1


async def test_a_host_that_left_ends_its_jobs_with_the_reason(world: World) -> None:
    job = await world.running(workers=2)
    world.executor._hosts = (GPU_1,)
    await world.control.inventory.refresh()
    await world.passes()
    over = world.job(job)
    assert over.state is JobState.FAILED
    assert over.reason == "host cpu-1 is not in the inventory any more"
    assert {replica for replica, _ in world.executor.stopped} == {
        replica.id for replica in world.replicas(job)
    }
    lease = world.store.lease(job.lease_id)
    assert (lease.state, lease.reason) == (LeaseState.LOST, over.reason)


async def test_a_host_that_does_not_answer_has_not_left(tmp_path: Path) -> None:
    before = World(tmp_path)
    await before.control.inventory.refresh()
    job = await before.running()
    before.control.close()
    after = World(tmp_path, before.executor)
    before.executor.unreachable = True
    await after.control.inventory.refresh()
    await after.passes()
    assert after.job(job).state is JobState.RUNNING
    before.executor.unreachable = False
    await after.control.inventory.refresh()
    before.executor.exit(after.replicas(job)[0].id, 0)
    await after.passes()
    assert after.job(job).state is JobState.SUCCEEDED
    after.control.close()


class FailsToCommand(ScriptMaster):
    """Cannot say what a replica runs."""

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        raise KeyError("TF_CONFIG")


class FailsToJudge(ScriptMaster):
    """Cannot say how a job stands."""

    def judge(self, job: Job, replicas: Sequence[Replica]) -> Verdict:
        raise ZeroDivisionError("no replicas")


def broken(error: Exception) -> Callable[[str], Master]:
    def find(name: str) -> Master:
        raise error

    return find


@pytest.mark.parametrize(
    ("find", "sentence"),
    [
        (lambda name: FailsToCommand(), "'script' failed with KeyError: 'TF_CONFIG'"),
        (lambda name: FailsToJudge(), "'script' failed with ZeroDivisionError: no replicas"),
        (broken(InvalidRequest("there is no framework 'x'")), "there is no framework 'x'"),
        (broken(Unavailable("its plug-in failed")), "its plug-in failed"),
    ],
)
async def test_a_broken_master_ends_the_job_with_the_reason(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    find: Callable[[str], Master],
    sentence: str,
) -> None:
    job = await world.submit()
    monkeypatch.setattr(runner, "master", find)
    await world.passes(6)
    over = world.job(job)
    assert over.state is JobState.FAILED
    assert sentence in over.reason
    assert world.store.live() == ((), (), ())


async def test_progress_told_while_hosts_are_asked_holds_nothing_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await world.running()
    poll = world.executor.poll

    async def slow_poll(replica_id: str) -> object:
        await world.control.jobs.report(job.id, 0.5, "half")
        return await poll(replica_id)

    monkeypatch.setattr(world.executor, "poll", slow_poll)
    world.executor.exit(world.replicas(job)[0].id, 0)
    await world.passes(1)
    assert world.job(job).state is JobState.SUCCEEDED


async def test_why_a_replica_does_not_start_is_told_till_it_runs(world: World) -> None:
    world.executor.auto_run = False
    job = await world.running()
    world.executor.unreachable = True
    await world.passes(2)
    assert [each.reason for each in world.replicas(job)] == ["the fake executor does not answer"]
    world.executor.unreachable = False
    await world.passes(2)
    assert [each.reason for each in world.replicas(job)] == ["the fake executor does not answer"]
    world.skip(minutes=6)
    await world.passes(2)
    reason = "worker-0 did not start within 5m: the fake executor does not answer"
    assert world.job(job).reason == reason


async def test_a_gang_that_is_not_complete_in_time_is_given_up(world: World) -> None:
    world.executor.auto_run = False
    job = await world.running(workers=2)
    world.executor.run(world.replicas(job)[1].id)
    world.skip(minutes=6)
    await world.passes(6)
    over = world.job(job)
    assert (over.state, over.reason) == (JobState.FAILED, "worker-0 did not start within 5m")
