"""Hosts over HTTP."""

from __future__ import annotations

from nimbus_hub.api import requests, schemas
from nimbus_hub.api.engines import EngineEntry
from nimbus_hub.api.handler import ApiHandler, Operation
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.views import host_view
from nimbus_hub.control.capacity import host_uses
from nimbus_hub.control.cluster_entry import engine_text
from nimbus_hub.model.host import Host
from nimbus_hub.model.lease import Lease

__all__ = [
    "DrainHandler",
    "HostsBase",
    "HostsHandler",
    "UndrainHandler",
]


class HostsBase(ApiHandler):
    """What the handlers of hosts share."""

    async def live(self) -> tuple[Lease, ...]:
        """Return the live leases of everybody."""
        records = self.services.control.records
        return tuple((await records.live()).leases)

    async def reply_host(self, host: Host) -> None:
        """Answer an administrator with a host as it is now."""
        (use,) = host_uses([host], await self.live())
        self.reply(host_view(use, None))


class HostsHandler(HostsBase):
    """The hosts."""

    operations = {
        "get": Operation("List hosts", Scope.READ, schemas.HostList),
        "post": Operation(
            "Write an engine into the cluster file",
            Scope.ADMIN,
            EngineEntry,
            status=201,
            body=requests.EngineRequest,
        ),
    }

    async def get(self) -> None:
        """List hosts with what of them is free; others' leases stay unnamed."""
        leases = await self.live()
        own = frozenset(lease.id for lease in leases if lease.owner == self.caller.name)
        visible = None if self.caller.is_admin else own
        inventory = self.services.control.inventory
        uses = host_uses(inventory.hosts, leases)
        self.reply(
            schemas.HostList(
                items=[host_view(use, visible) for use in uses],
                cluster_file_error=inventory.file_error if self.caller.is_admin else "",
            )
        )

    async def post(self) -> None:
        """Write an engine into the cluster file; it is a host as soon as that is read again."""
        engine = self.parse_body(requests.EngineRequest).engine()
        inventory = self.services.control.inventory
        await inventory.add_engine(engine)
        self.reply(EngineEntry(lines=engine_text(engine), file=inventory.file_path))


class DrainHandler(HostsBase):
    """A host that is to take nothing new."""

    operations = {
        "post": Operation(
            "Have a host take nothing new", Scope.ADMIN, schemas.Host, body=requests.HostRequest
        )
    }

    async def post(self, name: str) -> None:
        """Drain a host; what runs there runs to its end."""
        reason = self.parse_body(requests.HostRequest).reason
        inventory = self.services.control.inventory
        await self.reply_host(await inventory.drain(name, reason, self.caller.name))


class UndrainHandler(HostsBase):
    """A host that is to take new slots again."""

    operations = {"post": Operation("Let a drained host take slots", Scope.ADMIN, schemas.Host)}

    async def post(self, name: str) -> None:
        """Take back that a host is drained."""
        await self.reply_host(await self.services.control.inventory.undrain(name))
