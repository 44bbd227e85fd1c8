"""MPI: MPICH's `mpiexec` with its manual launcher, and one of its proxies in every slot.

`mpiexec` says by which command each proxy is to be started and waits for them; the runner
(`nimbus_hub.replica.runners.mpi`) hands these over, so that neither ssh nor an agent is needed
and every rank has its slot's environment, devices, limits and log. The slots' names stand for
hosts: each has a proxy of its own, also where several are on one machine.

A program that fails ends its rank, and `mpiexec` the others: the rank is to blame.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import (
    Master,
    Outcome,
    ReplicaCommand,
    Verdict,
    endpoint,
    judge_gang,
    only_roles,
    service_group,
)
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = ["MpiMaster"]

_MPIEXEC = "mpiexec"
_TIMEOUT = "timeout"
_USUAL_TIMEOUT_SECONDS = 300
_RUNNER = ("python", "-u", "-m", "nimbus_hub.replica", "mpi")
_ENDED_WITH_OTHERS = 143
"""The exit code of a proxy whose rank was ended because another one had failed."""
_TELLING = timedelta(seconds=1)
"""A rank that ends later than this after ``mpiexec`` was ended by others."""


class MpiMaster(Master):
    """Runs the user's command, any program, as N ranks."""

    name = "mpi"
    imports = ("mpi4py", "horovod")
    options = {
        _TIMEOUT: "seconds in which every rank must have come for its command "
        f"(default {_USUAL_TIMEOUT_SECONDS})"
    }

    def groups(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Add a slot for ``mpiexec`` to several workers."""
        only_roles(groups, ("worker", _MPIEXEC), "MPI runs N equal ranks (--workers N)")
        _timeout(launch)
        has_many = sum(group.count for group in groups if group.role == "worker") > 1
        has_mpiexec = any(group.role == _MPIEXEC for group in groups)
        if not has_many or has_mpiexec:
            return tuple(groups)
        return (*groups, service_group(_MPIEXEC))

    def services(self, roles: Collection[str]) -> frozenset[str]:
        """Return ``mpiexec``, which is no rank."""
        return frozenset({_MPIEXEC})

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return the user's command if it is alone, else our runner with it."""
        argv = job.launch.argv
        last = slots[-1]
        if last.role != _MPIEXEC:
            return ReplicaCommand(argv)
        if rank == len(slots) - 1:
            names = ",".join(slot.name for slot in slots[:-1])
            env = {
                "MPIEXEC_HOSTS": names,
                "MPIEXEC_PORT": str(last.port(job.turn)),
                "MPIEXEC_WAIT_SECONDS": _timeout(job.launch),
            }
            return ReplicaCommand((*_RUNNER, *argv), env)
        return ReplicaCommand(_RUNNER, needs={last.name: endpoint(job, last)})

    def judge(self, job: Job, replicas: Sequence[Replica]) -> Verdict:
        """Return what ``mpiexec`` came to; for a failure blame the rank that was first."""
        mpiexec = next((each for each in replicas if each.role == _MPIEXEC), None)
        if mpiexec is None:
            return judge_gang(replicas)
        if mpiexec.state.is_end and not mpiexec.has_failed:
            return Verdict(Outcome.SUCCEEDED)
        failed = [each for each in replicas if each.has_failed]
        ranks = [each for each in failed if each is not mpiexec and _is_own(each, mpiexec)]
        # It may hear of a rank's end, and end, before that rank's replica does.
        first = ranks or [each for each in failed if each is mpiexec] or failed
        return judge_gang(first) if first else Verdict(Outcome.RUNNING)


def _is_own(rank: Replica, mpiexec: Replica) -> bool:
    """Tell whether a rank failed by itself, and not because the others were ended."""
    if rank.exit_code == _ENDED_WITH_OTHERS:
        return False
    if rank.ended_at is None or mpiexec.ended_at is None:
        return True
    return rank.ended_at < mpiexec.ended_at + _TELLING


def _timeout(launch: Launch) -> str:
    text = launch.options.get(_TIMEOUT, str(_USUAL_TIMEOUT_SECONDS))
    if not text.isdecimal() or int(text) < 1:
        raise InvalidRequest(f"option timeout must be whole seconds of at least 1, got {text!r}")
    return text
