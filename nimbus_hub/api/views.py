"""How model objects look in the API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from nimbus_hub.api import schemas
from nimbus_hub.api.requests import GroupRequest, WishesRequest
from nimbus_hub.control.capacity import HostUse
from nimbus_hub.control.gangs import Gang
from nimbus_hub.control.jobs import JobView
from nimbus_hub.control.leases import Leases
from nimbus_hub.control.logs import LogPart
from nimbus_hub.model.activity import idle_sentence
from nimbus_hub.model.host import Gpu, Host
from nimbus_hub.model.job import JobState, Launch
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.replica import Replica
from nimbus_hub.model.request import read_group, read_wishes
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.model.wishes import DataUse, Wishes
from nimbus_hub.scheduler.decisions import Grant, Preview, Site, Wait

__all__ = [
    "gang_view",
    "host_view",
    "job_view",
    "lease_view",
    "log_view",
    "plan_view",
    "slot_groups",
    "slot_view",
    "wishes_of",
]


def slot_groups(requests: list[GroupRequest]) -> tuple[SlotGroup, ...]:
    """Return wishes as people write them as the model has them; raise InvalidRequest."""
    return tuple(
        read_group(
            role=request.role,
            count=request.count,
            cpus=request.cpus,
            memory=request.memory,
            gpus=request.gpus,
            topology=request.topology,
        )
        for request in requests
    )


def wishes_of(request: WishesRequest) -> Wishes:
    """Return what a request says beside its slots; raise InvalidRequest."""
    return read_wishes(
        datacenter=request.datacenter,
        inputs=request.inputs,
        outputs=request.outputs,
        queue=request.queue,
        priority=request.priority,
        preemptible=request.preemptible,
        expected=request.expected,
        step_bytes=request.step_bytes,
    )


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
        gpu_milli=slot.gpu_milli,
        ports=list(slot.ports),
    )


def lease_view(lease: Lease, leases: Leases, now: datetime) -> schemas.Lease:
    """Show a lease as it is at ``now``."""
    policy = leases.policy(lease)
    idle = leases.activity.idleness(lease, now)
    return schemas.Lease(
        id=lease.id,
        kind=lease.kind,
        owner=lease.owner,
        name=lease.name,
        parent=lease.parent,
        size=lease.size,
        state=lease.public_state,
        reason=lease.reason,
        reason_code=lease.reason_code,
        note=lease.note or leases.activity.note(lease, now),
        environment=lease.environment,
        groups=[_group_view(group) for group in lease.groups],
        **_wishes_view(lease.wishes),
        slots=[slot_view(slot) for slot in lease.slots],
        placement=lease.placement,
        length_seconds=lease.length.total_seconds(),
        position=lease.position,
        starts_by=lease.starts_by,
        created_at=lease.created_at,
        granted_at=lease.granted_at,
        active_at=lease.active_at,
        expires_at=lease.expires_at,
        latest_end=leases.latest_end(lease),
        ended_at=lease.ended_at,
        cpu_seconds=lease.cpu_seconds,
        gpu_seconds=lease.gpu_seconds,
        opened=list(lease.opened),
        renewals=lease.renewals,
        is_ended=lease.state.is_end,
        can_renew=leases.can_renew(lease, now),
        renewable_until=leases.renewable_until(lease),
        renewals_left=max(0, policy.renewals - lease.renewals),
        renewal_seconds=policy.renewal.total_seconds(),
        warnings_seconds=[before.total_seconds() for before in policy.warnings],
        idle_seconds=None if policy.idle is None else policy.idle.total_seconds(),
        idle_ends=policy.idle_ends,
        idle_since=idle.since if idle else None,
        idle_warns_at=idle.warns_at if idle else None,
        idle_ends_at=idle.ends_at if idle else None,
        idle_reason=idle_sentence(idle.signals) if idle else "",
        now=now,
        version=lease.version,
    )


def job_view(view: JobView) -> schemas.Job:
    """Show a job with its replicas."""
    job, lease = view.job, view.lease
    directory = next((r.directory for r in view.replicas if r.directory), None)
    # What was said of the job before, like who took its slots, is news beside why it waits.
    is_run = lease.kind is LeaseKind.DEBUG and not job.is_holder
    reason = _waiting_reason(view, is_run=is_run) or job.reason
    return schemas.Job(
        id=job.id,
        name=job.name,
        owner=job.owner,
        lease_id=job.lease_id,
        gang=lease.id if is_run else None,
        framework=job.launch.framework,
        framework_reason=job.launch.framework_reason,
        argv=list(job.launch.argv),
        state=job.state,
        reason=reason,
        reason_code=lease.reason_code,
        note=job.note or lease.note or (job.reason if reason != job.reason else ""),
        queue=lease.wishes.queue,
        priority=lease.wishes.priority,
        position=lease.position,
        starts_by=lease.starts_by,
        placement=lease.placement,
        attempt=job.attempt,
        attempts=job.attempts,
        preemptions=job.preemptions,
        progress=job.progress,
        progress_message=job.progress_message,
        replicas=[_replica_view(replica) for replica in view.replicas],
        output_dir=directory and f"{directory}/output",
        log_dir=directory and f"{directory}/logs",
        created_at=job.created_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        deleted_at=job.deleted_at,
        deletion=job.deletion,
        is_ended=job.state.is_end,
        version=job.version + lease.version,
    )


def gang_view(gang: Gang, leases: Leases, now: datetime) -> schemas.Gang:
    """Show a gang as it is at ``now``."""
    return schemas.Gang(
        lease=lease_view(gang.lease, leases, now),
        job_id=gang.holder.id,
        framework=gang.holder.launch.framework,
        state=gang.state.value,
        reason=gang.reason,
        replicas=[_replica_view(replica) for replica in gang.replicas],
        run=None if gang.run is None else job_view(gang.run),
        runs=gang.runs,
        version=gang.version,
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


def plan_view(
    preview: Preview, launch: Launch, hosts: Sequence[Host], *, is_admin: bool
) -> schemas.Plan:
    """Show what would happen; only administrators are told whom it would stop."""
    answer = preview.answer
    slots = answer.slots if isinstance(answer, Grant) else ()
    wait = answer if isinstance(answer, Wait) else None
    stopped = [each.lease_id for each in preview.preemptions]
    return schemas.Plan(
        framework=launch.framework,
        framework_reason=launch.framework_reason,
        slots=[slot_view(slot) for slot in slots],
        hosts=[_plan_host(host, slots) for host in hosts if host.name in {s.host for s in slots}],
        placement=answer.reason if isinstance(answer, Grant) else "",
        would_wait=wait is not None,
        position=wait.position if wait else None,
        reason=wait.reason if wait else "",
        reason_code=wait.code if wait else "",
        starts_by=wait.starts_by if wait else None,
        sites=[_site_view(site) for site in preview.sites],
        preemptions=len(stopped),
        preempted_lease_ids=stopped if is_admin else [],
    )


def host_view(use: HostUse, visible: frozenset[str] | None) -> schemas.Host:
    """Show a host; holders that are not in ``visible`` (None: all are) are told as "other"."""
    faults = [f"GPU {g.index} is out of service: {g.fault}" for g in use.host.gpus if g.fault]
    return schemas.Host(
        name=use.host.name,
        datacenter=use.host.datacenter,
        rack=use.host.rack,
        address=use.host.address,
        state=use.host.state,
        state_reason="; ".join(filter(None, [use.host.state_reason, *faults])),
        labels=use.host.labels,
        cpus_milli=use.host.cpus_milli,
        cpus_free_milli=use.cpus_free_milli,
        memory_bytes=use.host.memory_bytes,
        memory_free_bytes=use.memory_free_bytes,
        gpus=[_gpu_view(use, gpu, visible) for gpu in use.host.gpus],
    )


def _gpu_view(use: HostUse, gpu: Gpu, visible: frozenset[str] | None) -> schemas.Gpu:
    holders = [
        lease if visible is None or lease in visible else "other"
        for lease in use.gpu_leases(gpu.index)
    ]
    return schemas.Gpu(
        index=gpu.index,
        model=gpu.model,
        memory_bytes=gpu.memory_bytes,
        free_milli=use.gpu_free_milli(gpu),
        lease_id=holders[0] if holders else None,
        lease_ids=holders,
        fault=gpu.fault,
    )


def _waiting_reason(view: JobView, *, is_run: bool) -> str:
    """Return why a job waits for its lease, or for its gang, if it does."""
    job, lease = view.job, view.lease
    if job.state.is_end or job.target is not None:
        return ""
    if is_run and job.state is JobState.QUEUED:
        if lease.state.is_holding:
            return "its gang is being warmed up"
        return f"waits for its gang: {lease.reason}"
    return "" if lease.state.is_holding else lease.reason


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


def _group_view(group: SlotGroup) -> schemas.Group:
    return schemas.Group(
        role=group.role,
        count=group.count,
        cpus_milli=group.cpus_milli,
        memory_bytes=group.memory_bytes,
        gpus=group.gpus,
        gpu_milli=group.gpu_milli,
        gpu_models=list(group.gpu_models),
        topology=group.wanted_topology,
    )


def _wishes_view(wishes: Wishes) -> dict[str, Any]:
    """Return the fields of a lease that say what was wished beside its slots."""
    return {
        "queue": wishes.queue,
        "priority": wishes.priority,
        "is_preemptible": wishes.is_preemptible,
        "datacenter": wishes.datacenter,
        "inputs": [_data_view(use) for use in wishes.inputs],
        "outputs": [_data_view(use) for use in wishes.outputs],
        "expected_seconds": None if wishes.expected is None else wishes.expected.total_seconds(),
        "step_bytes": wishes.step_bytes,
    }


def _data_view(use: DataUse) -> schemas.DataUse:
    return schemas.DataUse(url=use.url, size_bytes=use.size_bytes)


def _plan_host(host: Host, slots: Sequence[Slot]) -> schemas.PlanHost:
    own = [slot for slot in slots if slot.host == host.name]
    return schemas.PlanHost(
        name=host.name,
        datacenter=host.datacenter,
        rack=host.rack,
        slots=[slot.name for slot in own],
        gpus_milli=sum(slot.all_gpus_milli for slot in own),
    )


def _site_view(site: Site) -> schemas.Site:
    return schemas.Site(
        datacenter=site.datacenter,
        bytes_to_move=site.bytes_to_move,
        transfer_seconds=site.transfer_seconds,
        wait_seconds=site.wait_seconds,
        is_chosen=site.is_chosen,
        reason=site.reason,
    )
