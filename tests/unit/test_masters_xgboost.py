"""XGBoost's master: its tracker, what each replica runs, when a job is done, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import Outcome, ReplicaCommand, Verdict
from nimbus_hub.masters.xgboost import XGBoostMaster
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LAUNCH = Launch(("python", "train.py", "--fast"))
MASTER = XGBoostMaster()
TRACKER = SlotGroup("tracker", cpus_milli=100, memory_bytes=512 * 2**20)
SLOTS = tuple(
    Slot(role, index, "a", "10.0.0.1", 1000, 2**30, (), tuple(range(first, first + 4)))
    for role, index, first in (("worker", 0, 20000), ("worker", 1, 20004), ("tracker", 0, 20008))
)


def job(**options: str) -> Job:
    return Job("j-1", "digits", "ada", "l-1", replace(LAUNCH, options=options), NOW)


def replica(role: str, rank: int, exit_code: int | None = None, seconds: int = 0) -> Replica:
    state = ReplicaState.RUNNING if exit_code is None else ReplicaState.EXITED
    ended = None if exit_code is None else NOW + timedelta(seconds=seconds)
    return Replica(f"r{rank}", "j-1", 1, role, rank, rank, "a", state, exit_code, ended_at=ended)


def test_several_workers_get_a_tracker_once() -> None:
    workers = SlotGroup("worker", 2)
    groups = MASTER.accept(LAUNCH, (workers,))
    assert groups == (workers, TRACKER)
    assert MASTER.accept(LAUNCH, groups) == groups


def test_one_worker_runs_the_command_as_it_is() -> None:
    assert MASTER.accept(LAUNCH, (SlotGroup("worker"),)) == (SlotGroup("worker"),)
    assert MASTER.command(job(), SLOTS[:1], 0) == ReplicaCommand(LAUNCH.argv)


def test_every_worker_waits_for_the_tracker_and_joins_it() -> None:
    argv = ("python", "-u", "-m", "nimbus_hub.replica", "xgboost", "train.py", "--fast")
    needs = {"tracker-0": "10.0.0.1:20008"}
    assert [MASTER.command(job(timeout="7"), SLOTS, rank) for rank in range(3)] == [
        ReplicaCommand(
            argv,
            {
                "DMLC_TRACKER_URI": "10.0.0.1",
                "DMLC_TRACKER_PORT": "20008",
                "DMLC_TASK_ID": str(rank),
                "DMLC_TIMEOUT": "7",
            },
            needs if rank < 2 else {},
        )
        for rank in range(3)
    ]


def test_the_workers_decide_and_the_tracker_may_not_die_before_them() -> None:
    done = (replica("worker", 0, 0), replica("worker", 1, 0), replica("tracker", 2))
    assert MASTER.judge(job(), done) == Verdict(Outcome.SUCCEEDED)
    tracker = replica("tracker", 2, -9, seconds=1)
    dying = (replica("worker", 0), replica("worker", 1, 1, seconds=2), tracker)
    assert MASTER.judge(job(), dying) == Verdict(Outcome.FAILED, tracker)


@pytest.mark.parametrize(
    ("role", "said"),
    [("ps", "--ps"), ("chief", "--chief"), ("evaluator", "--evaluator")],
)
def test_other_roles_are_refused(role: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MASTER.accept(LAUNCH, (SlotGroup("worker"), SlotGroup(role)))
    assert caught.value.message == (
        f"XGBoost runs one worker, or N that all-reduce (--workers N); leave out {said}"
    )


def test_what_no_runner_gets_into_and_senseless_options_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="needs a Python script or module, got 'bash'"):
        MASTER.accept(Launch(("bash", "run.sh")), (SlotGroup("worker", 2),))
    with pytest.raises(InvalidRequest, match="whole seconds of at least 1, got '0'"):
        MASTER.accept(job(timeout="0").launch, (SlotGroup("worker"),))
    with pytest.raises(InvalidRequest, match="has no option 'tree'; it has timeout"):
        MASTER.accept(job(tree="1").launch, (SlotGroup("worker"),))
