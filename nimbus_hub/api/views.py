"""How model objects look in the API."""

from __future__ import annotations

from datetime import datetime

from nimbus_hub.api import schemas
from nimbus_hub.api.schemas import GroupRequest
from nimbus_hub.control.capacity import HostUse
from nimbus_hub.control.jobs import JobView
from nimbus_hub.control.leases import Leases
from nimbus_hub.control.logs import LogPart
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.quantities import parse_cpus, parse_gpus, parse_memory
from nimbus_hub.model.replica import Replica
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.scheduler.plan import Grant, Wait

__all__ = [
    "host_view",
    "job_view",
    "lease_view",
    "log_view",
    "plan_view",
    "slot_groups",
    "slot_view",
]


def slot_groups(requests: list[GroupRequest]) -> tuple[SlotGroup, ...]:
    """Return wishes as people write them as the model has them; raise InvalidRequest."""
    groups = []
    for request in requests:
        gpus, gpu_model = parse_gpus(request.gpus)
        groups.append(
            SlotGroup(
                role=request.role,
                count=request.count,
                cpus_milli=parse_cpus(request.cpus),
                memory_bytes=parse_memory(request.memory),
                gpus=gpus,
                gpu_model=gpu_model,
            )
        )
    return tuple(groups)


def slot_view(slot: Slot) -> schemas.Slot:
    """Show a slot."""
    return schemas.Slot(
        name=slot.name,
        role=slot.role,
        host=slot.host,
        address=slot.address,
        cpus_milli=slot.cpus_milli,
        memory_bytes=slot.memory_bytes,
        gpus=list(slot.gpus),
        ports=list(slot.ports),
    )


def lease_view(lease: Lease, leases: Leases, now: datetime) -> schemas.Lease:
    """Show a lease as it is at ``now``."""
    policy = leases.policy(lease.kind)
    return schemas.Lease(
        id=lease.id,
        kind=lease.kind,
        owner=lease.owner,
        name=lease.name,
        state=lease.public_state,
        reason=lease.reason,
        environment=lease.environment,
        groups=[
            schemas.Group(
                role=group.role,
                count=group.count,
                cpus_milli=group.cpus_milli,
                memory_bytes=group.memory_bytes,
                gpus=group.gpus,
                gpu_model=group.gpu_model,
            )
            for group in lease.groups
        ],
        slots=[slot_view(slot) for slot in lease.slots],
        length_seconds=lease.length.total_seconds(),
        position=lease.position,
        starts_by=lease.starts_by,
        created_at=lease.created_at,
        granted_at=lease.granted_at,
        active_at=lease.active_at,
        expires_at=lease.expires_at,
        latest_end=lease.latest_end,
        ended_at=lease.ended_at,
        renewals=lease.renewals,
        is_ended=lease.state.is_end,
        can_renew=leases.can_renew(lease, now),
        renewal_seconds=policy.renewal.total_seconds(),
        warnings_seconds=[before.total_seconds() for before in policy.warnings],
        now=now,
        version=lease.version,
    )


def job_view(view: JobView) -> schemas.Job:
    """Show a job with its replicas."""
    job = view.job
    directory = next((r.directory for r in view.replicas if r.directory), None)
    is_queued = not job.state.is_end and not view.lease.state.is_holding
    return schemas.Job(
        id=job.id,
        name=job.name,
        owner=job.owner,
        lease_id=job.lease_id,
        framework=job.launch.framework,
        argv=list(job.launch.argv),
        state=job.state,
        reason=job.reason or (view.lease.reason if is_queued else ""),
        position=view.lease.position,
        starts_by=view.lease.starts_by,
        attempt=job.attempt,
        attempts=job.attempts,
        progress=job.progress,
        progress_message=job.progress_message,
        replicas=[_replica_view(replica) for replica in view.replicas],
        output_dir=directory and f"{directory}/output",
        log_dir=directory and f"{directory}/logs",
        created_at=job.created_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        is_ended=job.state.is_end,
        version=job.version + view.lease.version,
    )


def log_view(part: LogPart) -> schemas.LogText:
    """Show some output of a replica."""
    return schemas.LogText(
        replica=part.replica.name,
        attempt=part.replica.attempt,
        offset=part.chunk.offset,
        next_offset=part.chunk.next_offset,
        text=part.chunk.data.decode(errors="replace"),
        is_complete=part.chunk.is_complete,
    )


def plan_view(planned: Grant | Wait) -> schemas.Plan:
    """Show what would happen."""
    if isinstance(planned, Grant):
        slots = [slot_view(slot) for slot in planned.slots]
        return schemas.Plan(slots=slots, would_wait=False, reason="", starts_by=None)
    return schemas.Plan(
        slots=[], would_wait=True, reason=planned.reason, starts_by=planned.starts_by
    )


def host_view(use: HostUse, visible: frozenset[str] | None) -> schemas.Host:
    """Show a host; holders that are not in ``visible`` (None: all are) are told as "other"."""
    holders = {
        index: lease if visible is None or lease in visible else "other"
        for index, lease in use.gpu_holders.items()
    }
    return schemas.Host(
        name=use.host.name,
        datacenter=use.host.datacenter,
        rack=use.host.rack,
        address=use.host.address,
        state=use.host.state,
        cpus_milli=use.host.cpus_milli,
        cpus_free_milli=use.cpus_free_milli,
        memory_bytes=use.host.memory_bytes,
        memory_free_bytes=use.memory_free_bytes,
        gpus=[
            schemas.Gpu(
                index=gpu.index,
                model=gpu.model,
                memory_bytes=gpu.memory_bytes,
                lease_id=holders.get(gpu.index),
            )
            for gpu in use.host.gpus
        ],
    )


def _replica_view(replica: Replica) -> schemas.Replica:
    return schemas.Replica(
        id=replica.id,
        name=replica.name,
        role=replica.role,
        rank=replica.rank,
        attempt=replica.attempt,
        host=replica.host,
        state=replica.state,
        exit_code=replica.exit_code,
        reason=replica.reason,
        started_at=replica.started_at,
        ended_at=replica.ended_at,
    )
