"""Sessions' containers on an engine, which the hub's spawner makes and usually removes."""

from __future__ import annotations

from typing import Any

from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.model.session_container import (
    CLAIM_LABEL,
    LEASE_LABEL,
    SessionContainer,
    session_containers,
)

__all__ = ["remove_session", "sessions"]


def sessions(client: EngineClient) -> frozenset[str]:
    """Return the leases of sessions whose containers have not ended. Blocks.

    One that has ended may be kept on purpose.
    """
    found = _containers(client, LEASE_LABEL)
    return frozenset(each.lease_id for each in found if each.lease_id and not each.is_over)


def remove_session(client: EngineClient, lease_id: str) -> None:
    """Remove the containers of a session's lease, and what lent them mounts. Blocks."""
    for each in _containers(client, f"{LEASE_LABEL}={lease_id}"):
        lenders = _listed(client, f"{CLAIM_LABEL}={each.id}")
        for container_id in (each.id, *(lender["Id"] for lender in lenders)):
            client.remove(container_id)


def _containers(client: EngineClient, label: str) -> list[SessionContainer]:
    return session_containers(_listed(client, label))


def _listed(client: EngineClient, label: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.use(
        lambda sdk: sdk.containers(all=True, filters={"label": label})
    )
    return found
