"""What the replicas of an attempt are, and what each runs: values, computed before sending."""

from __future__ import annotations

from nimbus_hub.control.settings import Settings
from nimbus_hub.control.tokens import job_token
from nimbus_hub.masters.base import Master
from nimbus_hub.masters.environment import contract_environment
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.replica import Replica, ReplicaSpec

__all__ = ["attempt_replicas", "job_id_of", "replica_spec"]


def attempt_replicas(job: Job, lease: Lease) -> tuple[Replica, ...]:
    """Return the replicas of the job's present attempt, one for each slot, in order of rank."""
    return tuple(
        Replica(
            id=f"{job.id}.{job.attempt}.{slot.name}",
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
    job: Job, lease: Lease, replica: Replica, master: Master, settings: Settings
) -> ReplicaSpec:
    """Return what an executor runs for a replica."""
    slot = lease.slots[replica.rank]
    command = master.command(job, lease.slots, replica.rank)
    contract = contract_environment(
        job,
        lease.slots,
        replica.rank,
        api_url=settings.api_url,
        token=job_token(settings.job_token_secret, job.id),
    )
    return ReplicaSpec(
        id=replica.id,
        job_id=job.id,
        owner=job.owner,
        host=slot.host,
        argv=command.argv,
        env={**contract, **command.env},
        environment=job.launch.environment,
        snapshot=job.launch.snapshot,
        cpus_milli=slot.cpus_milli,
        memory_bytes=slot.memory_bytes,
        gpus=slot.gpus,
    )
