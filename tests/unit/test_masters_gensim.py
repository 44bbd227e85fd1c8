"""Gensim's master: the roles it adds, what each replica runs, when a job is done."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import Outcome, ReplicaCommand, Verdict
from nimbus_hub.masters.gensim import GensimMaster
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LAUNCH = Launch(("python", "topics.py", "--fast"))
MASTER = GensimMaster()
ROLES = (("chief", 0), ("worker", 0), ("worker", 1), ("nameserver", 0), ("dispatcher", 0))
SLOTS = tuple(
    Slot(role, index, "a", f"10.0.0.{rank}", 1000, 2**30, (), (20000 + rank,))
    for rank, (role, index) in enumerate(ROLES)
)


def job(**options: str) -> Job:
    return Job("j-1", "topics", "ada", "l-1", replace(LAUNCH, options=options), NOW)


def replica(rank: int, exit_code: int | None = None, seconds: int = 0) -> Replica:
    state = ReplicaState.RUNNING if exit_code is None else ReplicaState.EXITED
    ended = None if exit_code is None else NOW + timedelta(seconds=seconds)
    role, index = ROLES[rank]
    return Replica(f"r{rank}", "j-1", 1, role, index, rank, "a", state, exit_code, ended_at=ended)


def test_several_workers_get_those_they_serve_and_are_served_by_once() -> None:
    workers = SlotGroup("worker", 2, cpus_milli=3000)
    groups = MASTER.accept(LAUNCH, (workers,))
    assert groups == (
        SlotGroup("chief", 1, cpus_milli=3000),
        workers,
        SlotGroup("nameserver", cpus_milli=100, memory_bytes=512 * 2**20),
        SlotGroup("dispatcher", cpus_milli=100, memory_bytes=2 * 2**30),
    )
    assert MASTER.accept(LAUNCH, groups) == groups


def test_a_chief_may_be_of_another_size_and_may_have_one_worker() -> None:
    chief, worker = SlotGroup("chief", cpus_milli=8000), SlotGroup("worker")
    groups = MASTER.accept(LAUNCH, (worker, chief))
    assert groups[:2] == (chief, worker)
    assert [group.role for group in groups[2:]] == ["nameserver", "dispatcher"]


def test_one_process_runs_the_command_as_it_is() -> None:
    assert MASTER.accept(LAUNCH, (SlotGroup("worker"),)) == (SlotGroup("worker"),)
    alone = replace(SLOTS[1], index=0)
    assert MASTER.command(job(), (alone,), 0) == ReplicaCommand(LAUNCH.argv)
    assert MASTER.services({"worker"}) == frozenset()


@pytest.mark.parametrize(
    ("options", "more"), [({}, {}), ({"timeout": "7"}, {"GENSIM_TIMEOUT": "7"})]
)
def test_everyone_but_the_name_server_waits_for_it(
    options: dict[str, str], more: dict[str, str]
) -> None:
    argv = ("python", "-u", "-m", "nimbus_hub.replica", "gensim", "topics.py", "--fast")
    assert [MASTER.command(job(**options), SLOTS, rank) for rank in range(5)] == [
        ReplicaCommand(
            argv,
            {
                "PYRO_NS_HOST": "10.0.0.3",
                "PYRO_NS_PORT": "20003",
                "PYRO_HOST": f"10.0.0.{rank}",
                "PYRO_SERIALIZER": "pickle",
                "PYRO_SERIALIZERS_ACCEPTED": "pickle",
                "PYRO_THREADPOOL_SIZE": "72",
                "GENSIM_WORKERS": "2",
                **more,
            },
            {} if rank == 3 else {"nameserver-0": "10.0.0.3:20003"},
        )
        for rank in range(5)
    ]


def test_the_chief_decides_and_nobody_may_die_before_it() -> None:
    serving = tuple(replica(rank) for rank in range(1, 5))
    assert MASTER.services({role for role, _ in ROLES}) == {"worker", "nameserver", "dispatcher"}
    assert MASTER.judge(job(), (replica(0), *serving)) == Verdict(Outcome.RUNNING)
    assert MASTER.judge(job(), (replica(0, 0), *serving)) == Verdict(Outcome.SUCCEEDED)
    worker = replica(2, -9, seconds=1)
    dying = (replica(0, 1, seconds=2), replica(1), worker, replica(3), replica(4))
    assert MASTER.judge(job(), dying) == Verdict(Outcome.FAILED, worker)


@pytest.mark.parametrize(("role", "said"), [("ps", "--ps"), ("evaluator", "--evaluator")])
def test_other_roles_are_refused(role: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MASTER.accept(LAUNCH, (SlotGroup("worker"), SlotGroup(role)))
    assert caught.value.message == (
        "Gensim runs one process, or a chief with N workers that serve it (--workers N); "
        f"leave out {said}"
    )


def test_what_no_runner_gets_into_and_senseless_options_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="needs a Python script or module, got 'bash'"):
        MASTER.accept(Launch(("bash", "run.sh")), (SlotGroup("worker", 2),))
    with pytest.raises(InvalidRequest, match=r"whole seconds of at least 1, got '0\.5'"):
        MASTER.accept(job(timeout="0.5").launch, (SlotGroup("worker"),))
    with pytest.raises(InvalidRequest, match="has no option 'passes'; it has timeout"):
        MASTER.accept(job(passes="1").launch, (SlotGroup("worker"),))
