"""What the replicas of an attempt are, and what each runs: values, computed before sending."""

from __future__ import annotations

from nimbus_hub.control.settings import Settings
from nimbus_hub.control.tokens import job_token
from nimbus_hub.masters.base import Master, ReplicaCommand
from nimbus_hub.masters.environment import contract_environment
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.replica import Replica, ReplicaSpec
from nimbus_hub.model.slot import Slot

__all__ = ["attempt_replicas", "job_id_of", "replacement", "replica_spec"]

_HOLDER_ARGV = ("python",)


def attempt_replicas(job: Job, lease: Lease) -> tuple[Replica, ...]:
    """Return the replicas of the job's present attempt, one for each slot, in order of rank."""
    return tuple(
        Replica(
            id=_replica_id(job, slot),
            job_id=job.id,
            attempt=job.attempt,
            role=slot.role,
            role_rank=slot.index,
            rank=rank,
            host=slot.host,
        )
        for rank, slot in enumerate(lease.slots)
    )


def job_id_of(replica_id: str) -> str:
    """Return the id of the job that a replica is of."""
    return replica_id.partition(".")[0]


def replica_spec(
    job: Job,
    lease: Lease,
    replica: Replica,
    master: Master,
    settings: Settings,
    holder: Job | None = None,
) -> ReplicaSpec:
    """Return what an executor runs for a replica.

    That of a run on a debug gang is forked from the replica that ``holder`` has on its slot.
    """
    slot = lease.slots[replica.rank]
    contract = contract_environment(
        job,
        lease.slots,
        replica.rank,
        master.services({each.role for each in lease.slots}),
        api_url=settings.api_url,
        token=job_token(settings.job_token_secret, job.id),
        defaults=master.defaults,
    )
    if job.is_holder:
        command, modules = ReplicaCommand(_HOLDER_ARGV), master.modules
    else:
        command, modules = master.command(job, lease.slots, replica.rank), None
    return ReplicaSpec(
        id=replica.id,
        job_id=job.id,
        owner=job.owner,
        host=slot.host,
        argv=command.argv,
        env={**contract, **command.env, **_needs(command, settings)},
        address=slot.address,
        lease_id=lease.id,
        interfaces=command.interfaces,
        environment=job.launch.environment,
        snapshot=job.launch.snapshot,
        cpus_milli=slot.cpus_milli,
        memory_bytes=slot.memory_bytes,
        gpus=slot.gpus,
        modules=modules,
        holder=None if holder is None else _replica_id(holder, slot),
        workspace=None if holder is None else lease.id,
        has_input=job.launch.pdb,
    )


def replacement(replica: Replica) -> Replica:
    """Return what takes the place of a replica that ended."""
    restarts = replica.restarts + 1
    name = replica.id if replica.restarts == 0 else replica.id.rpartition(".")[0]
    return Replica(
        id=f"{name}.{restarts}",
        job_id=replica.job_id,
        attempt=replica.attempt,
        role=replica.role,
        role_rank=replica.role_rank,
        rank=replica.rank,
        host=replica.host,
        restarts=restarts,
    )


def _replica_id(job: Job, slot: Slot) -> str:
    return f"{job.id}.{job.attempt}.{slot.name}"


def _needs(command: ReplicaCommand, settings: Settings) -> dict[str, str]:
    if not command.needs:
        return {}
    return {
        "NIMBUS_WAIT_FOR": " ".join(f"{name}={where}" for name, where in command.needs.items()),
        "NIMBUS_WAIT_SECONDS": f"{settings.start.total_seconds():g}",
    }
