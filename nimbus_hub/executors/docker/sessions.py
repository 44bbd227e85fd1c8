"""Sessions' containers on an engine, which the hub's spawner makes and usually removes."""

from __future__ import annotations

from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.model.engine import LEASE_LABEL

__all__ = ["remove_session", "sessions"]

_NOT_ENDED = ["created", "restarting", "running", "paused"]


def sessions(client: EngineClient) -> frozenset[str]:
    """Return the leases of sessions whose containers have not ended. Blocks.

    One that has ended may be kept on purpose.
    """
    wanted = {"label": LEASE_LABEL, "status": _NOT_ENDED}
    found = client.use(lambda sdk: sdk.containers(all=True, filters=wanted))
    return frozenset(each["Labels"][LEASE_LABEL] for each in found)


def remove_session(client: EngineClient, lease_id: str) -> None:
    """Remove the containers of a session's lease. Blocks."""
    wanted = {"label": f"{LEASE_LABEL}={lease_id}"}
    for each in client.use(lambda sdk: sdk.containers(all=True, filters=wanted)):
        client.remove(each["Id"])
