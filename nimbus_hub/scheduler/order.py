"""Who comes first: priority, then arrival."""

from __future__ import annotations

from collections.abc import Iterable

from nimbus_hub.scheduler.snapshot import Waiting

__all__ = ["ordered"]


def ordered(waiting: Iterable[Waiting]) -> list[Waiting]:
    """Return the requests in the order of their right to start; ids break ties."""
    return sorted(waiting, key=lambda each: (-each.priority, each.since, each.lease_id))
