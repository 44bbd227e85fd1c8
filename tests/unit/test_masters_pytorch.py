"""PyTorch's master: what each worker runs, when a job is done, what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import Outcome, ReplicaCommand, Verdict
from nimbus_hub.masters.pytorch import PyTorchMaster
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ARGV = ("python", "train.py", "--lr", "0.1")
WITH_RUNNER = ("python", "-u", "-m", "nimbus_hub.replica", "pytorch", "train.py", "--lr", "0.1")
MASTER = PyTorchMaster()
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


def launch(argv: tuple[str, ...] = ARGV, **options: str) -> Launch:
    return Launch(argv, options=options)


def job(attempt: int = 1, argv: tuple[str, ...] = ARGV, **options: str) -> Job:
    return Job("j-1", "digits", "ada", "l-1", launch(argv, **options), NOW, attempt=attempt)


def slot(
    index: int = 0, host: str = "a", address: str = "10.0.0.1", gpus: tuple[int, ...] = ()
) -> Slot:
    first = 20000 + 4 * index
    ports = tuple(range(first, first + 4))
    return Slot("worker", index, host, address, 1000, 2**30, gpus, ports)


def replica(
    rank: int, exit_code: int | None = None, seconds: int = 0, restarts: int = 0
) -> Replica:
    state = ReplicaState.RUNNING if exit_code is None else ReplicaState.EXITED
    ended = None if exit_code is None else NOW + timedelta(seconds=seconds)
    return Replica(
        f"r{rank}",
        "j-1",
        1,
        "worker",
        rank,
        rank,
        "a",
        state,
        exit_code,
        ended_at=ended,
        restarts=restarts,
    )


def test_every_worker_is_told_its_place_in_the_world() -> None:
    slots = (slot(0), slot(1), slot(2, host="b", address="10.0.0.2"))
    assert [MASTER.command(job(), slots, rank) for rank in range(3)] == [
        ReplicaCommand(
            WITH_RUNNER,
            {
                "PYTORCH_TIMEOUT": "600",
                "RANK": rank,
                "WORLD_SIZE": "3",
                "MASTER_ADDR": "10.0.0.1",
                "MASTER_PORT": "20000",
                "LOCAL_RANK": local_rank,
                "LOCAL_WORLD_SIZE": local_size,
            },
            interfaces=INTERFACES,
        )
        for rank, local_rank, local_size in (("0", "0", "2"), ("1", "1", "2"), ("2", "0", "1"))
    ]


def test_a_worker_with_gpus_uses_the_first_it_sees_and_fails_when_nccl_does() -> None:
    slots = (slot(0, gpus=(0,)), slot(1, gpus=(1,)))
    assert MASTER.command(job(allreduce="tree", timeout="90"), slots, 1).env == {
        "PYTORCH_TIMEOUT": "90",
        "RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "20000",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "NCCL_DEBUG": "WARN",
        "NCCL_ALGO": "allreduce:tree",
    }


def test_what_nccl_is_told_usually_the_user_may_say_otherwise() -> None:
    mine = Job("j-1", "digits", "ada", "l-1", Launch(ARGV, env={"NCCL_DEBUG": "INFO"}), NOW)
    env = MASTER.command(mine, (slot(0, gpus=(0,)), slot(1, gpus=(1,))), 0).env
    assert "NCCL_DEBUG" not in env
    assert env["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "1"


def test_a_single_worker_is_a_world_of_one() -> None:
    assert MASTER.command(job(), (slot(address="127.0.0.1", gpus=(3,)),), 0).env == {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "20000",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
    }


def test_what_is_not_pythons_runs_as_it_is_and_sees_to_its_time_outs_itself() -> None:
    program = ("accelerate", "launch", "train.py")
    command = MASTER.command(job(1, program), (slot(0), slot(1)), 0)
    assert command.argv == program
    with pytest.raises(InvalidRequest, match="option timeout over several processes needs"):
        MASTER.accept(launch(program, timeout="90"), (SlotGroup("worker", 2),))


def test_each_attempt_meets_at_another_port() -> None:
    ports = [MASTER.command(job(n), (slot(),), 0).env["MASTER_PORT"] for n in (1, 2, 3)]
    assert ports == ["20000", "20001", "20002"]


def test_the_replica_that_failed_first_is_to_blame() -> None:
    first = replica(1, 3, seconds=1)
    gang = (replica(0, 1, seconds=2), first, replica(2))
    assert MASTER.judge(job(), gang) == Verdict(Outcome.FAILED, first)


# Elastic


def test_the_workers_of_an_elastic_job_have_an_agent_above_them() -> None:
    slots = (slot(0), slot(1, host="b", address="10.0.0.2"))
    mine = job(2, ("python", "-u", "-m", "train", "--lr", "0.1"), elastic="1", restarts="5")
    assert MASTER.command(mine, slots, 1) == ReplicaCommand(
        (
            "python",
            "-u",
            "-m",
            "torch.distributed.run",
            "--nnodes=1:2",
            "--nproc-per-node=1",
            "--max-restarts=5",
            "--rdzv-backend=c10d",
            "--rdzv-endpoint=10.0.0.1:20001",
            "--rdzv-id=j-1-2",
            "--rdzv-conf=is_host=0,last_call_timeout=5,keep_alive_interval=2,"
            "keep_alive_max_attempt=3",
            "--local-addr=10.0.0.2",
            "--module",
            "nimbus_hub.replica",
            "pytorch",
            "-m",
            "train",
            "--lr",
            "0.1",
        ),
        {"PYTORCH_TIMEOUT": "600", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        interfaces=INTERFACES,
    )
    assert any("is_host=1," in word for word in MASTER.command(mine, slots, 0).argv)
    assert "--max-restarts=3" in MASTER.command(job(elastic="1"), slots, 0).argv


@pytest.mark.parametrize("exit_code", [-9, -15])
def test_a_lost_worker_of_an_elastic_job_is_replaced_alone(exit_code: int) -> None:
    lost = replica(1, exit_code, restarts=2)
    verdict = MASTER.judge(job(elastic="1"), (replica(0), lost, replica(2)))
    assert verdict == Verdict(Outcome.RUNNING, replace=(lost,))


@pytest.mark.parametrize(
    ("others", "culprit"),
    [
        # Its process failed more often than it may.
        ((replica(1, 1), replica(2)), 1),
        # It was lost more often than it may.
        ((replica(1), replica(2, -9, restarts=3)), 2),
        # Another one was lost too, and could have been replaced.
        ((replica(1, 1, seconds=2), replica(2, -9, seconds=1)), 1),
    ],
)
def test_an_elastic_job_fails_when_it_is_to_go_on_no_more(
    others: tuple[Replica, ...], culprit: int
) -> None:
    gang = (replica(0), *others)
    assert MASTER.judge(job(elastic="1"), gang) == Verdict(Outcome.FAILED, gang[culprit])


def test_an_elastic_job_fails_with_the_agent_that_keeps_the_store() -> None:
    gang = (replica(0, -9, seconds=1), replica(1, 1, seconds=2))
    assert MASTER.judge(job(elastic="1"), gang) == Verdict(Outcome.FAILED, gang[0])


@pytest.mark.parametrize("other", [replica(1), replica(1, 0), replica(1, 1), replica(1, -15)])
def test_an_elastic_job_is_done_when_the_first_worker_is(other: Replica) -> None:
    gang = (replica(0, 0), other)
    assert MASTER.judge(job(elastic="1"), gang) == Verdict(Outcome.SUCCEEDED)


def test_a_worker_of_an_elastic_job_may_be_done_before_the_first() -> None:
    gang = (replica(0), replica(1, 0))
    assert MASTER.judge(job(elastic="1"), gang) == Verdict(Outcome.RUNNING)


# What it cannot run


@pytest.mark.parametrize(
    ("role", "message"),
    [
        (
            "ps",
            "PyTorch has no parameter-server mode here: its workers all-reduce; use --workers N",
        ),
        (
            "chief",
            "PyTorch has no chief: worker 0 is the one that saves and logs; use --workers N",
        ),
        (
            "evaluator",
            "PyTorch has no evaluators: evaluate in the script, or in a job of its own on the "
            "checkpoints; use --workers N",
        ),
        ("reader", "PyTorch runs workers only, got role 'reader'; use --workers N"),
    ],
)
def test_other_roles_are_refused_with_the_reason(role: str, message: str) -> None:
    MASTER.accept(launch(), (SlotGroup("worker", 2),))
    with pytest.raises(InvalidRequest) as caught:
        MASTER.accept(launch(), (SlotGroup("worker"), SlotGroup(role)))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("options", "workers", "message"),
    [
        (
            {"elastic": "3"},
            2,
            "option elastic=3 needs at least 3 workers to shrink from, got 2; use --workers N",
        ),
        (
            {"elastic": "1"},
            1,
            "option elastic=1 needs at least 2 workers to shrink from, got 1; use --workers N",
        ),
        ({"elastic": "0"}, 2, "option elastic must be a number of at least 1, got '0'"),
        ({"elastic": "two"}, 2, "option elastic must be a number of at least 1, got 'two'"),
        (
            {"elastic": "1", "restarts": "-1"},
            2,
            "option restarts must be a number of at least 0, got '-1'",
        ),
        (
            {"restarts": "2"},
            2,
            "option restarts=2 is for elastic jobs; add --option elastic=MIN, or use --retries N",
        ),
        ({"allreduce": "star"}, 2, "option allreduce must be ring or tree, got 'star'"),
        (
            {"allreduce": "ring"},
            2,
            "option allreduce=ring is for NCCL, which sums over GPUs; gloo, which sums over CPUs, "
            "cannot be told: leave it out, or ask for --gpus",
        ),
        (
            {"backend": "nccl"},
            2,
            "pytorch has no option 'backend'; it has elastic, restarts, allreduce, timeout",
        ),
    ],
)
def test_options_that_cannot_be_had_are_refused(
    options: dict[str, str], workers: int, message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MASTER.accept(launch(**options), (SlotGroup("worker", workers),))
    assert caught.value.message == message


def test_an_elastic_job_takes_python_only() -> None:
    groups = (SlotGroup("worker", 2),)
    assert MASTER.accept(launch(("bash", "train.sh")), groups) == groups
    with pytest.raises(InvalidRequest, match="elastic PyTorch over several processes needs a"):
        MASTER.accept(launch(("bash", "train.sh"), elastic="1"), groups)


def test_ring_and_tree_are_taken_where_there_are_gpus() -> None:
    groups = (SlotGroup("worker", 2, gpus=1),)
    assert MASTER.accept(launch(allreduce="ring", elastic="2"), groups) == groups
