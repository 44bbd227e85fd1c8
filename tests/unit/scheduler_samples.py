"""Hosts, requests and leases for tests of the scheduler, in few words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from nimbus_hub.model.cluster import Cluster, Queue
from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import Slot, SlotGroup, Topology
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.decisions import Plan
from nimbus_hub.scheduler.plan import plan
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
GIB = 2**30
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)

URGENT = Cluster(queues=(Queue(), Queue("urgent", priority=10, may_preempt=True)))
"""A cluster with a queue that may preempt."""


def host(
    name: str,
    cpus: float = 8,
    gpus: int = 0,
    *,
    models: Iterable[str] = (),
    rack: str = "r1",
    datacenter: str = "default",
    state: HostState = HostState.READY,
) -> Host:
    """Return a host; ``models`` instead of ``gpus`` names the devices one by one."""
    devices = tuple(models) or ("A100",) * gpus
    return Host(
        name=name,
        cpus_milli=int(cpus * 1000),
        memory_bytes=256 * GIB,
        gpus=tuple(Gpu(index, model) for index, model in enumerate(devices)),
        address=f"10.0.{sum(map(ord, name)) % 250}.{len(name)}",
        datacenter=datacenter,
        rack=rack,
        state=state,
    )


def group(
    role: str = "worker",
    count: int = 1,
    cpus: float = 1,
    gpus: float = 0,
    *,
    models: tuple[str, ...] = (),
    topology: Topology | None = None,
) -> SlotGroup:
    """Return a wish; ``gpus`` under 1 is a share."""
    whole = max(1, int(gpus)) if gpus else 0
    share = round(gpus * 1000) if 0 < gpus < 1 else 1000
    return SlotGroup(role, count, int(cpus * 1000), GIB, whole, share, models, topology)


def request(
    lease_id: str,
    *groups: SlotGroup,
    ago: float = 0,
    length: timedelta = HOUR,
    owner: str = "ada",
    **wishes: Any,
) -> Waiting:
    """Return a request that has waited for so many minutes."""
    since = NOW - ago * MINUTE
    return Waiting(lease_id, owner, groups, length, since, wishes=Wishes(**wishes))


def held(
    lease_id: str,
    at: Host,
    ends_at: datetime | None = NOW + HOUR,
    *,
    cpus: float = 1,
    gpus: tuple[int, ...] = (),
    milli: int = 1000,
    kind: LeaseKind = LeaseKind.JOB,
    owner: str = "bob",
    **more: Any,
) -> Holding:
    """Return a lease of one slot."""
    slot = Slot("worker", 0, at.name, at.address, int(cpus * 1000), GIB, gpus, (), milli)
    return Holding(lease_id, owner, (slot,), ends_at, kind, **more)


def decide(
    hosts: Iterable[Host],
    *waiting: Waiting,
    holdings: Iterable[Holding] = (),
    cluster: Cluster | None = None,
    at: datetime = NOW,
    usage: dict[str, float] | None = None,
) -> Plan:
    """Return what the scheduler decides."""
    whole = cluster or Cluster()
    return plan(Snapshot(tuple(hosts), tuple(holdings), waiting, whole, usage or {}), at)


def places(decided: Plan) -> dict[str, list[str]]:
    """Return the hosts of each lease that was granted, slot by slot."""
    return {each.lease_id: [slot.host for slot in each.slots] for each in decided.grants}


def devices(decided: Plan) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Return hosts and devices of each lease that was granted, slot by slot."""
    return {
        each.lease_id: [(slot.host, slot.gpus) for slot in each.slots] for each in decided.grants
    }


def stopped(decided: Plan) -> list[tuple[str, str]]:
    """Return who is stopped for whom."""
    return [(each.lease_id, each.for_lease_id) for each in decided.preemptions]
