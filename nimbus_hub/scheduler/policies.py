"""The policies by name: those of Nimbus Hub, and those that other packages add."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.scheduler.order import Ordering
from nimbus_hub.scheduler.placement import PlacementFactory

__all__ = ["check_policies", "ordering", "placement"]


def placement(name: str) -> PlacementFactory:
    """Return a placement policy; raise InvalidRequest naming those there are."""
    found: PlacementFactory = _load("nimbus_hub.placement", name)
    return found


def ordering(name: str) -> Ordering:
    """Return an order of requests; raise InvalidRequest naming those there are."""
    found: Ordering = _load("nimbus_hub.ordering", name)
    return found


def check_policies(placement_name: str, ordering_name: str) -> None:
    """Raise InvalidRequest for a policy that is not installed."""
    placement(placement_name)
    ordering(ordering_name)


@lru_cache(maxsize=64)
def _load(group: str, name: str) -> Any:
    known = {each.name: each for each in entry_points(group=group)}
    if name not in known:
        kind = group.rpartition(".")[2]
        raise InvalidRequest(
            f"there is no {kind} policy {name!r}; installed are {', '.join(sorted(known))}"
        )
    try:
        return known[name].load()
    except (ImportError, AttributeError) as error:
        raise InvalidRequest(f"{group} policy {name!r} cannot be loaded: {error}") from error
