"""Application masters: what each replica runs and when a job is done, as whole values."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint, EntryPoints

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
    groups = (SlotGroup("chief"), SlotGroup("ps", 2))
    assert master.accept(job().launch, groups) == groups
    assert master.command(job(), (slot(0, "chief"), slot(0, "ps")), 1) == ReplicaCommand(ARGV)


def test_a_job_succeeds_when_all_replicas_do() -> None:
    assert ScriptMaster().judge(job(), (replica(0, 0), replica(1, 0))) == Verdict(Outcome.SUCCEEDED)
    assert ScriptMaster().judge(job(), (replica(0, 0), replica(1))) == Verdict(Outcome.RUNNING)


def test_the_replica_that_failed_first_is_to_blame() -> None:
    first = replica(1, 3, seconds=1)
    gang = (replica(0, 1, seconds=2), first, replica(2))
    assert PyTorchMaster().judge(job(), gang) == Verdict(Outcome.FAILED, first)


# PyTorch


def test_every_worker_is_told_its_place_in_the_world() -> None:
    slots = (slot(0), slot(1), slot(2, host="b", address="10.0.0.2"))
    assert [PyTorchMaster().command(job(), slots, rank) for rank in range(3)] == [
        ReplicaCommand(
            ARGV,
            {
                "RANK": rank,
                "WORLD_SIZE": "3",
                "MASTER_ADDR": "10.0.0.1",
                "MASTER_PORT": "20000",
                "LOCAL_RANK": local_rank,
                "LOCAL_WORLD_SIZE": local_size,
            },
            interfaces=("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME"),
        )
        for rank, local_rank, local_size in (("0", "0", "2"), ("1", "1", "2"), ("2", "0", "1"))
    ]


def test_a_worker_with_gpus_uses_the_first_it_sees() -> None:
    slots = (slot(0, gpus=(0,)), slot(1, gpus=(1,)))
    env = PyTorchMaster().command(job(), slots, 1).env
    assert (env["LOCAL_RANK"], env["LOCAL_WORLD_SIZE"], env["RANK"]) == ("0", "1", "1")


def test_a_single_worker_is_a_world_of_one() -> None:
    assert PyTorchMaster().command(job(), (slot(address="127.0.0.1"),), 0).env == {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "20000",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
    }


def test_each_attempt_meets_at_another_port() -> None:
    ports = [
        PyTorchMaster().command(job(attempt), (slot(),), 0).env["MASTER_PORT"]
        for attempt in (1, 2, 3)
    ]
    assert ports == ["20000", "20001", "20002"]


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("ps", "PyTorch has no parameter-server mode here; use --workers"),
        ("chief", "PyTorch runs workers only, got role 'chief'; use --workers"),
    ],
)
def test_pytorch_takes_workers_only(role: str, message: str) -> None:
    PyTorchMaster().accept(job().launch, (SlotGroup("worker", 2),))
    with pytest.raises(InvalidRequest) as caught:
        PyTorchMaster().accept(job().launch, (SlotGroup("worker"), SlotGroup(role)))
    assert caught.value.message == message


# The registry


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
    assert sorted(registry.masters()) == ["good", "pytorch", "script"]
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
        "There are broken, good, pytorch, script"
    )


def test_the_built_in_masters_need_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints(()))
    assert sorted(registry.masters()) == ["pytorch", "script"]
