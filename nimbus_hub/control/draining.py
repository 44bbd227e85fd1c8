"""Draining: ending all there is, while no hub and no service run."""

from __future__ import annotations

import asyncio

from nimbus_hub.control.control import Control
from nimbus_hub.model.lease import LeaseState

__all__ = ["NoSessions", "drain"]

_SECONDS = 60.0


class NoSessions:
    """Stands where the hub would, when there is none: its servers are gone with it."""

    async def stop(self, owner: str, name: str) -> bool:
        """Tell that the server is gone."""
        return True

    async def running(self) -> frozenset[tuple[str, str]]:
        """Tell that no server runs."""
        return frozenset()


async def drain(control: Control, reason: str) -> None:
    """End every lease and job, then the control layer; raise TimeoutError after a minute."""
    acting = asyncio.create_task(control.reconciler.run())
    try:
        async with asyncio.timeout(_SECONDS):
            for lease in (await control.records.live()).leases:
                await control.leases.end(lease.id, LeaseState.RELEASED, reason)
            with control.bus.subscribe(lambda _: True) as changes:
                while any((await control.records.live())[:2]):
                    await changes.get(0.5)
    finally:
        acting.cancel()
        await asyncio.gather(acting, return_exceptions=True)
        control.close()
