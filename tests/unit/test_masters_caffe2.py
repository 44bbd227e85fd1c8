"""Caffe2's master: what each shard runs, when a job is done, what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import Outcome, ReplicaCommand, Verdict
from nimbus_hub.masters.caffe2 import Caffe2Master
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ARGV = ("python", "train.py", "--lr", "0.1")
MASTER = Caffe2Master()
SLOTS = tuple(
    Slot("worker", index, "a", f"172.17.0.{2 + index}", 1000, 2**30, (), (20000, 20001))
    for index in range(2)
)


def launch(argv: tuple[str, ...] = ARGV, **options: str) -> Launch:
    return Launch(argv, options=options)


def job(**options: str) -> Job:
    return Job("j-1", "digits", "ada", "l-1", launch(**options), NOW)


def replica(rank: int, exit_code: int | None = None, seconds: int = 0) -> Replica:
    state = ReplicaState.RUNNING if exit_code is None else ReplicaState.EXITED
    ended = None if exit_code is None else NOW + timedelta(seconds=seconds)
    return Replica(
        f"r{rank}", "j-1", 1, "worker", rank, rank, "a", state, exit_code, ended_at=ended
    )


def test_one_worker_runs_the_command_as_it_is() -> None:
    assert MASTER.accept(launch(("bash", "a.sh")), (SlotGroup("worker"),)) == (SlotGroup("worker"),)
    assert MASTER.command(job(), SLOTS[:1], 0) == ReplicaCommand(ARGV)


def test_each_of_many_is_run_by_the_runner() -> None:
    groups = (SlotGroup("worker", 2),)
    assert MASTER.accept(launch(), groups) == groups
    commands = [MASTER.command(job(timeout="7"), SLOTS, rank) for rank in range(2)]
    argv = ("python", "-u", "-m", "nimbus_hub.replica", "caffe2", "train.py", "--lr", "0.1")
    assert (
        commands
        == [ReplicaCommand(argv, {"CAFFE2_TIMEOUT": "7"}, interfaces=("CAFFE2_INTERFACE",))] * 2
    )
    assert MASTER.command(job(), SLOTS, 0).env == {"CAFFE2_TIMEOUT": "120"}


def test_a_job_succeeds_when_all_shards_do_and_the_first_to_fail_is_to_blame() -> None:
    assert MASTER.judge(job(), (replica(0, 0), replica(1, 0))) == Verdict(Outcome.SUCCEEDED)
    assert MASTER.judge(job(), (replica(0, 0), replica(1))) == Verdict(Outcome.RUNNING)
    killed, aborted = replica(1, -9, seconds=1), replica(0, -6, seconds=2)
    assert MASTER.judge(job(), (aborted, killed)) == Verdict(Outcome.FAILED, killed)
    assert MASTER.services({"worker"}) == frozenset()


@pytest.mark.parametrize(
    ("argv", "options", "role", "message"),
    [
        (
            ARGV,
            {},
            "ps",
            "Caffe2 runs one worker, or N that all-reduce (--workers N); leave out --ps",
        ),
        (
            ("bash", "a.sh"),
            {},
            "worker",
            "caffe2 over several processes needs a Python script or module, got 'bash'",
        ),
        (
            ARGV,
            {"timeout": "0"},
            "worker",
            "option timeout must be whole seconds of at least 1, got '0'",
        ),
    ],
)
def test_what_it_cannot_run_is_refused(
    argv: tuple[str, ...], options: dict[str, str], role: str, message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MASTER.accept(launch(argv, **options), (SlotGroup("worker"), SlotGroup(role)))
    assert caught.value.message == message
