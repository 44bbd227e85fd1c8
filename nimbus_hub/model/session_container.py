"""The containers of sessions, by the labels that their engines tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CLAIM_LABEL", "LEASE_LABEL", "WARM_LABEL", "SessionContainer", "session_containers"]

LEASE_LABEL = "nimbus.lease"
"""Of a session's container: its lease. Labels cannot be changed: it is empty if that was warm."""
WARM_LABEL = "nimbus.warm"
"""Of a container that was started warm: the prefix of the hub's containers."""
CLAIM_LABEL = "nimbus.claim"
"""Of what lends a claimed container its mounts and has its lease: the id of that container."""

_NOT_ENDED = frozenset({"created", "restarting", "running", "paused"})


@dataclass(frozen=True, slots=True)
class SessionContainer:
    """A container of a session: whose lease, if anybody's, and of which hub it was warm.

    One that is gone while what lent it its mounts is still there is not over: that is left.
    """

    id: str
    lease_id: str
    warm: str = ""
    is_over: bool = False


def session_containers(listed: Sequence[Mapping[str, Any]]) -> list[SessionContainer]:
    """Return the containers of sessions among those that an engine listed."""
    leases: dict[str, str] = {}
    own: dict[str, Mapping[str, Any]] = {}
    for each in listed:
        labels = each["Labels"]
        if CLAIM_LABEL in labels:
            leases[labels[CLAIM_LABEL]] = labels[LEASE_LABEL]
        else:
            own[each["Id"]] = each
    found = [SessionContainer(name, leases[name]) for name in leases if name not in own]
    for name, each in own.items():
        labels = each["Labels"]
        lease_id = leases.get(name, labels[LEASE_LABEL])
        is_over = each["State"] not in _NOT_ENDED
        found.append(SessionContainer(name, lease_id, labels.get(WARM_LABEL, ""), is_over))
    return found
