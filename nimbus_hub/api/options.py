"""What may be asked for, and the GPUs there are, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from nimbus_hub.api import choices
from nimbus_hub.api.gpus import gpu_pools
from nimbus_hub.api.handler import Operation, Query
from nimbus_hub.api.hosts import HostsBase
from nimbus_hub.api.identity import Scope
from nimbus_hub.control.capacity import gpu_counts, host_uses
from nimbus_hub.control.settings import Size
from nimbus_hub.errors import Forbidden
from nimbus_hub.masters.registry import masters
from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.host import HostState
from nimbus_hub.model.lease import LeaseKind

__all__ = ["GpusHandler", "OptionsHandler", "queues_for"]


class OptionsQuery(Query):
    """Whose choices: an administrator may name another user."""

    owner: str | None = None


class OptionsHandler(HostsBase):
    """What may be asked for."""

    operations = {
        "get": Operation(
            "Show what may be asked for", Scope.READ, choices.Options, query=OptionsQuery
        )
    }

    async def get(self) -> None:
        """Show environments, sizes, GPUs, the largest host, where, and the bounds of leases."""
        owner = self._owner()
        control = self.services.control
        hosts = [host for host in control.inventory.hosts if host.state is not HostState.DOWN]
        policy = control.leases.policies.find(LeaseKind.SESSION, owner or self.caller.name)
        counts = gpu_counts(host_uses(hosts, await self.live()))
        self.reply(
            choices.Options(
                environments=[
                    choices.Environment(name=name, description=description)
                    for name, description in sorted(control.settings.environments.items())
                ],
                sizes=_sizes(control.settings.sizes),
                gpus=[
                    choices.GpuCount(model=model, total=total, free=free)
                    for model, (total, free) in counts.items()
                ],
                frameworks=sorted(masters()),
                queues=queues_for(control.inventory.cluster, owner),
                datacenters=sorted({host.datacenter for host in hosts}),
                largest_cpus_milli=max((host.cpus_milli for host in hosts), default=0),
                largest_memory_bytes=max((host.memory_bytes for host in hosts), default=0),
                largest_gpus=max((len(host.gpus) for host in hosts), default=0),
                default_length_seconds=policy.default.total_seconds(),
                longest_length_seconds=policy.longest.total_seconds(),
                renewal_seconds=policy.renewal.total_seconds(),
                latest_end_seconds=policy.latest_end.total_seconds(),
            )
        )

    def _owner(self) -> str | None:
        """Return whose choices are asked for; None for an administrator's own, who has all."""
        owner = self.parse_query(OptionsQuery).owner
        if self.caller.is_admin:
            return owner
        if owner not in (None, self.caller.name):
            raise Forbidden(f"{self.caller.name} may not see what {owner} may ask for")
        return self.caller.name


class GpusHandler(HostsBase):
    """The GPUs by model and datacenter."""

    operations = {"get": Operation("List GPUs", Scope.READ, choices.GpuPoolList)}

    async def get(self) -> None:
        """List GPUs with what of them is free and who holds the rest; others stay unnamed."""
        leases = await self.live()
        uses = host_uses(self.services.control.inventory.hosts, leases)
        pools = gpu_pools(uses, {lease.id: lease.owner for lease in leases}, self.owner)
        self.reply(choices.GpuPoolList(items=pools))


def _sizes(sizes: Sequence[Size]) -> list[choices.Size]:
    return [
        choices.Size(
            name=size.name,
            cpus_milli=size.slot.cpus_milli,
            memory_bytes=size.slot.memory_bytes,
            gpus=size.slot.gpus,
        )
        for size in sizes
    ]


def queues_for(cluster: Cluster, owner: str | None) -> list[choices.Queue]:
    """Return the queues an owner may use, or all."""
    return [
        choices.Queue(
            name=queue.name,
            priority=queue.priority,
            highest=queue.highest,
            is_preemptible=queue.is_preemptible,
        )
        for queue in cluster.queues
        if owner is None or not queue.users or owner in queue.users
    ]
