"""LightGBM's master: what each worker runs, when a job is done, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import Outcome, ReplicaCommand, Verdict
from nimbus_hub.masters.lightgbm import LightGBMMaster
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LAUNCH = Launch(("python", "-u", "-m", "train"))
MASTER = LightGBMMaster()
SLOTS = tuple(
    Slot("worker", index, "a", "10.0.0.1", 1000, 2**30, (), tuple(range(first, first + 4)))
    for index, first in enumerate((20000, 20004))
)


def job(**options: str) -> Job:
    return Job("j-1", "digits", "ada", "l-1", replace(LAUNCH, options=options), NOW)


def replica(rank: int, exit_code: int | None = None, seconds: int = 0) -> Replica:
    state = ReplicaState.RUNNING if exit_code is None else ReplicaState.EXITED
    ended = None if exit_code is None else NOW + timedelta(seconds=seconds)
    return Replica(
        f"r{rank}", "j-1", 1, "worker", rank, rank, "a", state, exit_code, ended_at=ended
    )


def test_one_worker_runs_the_command_as_it_is() -> None:
    assert MASTER.accept(LAUNCH, (SlotGroup("worker"),)) == (SlotGroup("worker"),)
    assert MASTER.command(job(), SLOTS[:1], 0) == ReplicaCommand(LAUNCH.argv)


def test_every_worker_knows_all_and_its_own_port() -> None:
    groups = (SlotGroup("worker", 2),)
    assert MASTER.accept(LAUNCH, groups) == groups
    mine = job(tree_learner="voting", timeout="5")
    assert [MASTER.command(mine, SLOTS, rank) for rank in range(2)] == [
        ReplicaCommand(
            ("python", "-u", "-m", "nimbus_hub.replica", "lightgbm", "-m", "train"),
            {
                "LIGHTGBM_MACHINES": "10.0.0.1:20000,10.0.0.1:20004",
                "LIGHTGBM_PORT": port,
                "LIGHTGBM_TREE_LEARNER": "voting",
                "LIGHTGBM_TIMEOUT": "5",
            },
        )
        for port in ("20000", "20004")
    ]


def test_the_first_that_fails_ends_the_job() -> None:
    first = replica(1, -9, seconds=1)
    assert MASTER.judge(job(), (replica(0), first)) == Verdict(Outcome.FAILED, first)
    assert MASTER.judge(job(), (replica(0), replica(1, 0))) == Verdict(Outcome.RUNNING)
    assert MASTER.judge(job(), (replica(0, 0), replica(1, 0))) == Verdict(Outcome.SUCCEEDED)


@pytest.mark.parametrize(
    ("role", "said"),
    [("ps", "--ps"), ("chief", "--chief"), ("evaluator", "--evaluator")],
)
def test_other_roles_are_refused(role: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MASTER.accept(LAUNCH, (SlotGroup("worker"), SlotGroup(role)))
    assert caught.value.message == (
        f"LightGBM runs one worker, or N that all-reduce (--workers N); leave out {said}"
    )


def test_what_no_runner_gets_into_and_senseless_options_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="needs a Python script or module, got 'bash'"):
        MASTER.accept(Launch(("bash", "run.sh")), (SlotGroup("worker", 2),))
    with pytest.raises(InvalidRequest, match="one of data, feature, voting, got 'serial'"):
        MASTER.accept(job(tree_learner="serial").launch, (SlotGroup("worker"),))
    with pytest.raises(InvalidRequest, match=r"whole seconds of at least 1, got '0\.5'"):
        MASTER.accept(job(timeout="0.5").launch, (SlotGroup("worker"),))
