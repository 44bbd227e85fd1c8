"""What is left of sessions on engines, by hubs that died or starts that were cut off."""

from __future__ import annotations

from nimbus_hub.client.client import Client
from nimbus_hub.errors import NimbusError, NotFound
from nimbus_spawner.calls import call
from nimbus_spawner.engines import FAILED, SessionEngine
from nimbus_spawner.warm_containers import WarmContainers

__all__ = ["is_over", "remove_of", "sweep"]


async def sweep(engine: SessionEngine, nimbus: Client, warm: WarmContainers) -> None:
    """Remove what hubs that died left running on an engine; nobody else's."""
    try:
        found = await engine.sessions()
        live = {lease.id for lease in await call(nimbus.leases, state="live")}
        for each in found:
            if each.is_over or each.lease_id in live or warm.knows(each.id):
                continue
            is_left = each.warm == warm.prefix and not each.lease_id
            if is_left or (each.lease_id and await is_over(nimbus, each.lease_id)):
                await engine.remove(each.id)
    except (*FAILED, NimbusError):
        return  # The next start on this host does it.


async def remove_of(engine: SessionEngine, lease_id: str) -> None:
    """Remove the containers of a lease."""
    for each in await engine.sessions(lease_id):
        await engine.remove(each.id)


async def is_over(nimbus: Client, lease_id: str) -> bool:
    """Tell whether a lease has ended; one of another service has not."""
    try:
        return (await call(nimbus.lease, lease_id)).is_ended
    except NotFound:
        return False
