"""Application masters: what each replica runs and when a job is done, as whole values."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from nimbus_hub.errors import InvalidRequest, Unavailable
from nimbus_hub.masters import registry
from nimbus_hub.masters.base import Outcome, ReplicaCommand, Verdict
from nimbus_hub.masters.environment import contract_environment
from nimbus_hub.masters.pytorch import PyTorchMaster
from nimbus_hub.masters.script import ScriptMaster
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ARGV = ("python", "train.py")


def job(attempt: int = 1, **env: str) -> Job:
    launch = Launch(ARGV, env=env, retries=3)
    return Job("j-1", "digits", "ada", "l-1", launch, NOW, attempt=attempt)


def slot(
    index: int = 0,
    role: str = "worker",
    host: str = "a",
    address: str = "10.0.0.1",
    cpus: int = 2500,
    gpus: tuple[int, ...] = (),
) -> Slot:
    first = 20000 + 4 * index
    return Slot(role, index, host, address, cpus, 2**30, gpus, tuple(range(first, first + 4)))


def replica(rank: int, exit_code: int | None = None, seconds: int = 0) -> Replica:
    state = ReplicaState.RUNNING if exit_code is None else ReplicaState.EXITED
    ended = None if exit_code is None else NOW + timedelta(seconds=seconds)
    return Replica(
        f"r{rank}", "j-1", 1, "worker", rank, rank, "a", state, exit_code, ended_at=ended
    )


# The contract


def test_the_contract_tells_a_replica_who_it_is() -> None:
    slots = (slot(0, "chief"), slot(0, gpus=(2, 3)), slot(1), slot(0, "ps"))
    assert contract_environment(job(2), slots, 1, {"ps"}, "http://hub/nimbus", "secret") == {
        "NIMBUS_JOB_ID": "j-1",
        "NIMBUS_JOB_NAME": "digits",
        "NIMBUS_ROLE": "worker",
        "NIMBUS_RANK": "1",
        "NIMBUS_WORLD_SIZE": "3",
        "NIMBUS_ROLE_RANK": "0",
        "NIMBUS_ATTEMPT": "2",
        "NIMBUS_RUN_ID": "j-1-2",
        "NIMBUS_ADDRESS": "10.0.0.1",
        "NIMBUS_API_URL": "http://hub/nimbus",
        "NIMBUS_TOKEN": "secret",
        "CUDA_VISIBLE_DEVICES": "2,3",
        "NVIDIA_VISIBLE_DEVICES": "2,3",
        "OMP_NUM_THREADS": "2",
        "PYTHONUNBUFFERED": "1",
    }


def test_a_replica_without_gpus_sees_none() -> None:
    env = contract_environment(job(), (slot(cpus=500),), 0, (), "", "")
    assert (env["CUDA_VISIBLE_DEVICES"], env["NVIDIA_VISIBLE_DEVICES"]) == ("", "void")
    assert env["OMP_NUM_THREADS"] == "1"


def test_the_users_variables_replace_defaults_but_not_the_contract() -> None:
    mine = job(OMP_NUM_THREADS="7", NIMBUS_RANK="9", CUDA_VISIBLE_DEVICES="0", LR="0.1")
    env = contract_environment(mine, (slot(gpus=(3,)),), 0, (), "", "")
    assert (env["OMP_NUM_THREADS"], env["LR"]) == ("7", "0.1")
    assert (env["NIMBUS_RANK"], env["CUDA_VISIBLE_DEVICES"]) == ("0", "3")


# Script


def test_a_script_runs_as_it_is_in_any_roles() -> None:
    master = ScriptMaster()
    groups = (SlotGroup("chief"), SlotGroup("reader", 2), SlotGroup("ps", 2))
    assert master.accept(job().launch, groups) == groups
    assert master.command(job(), (slot(0, "chief"), slot(0, "ps")), 1) == ReplicaCommand(ARGV)


def test_those_who_serve_come_last_and_need_somebody_to_serve() -> None:
    ps, evaluator, worker = SlotGroup("ps", 2), SlotGroup("evaluator"), SlotGroup("worker")
    accept = ScriptMaster().accept
    assert accept(job().launch, (ps, worker, evaluator)) == (worker, ps, evaluator)
    with pytest.raises(InvalidRequest) as caught:
        accept(job().launch, (ps, evaluator))
    assert caught.value.message == (
        "evaluator and ps serve others, and there is nobody to serve; add --workers N"
    )


def test_a_role_that_never_ends_holds_up_no_job() -> None:
    serving = replace(replica(2), role="ps")
    assert ScriptMaster().judge(job(), (replica(0, 0), replica(1, 0), serving)) == Verdict(
        Outcome.SUCCEEDED
    )


def test_a_job_succeeds_when_all_replicas_do() -> None:
    assert ScriptMaster().judge(job(), (replica(0, 0), replica(1, 0))) == Verdict(Outcome.SUCCEEDED)
    assert ScriptMaster().judge(job(), (replica(0, 0), replica(1))) == Verdict(Outcome.RUNNING)


def test_the_replica_that_failed_first_is_to_blame() -> None:
    first = replica(1, 3, seconds=1)
    gang = (replica(0, 1, seconds=2), first, replica(2))
    assert PyTorchMaster().judge(job(), gang) == Verdict(Outcome.FAILED, first)


# The registry

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
BUILT_IN = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"][registry.GROUP]


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    points = [
        EntryPoint("good", "nimbus_hub.masters.script:ScriptMaster", registry.GROUP),
        EntryPoint("broken", "nimbus_hub.masters.nowhere:Master", registry.GROUP),
        EntryPoint("pytorch", "nimbus_hub.masters.nowhere:Master", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints(points))
    registry._loaded.cache_clear()
    yield
    registry._loaded.cache_clear()


@pytest.mark.usefixtures("plug_ins")
def test_plug_ins_are_found_beside_the_built_in_masters() -> None:
    assert sorted(registry.masters()) == sorted([*BUILT_IN, "good"])
    assert isinstance(registry.master("good"), ScriptMaster)
    assert isinstance(registry.master("pytorch"), PyTorchMaster)


@pytest.mark.usefixtures("plug_ins")
def test_a_broken_plug_in_is_named_when_it_is_asked_for() -> None:
    with pytest.raises(Unavailable, match=r"'broken' cannot be used: its plug-in .*nowhere"):
        registry.master("broken")


@pytest.mark.usefixtures("plug_ins")
def test_an_unknown_framework_names_the_known_ones() -> None:
    with pytest.raises(InvalidRequest) as caught:
        registry.master("pytroch")
    assert caught.value.message == (
        "there is no framework 'pytroch', did you mean pytorch? "
        f"There are {', '.join(sorted([*BUILT_IN, 'broken', 'good']))}"
    )


def test_the_built_in_masters_need_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints(()))
    found = {
        name: f"{type(each).__module__}:{type(each).__name__}"
        for name, each in registry.masters().items()
    }
    assert found == BUILT_IN
