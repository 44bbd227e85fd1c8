"""What sessions say of themselves, over HTTP."""

from __future__ import annotations

from datetime import timedelta

from nimbus_hub.api import requests, schemas
from nimbus_hub.api.handler import Operation
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.leases import LeaseBase
from nimbus_hub.errors import Conflict
from nimbus_hub.model.activity import Report
from nimbus_hub.model.lease import Lease, LeaseKind

__all__ = ["ActivityHandler", "KeepHandler"]


class ActivityHandler(LeaseBase):
    """The session's report of what happens in it."""

    operations = {
        "post": Operation(
            "Report a session's activity",
            Scope.USE,
            schemas.ActivityTerms,
            body=requests.ActivityRequest,
        )
    }

    async def post(self, lease_id: str) -> None:
        """Keep what a session measured; say when to measure next."""
        request = self.parse_body(requests.ActivityRequest)
        control = self.services.control
        lease = await self._session(lease_id)
        now = control.clock.now()
        report = Report(
            now,
            {
                signal: now - timedelta(seconds=seconds)
                for signal, seconds in request.idle_seconds.items()
            },
            request.busy_kernels,
            request.cpu_seconds,
            request.gpu_seconds,
            request.memory_bytes,
            tuple(request.open_documents),
        )
        due = control.activity.put(lease, report)
        policy = control.leases.policy(lease)
        gangs = control.activity.idle_gangs(lease, now)
        self.reply(
            schemas.ActivityTerms(
                next_seconds=due.total_seconds(),
                cpu_busy=policy.cpu_busy,
                gpu_busy=policy.gpu_busy,
                idle_gangs=[self.show(gang) for gang in gangs],
            )
        )

    async def _session(self, lease_id: str) -> Lease:
        """Return a live session's lease that the caller may reach, without asking the store."""
        known = self.services.control.records.known(lease_id)
        is_own = known is not None and self.owner in (None, known.owner)
        lease = known if known is not None and is_own else await self.own(lease_id)
        if lease.kind is not LeaseKind.SESSION or lease.state.is_end:
            raise Conflict(f"lease {lease_id} is of no session that runs: nothing to report of it")
        return lease


class KeepHandler(LeaseBase):
    """Somebody's word that an idle lease is wanted."""

    operations = {"post": Operation("Keep an idle lease", Scope.USE, schemas.Lease)}

    async def post(self, lease_id: str) -> None:
        """Count this as activity: idleness begins anew. The lease's end stays."""
        lease = await self.own(lease_id)
        self.reply(self.show(await self.services.control.leases.keep(lease.id)))
