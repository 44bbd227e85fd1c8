"""Leases over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from pydantic import Field

from nimbus_hub.api import requests, schemas
from nimbus_hub.api.handler import ApiHandler, Operation, Query
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.views import lease_view, slot_groups, wishes_of
from nimbus_hub.control.bus import Change, deadline
from nimbus_hub.errors import Forbidden
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.quantities import parse_duration

__all__ = [
    "IS_LIVE",
    "ActivateHandler",
    "LeaseBase",
    "LeaseHandler",
    "LeasesHandler",
    "QueueHandler",
    "ReleaseHandler",
    "RenewHandler",
    "SavedHandler",
    "SavingHandler",
    "WaitQuery",
]

IS_LIVE = {"live": True, "ended": False, "all": None}


class ListQuery(Query):
    """Which leases to list."""

    state: Literal["live", "ended", "all"] = "live"
    kind: LeaseKind | None = None
    owner: str | None = None
    name: str | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class WaitQuery(Query):
    """Answer only when the version is greater than ``after``, or ``timeout`` seconds passed."""

    after: int | None = Field(default=None, ge=0, le=2**53)
    timeout: float = Field(default=20.0, ge=0, le=30)


class LeaseBase(ApiHandler):
    """What the handlers of leases share."""

    async def own(self, lease_id: str) -> Lease:
        """Return a lease the caller may reach; raise NotFound."""
        return await self.services.control.leases.get(lease_id, self.owner)

    def show(self, lease: Lease) -> schemas.Lease:
        """Show a lease as it is now."""
        control = self.services.control
        return lease_view(lease, control.leases, control.clock.now())

    async def list(self, **wanted: object) -> schemas.LeaseList:
        """Return leases that match."""
        store = self.services.control.records.store
        found = await self.services.control.records.read(store.leases, **wanted)  # type: ignore[arg-type]
        return schemas.LeaseList(items=[self.show(lease) for lease in found])


class LeasesHandler(LeaseBase):
    """The leases of the caller; an administrator's: of everybody."""

    operations = {
        "get": Operation("List leases", Scope.READ, schemas.LeaseList, query=ListQuery),
        "post": Operation(
            "Ask for a lease", Scope.USE, schemas.Lease, status=201, body=requests.LeaseRequest
        ),
    }

    async def get(self) -> None:
        """List leases, newest first."""
        query = self.parse_query(ListQuery)
        if query.owner not in (None, self.caller.name) and not self.caller.is_admin:
            raise Forbidden(f"{self.caller.name} may not list the leases of {query.owner}")
        self.reply(
            await self.list(
                owner=query.owner if self.caller.is_admin else self.caller.name,
                kind=query.kind,
                name=query.name,
                is_live=IS_LIVE[query.state],
                limit=query.limit,
            )
        )

    async def post(self) -> None:
        """Ask for a lease for a session; it is queued and granted when there is room."""
        request = self.parse_body(requests.LeaseRequest)
        if not self.caller.is_admin:
            raise Forbidden("sessions are started at the hub's page, which asks for their lease")
        leases = self.services.control.leases
        owner = request.owner or self.caller.name
        lease = leases.draft(
            LeaseKind(request.kind),
            owner,
            slot_groups(request.groups),
            name=request.name,
            environment=request.environment,
            length=None if request.duration is None else parse_duration(request.duration),
            wait=None if request.wait is None else parse_duration(request.wait),
            wishes=wishes_of(request),
            # What an administrator may do is not what their users may: the hub asks for these.
            is_admin=owner == self.caller.name,
        )
        self.reply(self.show(await leases.request(lease)))


class LeaseHandler(LeaseBase):
    """One lease."""

    operations = {
        "get": Operation("Show a lease", Scope.READ, schemas.Lease, query=WaitQuery),
    }

    async def get(self, lease_id: str) -> None:
        """Show a lease, at once or when it changed."""
        query = self.parse_query(WaitQuery)
        with self.services.control.bus.subscribe(changes_of(lease_id)) as changes:
            lease = await self.own(lease_id)
            left = deadline(query.timeout)
            # News may be older than what was just read: only the version counts.
            while query.after is not None and lease.version <= query.after:
                if await changes.get(left()) is None:
                    break
                lease = await self.own(lease_id)
        self.reply(self.show(lease))


class ActivateHandler(LeaseBase):
    """The spawner's word that a session is ready."""

    operations = {"post": Operation("Start a lease's time", Scope.ADMIN, schemas.Lease)}

    async def post(self, lease_id: str) -> None:
        """Record that what holds the lease is ready."""
        self.reply(self.show(await self.services.control.leases.activate(lease_id)))


class RenewHandler(LeaseBase):
    """Renewals."""

    operations = {
        "post": Operation("Renew a lease", Scope.USE, schemas.Lease, body=requests.RenewRequest)
    }

    async def post(self, lease_id: str) -> None:
        """Move the end of a lease, within policy."""
        request = self.parse_body(requests.RenewRequest)
        length = None if request.duration is None else parse_duration(request.duration)
        lease = await self.own(lease_id)
        self.reply(self.show(await self.services.control.leases.renew(lease.id, length)))


class ReleaseHandler(LeaseBase):
    """Giving back."""

    operations = {
        "post": Operation("Give a lease back", Scope.USE, schemas.Lease, body=requests.EndRequest)
    }

    async def post(self, lease_id: str) -> None:
        """Ask for the end of a lease; the spawner says that its end has come."""
        request = self.parse_body(requests.EndRequest)
        lease = await self.own(lease_id)
        reason = request.reason or f"given back by {self.caller.name}"
        leases = self.services.control.leases
        if not request.is_stopped:
            lease = await leases.release(lease.id, reason)
        elif self.caller.is_admin:
            lease = await leases.stopped(lease.id, reason)
        else:
            raise Forbidden("only the hub may say that a session has stopped")
        self.reply(self.show(lease))


class SavingHandler(LeaseBase):
    """The session's word that its before-reclaim script runs."""

    operations = {
        "post": Operation(
            "A before-reclaim script runs", Scope.USE, schemas.Lease, body=requests.SavingRequest
        )
    }

    async def post(self, lease_id: str) -> None:
        """Have an end wait for the script; may be repeated."""
        request = self.parse_body(requests.SavingRequest)
        lease = await self.own(lease_id)
        longest = timedelta(seconds=request.seconds)
        leases = self.services.control.leases
        self.reply(self.show(await leases.wait_for_script(lease.id, longest)))


class SavedHandler(LeaseBase):
    """The session's word that its documents are saved, or its script has ended."""

    operations = {
        "post": Operation(
            "A session's work is saved", Scope.USE, schemas.Lease, body=requests.SavedRequest
        )
    }

    async def post(self, lease_id: str) -> None:
        """Record that an end need not wait for a part any longer."""
        request = self.parse_body(requests.SavedRequest)
        lease = await self.own(lease_id)
        leases = self.services.control.leases
        if request.part == "script":
            lease = await leases.script_ended(lease.id, request.outcome)
        else:
            lease = await leases.saved(lease.id, request.opened)
        self.reply(self.show(lease))


class QueueHandler(LeaseBase):
    """What waits."""

    operations = {"get": Operation("List what waits", Scope.READ, schemas.LeaseList)}

    async def get(self) -> None:
        """List the caller's waiting leases by position; an administrator's: everybody's."""
        records = self.services.control.records
        live = await records.read(records.store.live)
        waiting = [
            lease
            for lease in live.leases
            if lease.state is LeaseState.QUEUED and self.owner in (None, lease.owner)
        ]
        # What came since the last pass has no position yet: it is behind those that have.
        waiting.sort(
            key=lambda lease: (lease.position is None, lease.position or 0, lease.created_at)
        )
        self.reply(schemas.LeaseList(items=[self.show(lease) for lease in waiting]))


def changes_of(object_id: str) -> Callable[[Change], bool]:
    """Want the changes of one lease or job."""
    return lambda change: getattr(change, "id", None) == object_id
