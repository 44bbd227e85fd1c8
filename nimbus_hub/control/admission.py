"""Admission: what a request may ask for, checked before it is recorded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nimbus_hub.errors import Forbidden, Impossible, InvalidRequest
from nimbus_hub.model.cluster import Cluster, Queue, Quota
from nimbus_hub.model.host import Host
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.quantities import format_cpus, format_duration
from nimbus_hub.model.slot import SlotGroup

__all__ = ["check_quotas", "check_wishes"]


def check_wishes(
    lease: Lease, cluster: Cluster, hosts: Iterable[Host], *, is_admin: bool = False
) -> None:
    """Raise InvalidRequest or Forbidden, saying what would be right, for a wish that is wrong."""
    _check_queue(lease, cluster.queue(lease.wishes.queue), is_admin=is_admin)
    _check_datacenter(lease, cluster, hosts)
    expected = lease.wishes.expected
    if expected is not None and expected > lease.length:
        raise InvalidRequest(
            f"the expected length must be at most the duration, {format_duration(lease.length)}, "
            f"got {format_duration(expected)}"
        )


def check_quotas(lease: Lease, cluster: Cluster) -> None:
    """Raise Impossible, naming the quota, for what is over one even if nothing else is held."""
    _check_quota(lease.groups, cluster.user_quota(lease.owner), f"the quota of {lease.owner}")
    group = cluster.group_of(lease.owner)
    if group is not None:
        _check_quota(lease.groups, group.quota, f"the quota of group {group.name}")


def _check_queue(lease: Lease, queue: Queue, *, is_admin: bool) -> None:
    if is_admin:
        return
    if queue.users and lease.owner not in queue.users:
        raise Forbidden(f"{lease.owner} may not use queue {queue.name!r}; ask an administrator")
    if lease.wishes.priority > queue.highest:
        raise Forbidden(
            f"priority in queue {queue.name!r} must be at most {queue.highest}, "
            f"got {lease.wishes.priority}"
        )


def _check_datacenter(lease: Lease, cluster: Cluster, hosts: Iterable[Host]) -> None:
    wanted = lease.wishes.datacenter
    if wanted is None:
        return
    declared = {datacenter.name for datacenter in cluster.datacenters}
    known = declared | {host.datacenter for host in hosts}
    if wanted not in known:
        there_is = ", ".join(sorted(known)) or "none"
        raise InvalidRequest(f"there is no datacenter {wanted!r}; there is {there_is}")


def _check_quota(groups: Sequence[SlotGroup], quota: Quota, name: str) -> None:
    if quota.leases is not None and quota.leases < 1:
        raise Impossible(f"{name} allows no leases; ask an administrator")
    gpus = sum(group.all_gpus_milli for group in groups)
    if quota.gpus_milli is not None and gpus > quota.gpus_milli:
        raise Impossible(
            f"{_amount(gpus)} GPUs in all were asked for, but {name} allows "
            f"{_amount(quota.gpus_milli)} at once; ask for at most that"
        )
    cpus = sum(group.count * group.cpus_milli for group in groups)
    if quota.cpus_milli is not None and cpus > quota.cpus_milli:
        raise Impossible(
            f"{format_cpus(cpus)} CPUs in all were asked for, but {name} allows "
            f"{format_cpus(quota.cpus_milli)} at once; ask for at most that"
        )


def _amount(milli: int) -> str:
    return f"{milli / 1000:g}"
