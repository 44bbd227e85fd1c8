"""Hosts, and what may be asked for, over HTTP."""

from __future__ import annotations

from nimbus_hub.api import schemas
from nimbus_hub.api.handler import ApiHandler, Operation
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.views import host_view
from nimbus_hub.control.capacity import gpu_counts, host_uses
from nimbus_hub.masters.registry import masters
from nimbus_hub.model.host import HostState
from nimbus_hub.model.lease import Lease, LeaseKind

__all__ = ["HostsHandler", "OptionsHandler"]


class HostsBase(ApiHandler):
    """What both share."""

    async def live(self) -> tuple[Lease, ...]:
        """Return the live leases of everybody."""
        records = self.services.control.records
        return tuple((await records.read(records.store.live)).leases)


class HostsHandler(HostsBase):
    """The hosts."""

    operations = {"get": Operation("List hosts", Scope.READ, schemas.HostList)}

    async def get(self) -> None:
        """List hosts with what of them is free; others' leases stay unnamed."""
        leases = await self.live()
        own = frozenset(lease.id for lease in leases if lease.owner == self.caller.name)
        visible = None if self.caller.is_admin else own
        uses = host_uses(self.services.control.inventory.hosts, leases)
        self.reply(schemas.HostList(items=[host_view(use, visible) for use in uses]))


class OptionsHandler(HostsBase):
    """What may be asked for."""

    operations = {"get": Operation("Show what may be asked for", Scope.READ, schemas.Options)}

    async def get(self) -> None:
        """Show environments, sizes, GPUs, the largest host, and the bounds of leases."""
        control = self.services.control
        hosts = [host for host in control.inventory.hosts if host.state is not HostState.DOWN]
        policy = control.leases.policy(LeaseKind.SESSION)
        counts = gpu_counts(host_uses(hosts, await self.live()))
        self.reply(
            schemas.Options(
                environments=[
                    schemas.Environment(name=name, description=description)
                    for name, description in sorted(control.settings.environments.items())
                ],
                sizes=[
                    schemas.Size(
                        name=size.name,
                        cpus_milli=size.slot.cpus_milli,
                        memory_bytes=size.slot.memory_bytes,
                        gpus=size.slot.gpus,
                    )
                    for size in control.settings.sizes
                ],
                gpus=[
                    schemas.GpuCount(model=model, total=total, free=free)
                    for model, (total, free) in counts.items()
                ],
                frameworks=sorted(masters()),
                largest_cpus_milli=max((host.cpus_milli for host in hosts), default=0),
                largest_memory_bytes=max((host.memory_bytes for host in hosts), default=0),
                largest_gpus=max((len(host.gpus) for host in hosts), default=0),
                default_length_seconds=policy.default.total_seconds(),
                longest_length_seconds=policy.longest.total_seconds(),
                renewal_seconds=policy.renewal.total_seconds(),
                latest_end_seconds=policy.latest_end.total_seconds(),
            )
        )
