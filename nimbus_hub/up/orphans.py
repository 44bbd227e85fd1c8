"""What a hub that died without a word leaves behind: its proxy, and for a moment its service."""

from __future__ import annotations

from nimbus_hub.up.processes import ProcessRecord
from nimbus_hub.up.proxy import forget_foreign_pid
from nimbus_hub.up.state import State

__all__ = ["end_orphans"]

_NOTICE_SECONDS = 3.0
"""The service's keeper sees within this time that its hub is gone, and ends both."""


async def end_orphans(state: State) -> None:
    """End the proxy and the service of a hub that does not run any more."""
    service = ProcessRecord.read(state.service_record)
    if service is not None and not await service.gone(_NOTICE_SECONDS):
        await service.end()
    forget_foreign_pid(state)
    try:
        pid = int(state.proxy_pid.read_text())
    except (OSError, ValueError):
        return
    await ProcessRecord.of(pid).end()
    state.proxy_pid.unlink(missing_ok=True)
