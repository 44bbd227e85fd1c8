"""PyTorch all-reduce (DistributedDataParallel, FSDP): what torchrun would set, without torchrun.

Rank 0 listens at MASTER_ADDR:MASTER_PORT, all other ports are ephemeral. Every attempt has
another MASTER_PORT, so that a late process of the last one cannot join this one.

LOCAL_RANK is the number of the GPU that a process is to use, as `torch.cuda.set_device` is
commonly given it. A replica with GPUs sees its own only (CUDA_VISIBLE_DEVICES), and the
first of them is device 0: its LOCAL_RANK is 0 and it is the only one in its local world.
Replicas without GPUs count within their host, as under torchrun.

A group whose script gives no time-out waits for a worker that hangs, 30 minutes by gloo: the runner
(`nimbus_hub.replica.runners.pytorch`) has groups wait less.

An elastic job has torchrun's agent in every slot, above the process that trains. When a process
is lost the agents start theirs again, as many as are left, and again when one has come back. The
first agent keeps the store in which they meet, so that without it the job cannot go on.
"""

from __future__ import annotations

from collections.abc import Sequence

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import (
    Master,
    Outcome,
    ReplicaCommand,
    Verdict,
    endpoint,
    judge_gang,
    runner_argv,
)
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = ["PyTorchMaster"]

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
"""Without them gloo advertises what the host's own name resolves to, 127.0.1.1 on many."""

_ELASTIC, _RESTARTS, _ALLREDUCE, _TIMEOUT = "elastic", "restarts", "allreduce", "timeout"
_USUAL_RESTARTS = 3
_USUAL_TIMEOUT_SECONDS = 600
_ALGORITHMS = ("ring", "tree")
_NO_OTHERS = {
    "ps": "PyTorch has no parameter-server mode here: its workers all-reduce; use --workers N",
    "chief": "PyTorch has no chief: worker 0 is the one that saves and logs; use --workers N",
    "evaluator": "PyTorch has no evaluators: evaluate in the script, or in a job of its own on the "
    "checkpoints; use --workers N",
}
_NCCL = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1", "NCCL_DEBUG": "WARN"}
"""A failed or late collective ends the process, and NCCL says why; a user may say otherwise."""

_MEETING = "last_call_timeout=5,keep_alive_interval=2,keep_alive_max_attempt=3"
"""Seconds: agents meet without one that was not heard of for 6, and wait 5 for a full world."""


class PyTorchMaster(Master):
    """Runs the user's command once per worker, with the variables of `env://`."""

    name = "pytorch"
    imports = ("torch",)
    modules = ("torch",)
    options = {
        _ELASTIC: "the fewest workers to go on with; the job shrinks to them when workers are "
        "lost, and grows again",
        _RESTARTS: "how often an elastic job starts its processes again within an attempt "
        f"(default {_USUAL_RESTARTS})",
        _ALLREDUCE: "ring or tree: how NCCL sums over GPUs (default: it chooses)",
        _TIMEOUT: "seconds a worker waits for the others, unless the script gives its groups a "
        f"time-out (default {_USUAL_TIMEOUT_SECONDS})",
    }

    def groups(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Refuse every role but ``worker``, and options that cannot be had."""
        for role in (group.role for group in groups):
            if role != "worker":
                usual = f"PyTorch runs workers only, got role {role!r}; use --workers N"
                raise InvalidRequest(_NO_OTHERS.get(role, usual))
        _check_allreduce(launch, groups)
        fewest = _fewest(launch)
        if fewest is not None:
            workers = sum(group.count for group in groups)
            if not 1 <= fewest <= workers or workers == 1:
                raise InvalidRequest(
                    f"option elastic={fewest} needs at least {max(2, fewest)} workers to shrink "
                    f"from, got {workers}; use --workers N"
                )
            runner_argv("elastic PyTorch", launch.argv)
        _restarts(launch)
        if _timeout(launch) is not None:
            runner_argv("option timeout", launch.argv)
        return tuple(groups)

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return the user's command with the place of this rank in the world."""
        launch = job.launch
        env = _among_others(launch, slots[rank]) if len(slots) > 1 else {}
        if _fewest(launch) is not None:
            env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
            return ReplicaCommand(_agent_argv(job, slots, rank), env, interfaces=INTERFACES)
        first = slots[0]
        env |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(len(slots)),
            "MASTER_ADDR": first.address,
            "MASTER_PORT": str(first.port(job.turn)),
            **_local_ranks(slots, rank),
        }
        argv = _with_runner(launch.argv) if len(slots) > 1 else launch.argv
        return ReplicaCommand(argv, env, interfaces=INTERFACES)

    def judge(self, job: Job, replicas: Sequence[Replica]) -> Verdict:
        """Return how the job stands; an elastic one has a lost worker replaced alone."""
        if _fewest(job.launch) is None:
            return judge_gang(replicas)
        first = replicas[0]
        if first.state.is_end and not first.has_failed:
            # It waits for the others' work to be done; one that came too late for it has none.
            return Verdict(Outcome.SUCCEEDED)
        failed = [replica for replica in replicas if replica.has_failed]
        most = _restarts(job.launch)
        fatal = [each for each in failed if each is first or _gave_up(each, most)]
        if fatal:
            return judge_gang(fatal)
        return Verdict(Outcome.RUNNING, replace=tuple(failed))


def _gave_up(agent: Replica, most: int) -> bool:
    """Tell whether an agent ended because its process failed too often, or was itself lost so."""
    return (agent.exit_code or 0) > 0 or agent.restarts >= most


def _with_runner(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command with our runner; what is not Python's sees to its time-outs itself."""
    try:
        return runner_argv(PyTorchMaster.name, argv)
    except InvalidRequest:
        return argv


def _agent_argv(job: Job, slots: Sequence[Slot], rank: int) -> tuple[str, ...]:
    """Return the command of torchrun's agent, which runs the user's by our runner."""
    python, _, _, *runner = runner_argv(PyTorchMaster.name, job.launch.argv)
    return (
        python,
        "-u",
        "-m",
        "torch.distributed.run",
        f"--nnodes={_fewest(job.launch)}:{len(slots)}",
        "--nproc-per-node=1",
        f"--max-restarts={_restarts(job.launch)}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={endpoint(job, slots[0])}",
        f"--rdzv-id={job.id}-{job.attempt}",
        f"--rdzv-conf=is_host={int(rank == 0)},{_MEETING}",
        f"--local-addr={slots[rank].address}",
        "--module",
        *runner,
    )


def _local_ranks(slots: Sequence[Slot], rank: int) -> dict[str, str]:
    """Return the rank within what the process sees of its host."""
    own = slots[rank]
    peers = [rank] if own.gpus else [at for at, slot in enumerate(slots) if slot.host == own.host]
    return {"LOCAL_RANK": str(peers.index(rank)), "LOCAL_WORLD_SIZE": str(len(peers))}


def _among_others(launch: Launch, slot: Slot) -> dict[str, str]:
    """Return what a worker needs to know of waiting and summing."""
    gpus = _gpu_environment(launch) if slot.gpus else {}
    return {"PYTORCH_TIMEOUT": str(_timeout(launch) or _USUAL_TIMEOUT_SECONDS), **gpus}


def _gpu_environment(launch: Launch) -> dict[str, str]:
    """Return what NCCL is told; of the usual only what the user says nothing of."""
    chosen = launch.options.get(_ALLREDUCE)
    usual = {name: value for name, value in _NCCL.items() if name not in launch.env}
    # Of all-reduce only: NCCL refuses what a tree cannot do, like a broadcast.
    return usual if chosen is None else {**usual, "NCCL_ALGO": f"allreduce:{chosen}"}


def _check_allreduce(launch: Launch, groups: Sequence[SlotGroup]) -> None:
    chosen = launch.options.get(_ALLREDUCE)
    if chosen is None:
        return
    if chosen not in _ALGORITHMS:
        raise InvalidRequest(f"option allreduce must be ring or tree, got {chosen!r}")
    if any(group.gpus == 0 for group in groups):
        raise InvalidRequest(
            f"option allreduce={chosen} is for NCCL, which sums over GPUs; gloo, which sums over "
            "CPUs, cannot be told: leave it out, or ask for --gpus"
        )


def _fewest(launch: Launch) -> int | None:
    """Return how many workers an elastic job goes on with; None for one that is not elastic."""
    return _number(launch, _ELASTIC, 1)


def _restarts(launch: Launch) -> int:
    found = _number(launch, _RESTARTS, 0)
    if found is None:
        return _USUAL_RESTARTS
    if _ELASTIC not in launch.options:
        raise InvalidRequest(
            f"option restarts={found} is for elastic jobs; add --option elastic=MIN, or use "
            "--retries N"
        )
    return found


def _timeout(launch: Launch) -> int | None:
    return _number(launch, _TIMEOUT, 1)


def _number(launch: Launch, name: str, least: int) -> int | None:
    text = launch.options.get(name)
    if text is None:
        return None
    if not text.isdecimal() or int(text) < least:
        raise InvalidRequest(f"option {name} must be a number of at least {least}, got {text!r}")
    return int(text)
