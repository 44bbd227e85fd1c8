"""Debug gangs over HTTP; they are renewed and given back by their leases."""

from __future__ import annotations

from typing import Literal

from nimbus_hub.api import requests, schemas
from nimbus_hub.api.handler import ApiHandler, Operation, Query
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.leases import IS_LIVE, WaitQuery
from nimbus_hub.api.views import gang_view, slot_groups
from nimbus_hub.control.bus import Change, deadline
from nimbus_hub.control.gangs import Gang
from nimbus_hub.errors import Forbidden
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.quantities import parse_duration

__all__ = ["GangHandler", "GangsHandler"]


class ListQuery(Query):
    """Which gangs to list; ``session`` is the lease of the session they belong to."""

    state: Literal["live", "ended", "all"] = "live"
    session: str | None = None
    owner: str | None = None


class GangBase(ApiHandler):
    """What the handlers of gangs share."""

    def show(self, gang: Gang) -> schemas.Gang:
        """Show a gang as it is now."""
        control = self.services.control
        return gang_view(gang, control.leases, control.clock.now())


class GangsHandler(GangBase):
    """The gangs of the caller; an administrator's: of everybody."""

    operations = {
        "get": Operation("List debug gangs", Scope.READ, schemas.GangList, query=ListQuery),
        "post": Operation(
            "Ask for a debug gang", Scope.USE, schemas.Gang, status=201, body=requests.GangRequest
        ),
    }

    async def get(self) -> None:
        """List gangs, newest first."""
        query = self.parse_query(ListQuery)
        if query.owner not in (None, self.caller.name) and not self.caller.is_admin:
            raise Forbidden(f"{self.caller.name} may not list the gangs of {query.owner}")
        owner = query.owner if self.caller.is_admin else self.caller.name
        gangs = self.services.control.gangs
        found = await gangs.list(owner, query.session, IS_LIVE[query.state])
        self.reply(schemas.GangList(items=[self.show(gang) for gang in found]))

    async def post(self) -> None:
        """Ask for a gang; it is queued, and granted whole when there is room."""
        request = self.parse_body(requests.GangRequest)
        control = self.services.control
        parent = None
        if request.session is not None:
            parent = await control.leases.get(request.session, self.owner)
        gang = await control.gangs.request(
            # The hub asks for those that come with a session.
            self.caller.name if parent is None else parent.owner,
            request.framework,
            slot_groups(request.groups),
            environment=request.environment,
            name=request.name,
            length=None if request.duration is None else parse_duration(request.duration),
            wait=None if request.wait is None else parse_duration(request.wait),
            parent=parent,
        )
        self.reply(self.show(gang))


class GangHandler(GangBase):
    """One gang."""

    operations = {
        "get": Operation("Show a debug gang", Scope.READ, schemas.Gang, query=WaitQuery),
    }

    async def get(self, lease_id: str) -> None:
        """Show a gang, at once or when it, its replicas or its run changed."""
        query = self.parse_query(WaitQuery)
        gangs = self.services.control.gangs

        def wanted(change: Change) -> bool:
            if isinstance(change, Job):
                return change.lease_id == lease_id
            return isinstance(change, Lease) and change.id == lease_id

        with self.services.control.bus.subscribe(wanted) as changes:
            gang = await gangs.get(lease_id, self.owner)
            left = deadline(query.timeout)
            # News may be older than what was just read: only the version counts.
            while query.after is not None and gang.version <= query.after:
                if await changes.get(left()) is None:
                    break
                gang = await gangs.get(lease_id, self.owner)
        self.reply(self.show(gang))
