"""The scheduler's view: what is held, what waits, out of the live leases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nimbus_hub.model.host import Host
from nimbus_hub.model.lease import Lease, LeaseState
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting

__all__ = ["scheduler_snapshot"]


def scheduler_snapshot(hosts: Sequence[Host], leases: Iterable[Lease]) -> Snapshot:
    """Return hosts, holdings and waiting requests as the scheduler wants them."""
    holdings, waiting = [], []
    for lease in leases:
        if lease.state.is_holding:
            holdings.append(Holding(lease.id, lease.owner, lease.slots, lease.expires_at))
        elif lease.state is LeaseState.QUEUED and lease.target is None:
            waiting.append(
                Waiting(lease.id, lease.owner, lease.groups, lease.length, lease.created_at)
            )
    return Snapshot(tuple(hosts), tuple(holdings), tuple(waiting))
