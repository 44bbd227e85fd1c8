"""MPI's master: its mpiexec, what each replica runs, who is to blame."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import Outcome, ReplicaCommand, Verdict
from nimbus_hub.masters.mpi import MpiMaster
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LAUNCH = Launch(("./solve", "--fast"))
MASTER = MpiMaster()
RUNNER = ("python", "-u", "-m", "nimbus_hub.replica", "mpi")
ROLES = (("worker", 0), ("worker", 1), ("mpiexec", 0))
SLOTS = tuple(
    Slot(role, index, "a", f"10.0.0.{rank}", 1000, 2**30, (), (20000 + rank,))
    for rank, (role, index) in enumerate(ROLES)
)
ENDED_WITH_OTHERS = 143


def job(**options: str) -> Job:
    return Job("j-1", "solve", "ada", "l-1", replace(LAUNCH, options=options), NOW)


def replica(rank: int, exit_code: int | None = None, seconds: float = 0) -> Replica:
    state = ReplicaState.RUNNING if exit_code is None else ReplicaState.EXITED
    ended = None if exit_code is None else NOW + timedelta(seconds=seconds)
    role, index = ROLES[rank]
    return Replica(f"r{rank}", "j-1", 1, role, index, rank, "a", state, exit_code, ended_at=ended)


def test_several_ranks_get_an_mpiexec_once() -> None:
    workers = SlotGroup("worker", 2)
    groups = MASTER.accept(LAUNCH, (workers,))
    mpiexec = SlotGroup("mpiexec", cpus_milli=100, memory_bytes=512 * 2**20)
    assert groups == (workers, mpiexec)
    assert MASTER.accept(LAUNCH, groups) == groups
    assert MASTER.services({"worker", "mpiexec"}) == {"mpiexec"}


def test_one_rank_runs_the_command_as_it_is() -> None:
    assert MASTER.accept(LAUNCH, (SlotGroup("worker"),)) == (SlotGroup("worker"),)
    assert MASTER.command(job(), SLOTS[:1], 0) == ReplicaCommand(LAUNCH.argv)


@pytest.mark.parametrize(("options", "seconds"), [({}, "300"), ({"timeout": "7"}, "7")])
def test_ranks_come_to_mpiexec_for_their_command(options: dict[str, str], seconds: str) -> None:
    rank = ReplicaCommand(RUNNER, needs={"mpiexec-0": "10.0.0.2:20002"})
    assert [MASTER.command(job(**options), SLOTS, rank) for rank in range(3)] == [
        rank,
        rank,
        ReplicaCommand(
            (*RUNNER, "./solve", "--fast"),
            {
                "MPIEXEC_HOSTS": "worker-0,worker-1",
                "MPIEXEC_PORT": "20002",
                "MPIEXEC_WAIT_SECONDS": seconds,
            },
        ),
    ]


def test_mpiexec_decides() -> None:
    running = (replica(0), replica(1, 0), replica(2))
    assert MASTER.judge(job(), running) == Verdict(Outcome.RUNNING)
    assert MASTER.judge(job(), (*running[:2], replica(2, 0))) == Verdict(Outcome.SUCCEEDED)
    assert MASTER.judge(job(), (replica(0, 0),)) == Verdict(Outcome.SUCCEEDED)


def test_the_rank_that_failed_is_to_blame_though_mpiexec_may_end_before_it() -> None:
    first = replica(1, 3, seconds=0.5)
    gang = (replica(0, ENDED_WITH_OTHERS, seconds=0.4), first, replica(2, 9, seconds=0.3))
    assert MASTER.judge(job(), gang) == Verdict(Outcome.FAILED, first)
    alone = (replica(0), first, replica(2))
    assert MASTER.judge(job(), alone) == Verdict(Outcome.FAILED, first)


def test_mpiexec_is_to_blame_if_it_ended_before_any_rank_failed() -> None:
    mpiexec = replica(2, 1)
    gang = (replica(0, ENDED_WITH_OTHERS, seconds=0.1), replica(1, -9, seconds=4), mpiexec)
    assert MASTER.judge(job(), gang) == Verdict(Outcome.FAILED, mpiexec)


@pytest.mark.parametrize(
    ("role", "said"),
    [("ps", "--ps"), ("chief", "--chief"), ("evaluator", "--evaluator")],
)
def test_other_roles_are_refused(role: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MASTER.accept(LAUNCH, (SlotGroup("worker"), SlotGroup(role)))
    assert caught.value.message == f"MPI runs N equal ranks (--workers N); leave out {said}"


def test_senseless_options_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="whole seconds of at least 1, got '0'"):
        MASTER.accept(job(timeout="0").launch, (SlotGroup("worker", 2),))
    with pytest.raises(InvalidRequest, match="has no option 'ppn'; it has timeout"):
        MASTER.accept(job(ppn="2").launch, (SlotGroup("worker"),))
