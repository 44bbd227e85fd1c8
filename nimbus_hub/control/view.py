"""The scheduler's view: what is held, what waits, out of the live leases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.cluster import Cluster, Queue
from nimbus_hub.model.host import Host
from nimbus_hub.model.lease import Lease, LeaseState
from nimbus_hub.scheduler.shape import Shape
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting

__all__ = ["queue_of", "scheduler_snapshot", "waiting_of"]


def scheduler_snapshot(
    hosts: Sequence[Host],
    leases: Iterable[Lease],
    cluster: Cluster,
    usage: Mapping[str, float],
    mix: Mapping[Shape, float],
) -> Snapshot:
    """Return hosts, holdings and waiting requests as the scheduler wants them."""
    holdings, waiting = [], []
    leases = tuple(leases)
    places = {lease.id: lease.slots[0].host for lease in leases if lease.slots}
    for lease in leases:
        if lease.state.is_holding:
            holdings.append(_holding(lease, queue_of(cluster, lease), cluster.rules.aging))
        elif lease.state is LeaseState.QUEUED and lease.target is None:
            near = places.get(lease.parent) if lease.parent is not None else None
            waiting.append(waiting_of(lease, near))
    return Snapshot(tuple(hosts), tuple(holdings), tuple(waiting), cluster, usage, mix)


def waiting_of(lease: Lease, near: str | None = None) -> Waiting:
    """Return a queued lease as a request, to be ``near`` a host."""
    return Waiting(
        lease.id,
        lease.owner,
        lease.groups,
        lease.length,
        lease.created_at,
        lease.kind,
        lease.wishes,
        lease.wait_until,
        lease.starts_by,
        lease.waits_since,
        near,
    )


def queue_of(cluster: Cluster, lease: Lease) -> Queue:
    """Return a lease's queue; one that the operator has removed since gives no rights."""
    try:
        return cluster.queue(lease.wishes.queue)
    except InvalidRequest:
        return Queue(lease.wishes.queue)


def _holding(lease: Lease, queue: Queue, aging: timedelta) -> Holding:
    # From when it was first asked for: who was stopped once too often is not stopped again.
    waited = lease.granted_at - lease.created_at if lease.granted_at else timedelta(0)
    return Holding(
        lease.id,
        lease.owner,
        lease.slots,
        lease.expires_at,
        lease.kind,
        lease.active_at or lease.granted_at,
        queue.priority + lease.wishes.priority,
        lease.wishes.is_preemptible or queue.is_preemptible,
        lease.target is not None,
        _expected_end(lease),
        waited >= aging,
    )


def _expected_end(lease: Lease) -> datetime | None:
    """Return when a lease is likely over: as its owner expects, or its end."""
    since = lease.active_at or lease.granted_at
    if since is None or lease.wishes.expected is None or lease.expires_at is None:
        return lease.expires_at
    return min(since + lease.wishes.expected, lease.expires_at)
