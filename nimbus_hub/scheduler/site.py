"""Datacenters: where a gang's data lives, and how long it takes to bring it elsewhere.

Locations are URL prefixes; the longest that matches wins, and data may live in several
datacenters. Data that lives nowhere known is as far from everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.quantities import format_memory
from nimbus_hub.model.wishes import DataUse, Wishes
from nimbus_hub.scheduler.decisions import Site
from nimbus_hub.scheduler.words import seconds

__all__ = ["Transfer", "chosen", "homes", "site_text", "transfer"]


@dataclass(frozen=True, slots=True)
class Transfer:
    """What has to be moved if a gang runs in a datacenter.

    ``bytes_near`` need not be moved; ``unsized_far`` counts the data elsewhere whose size
    nobody said.
    """

    bytes_near: int = 0
    bytes_to_move: int = 0
    seconds: float = 0.0
    unsized_far: int = 0


def homes(data: DataUse, cluster: Cluster) -> frozenset[str]:
    """Return the datacenters in which data lives, none if nobody configured it."""
    matches = [
        (len(prefix), datacenter.name)
        for datacenter in cluster.datacenters
        for prefix in datacenter.locations
        if data.url.startswith(prefix)
    ]
    longest = max((length for length, _ in matches), default=0)
    return frozenset(name for length, name in matches if length == longest)


def transfer(wishes: Wishes, datacenter: str, cluster: Cluster) -> Transfer | None:
    """Return what running there would move, or None if no data lives anywhere known."""
    found = Transfer()
    is_known = False
    for data in (*wishes.inputs, *wishes.outputs):
        places = homes(data, cluster)
        is_known = is_known or bool(places)
        size = data.size_bytes or 0
        if datacenter in places:
            found = replace(found, bytes_near=found.bytes_near + size)
        elif places:
            speed = max(cluster.bandwidth(datacenter, place) for place in places)
            found = replace(
                found,
                bytes_to_move=found.bytes_to_move + size,
                seconds=found.seconds + size / speed,
                unsized_far=found.unsized_far + (data.size_bytes is None),
            )
    return found if is_known else None


def chosen(sites: Sequence[tuple[Site, Transfer]]) -> list[Site]:
    """Return the sites with the one marked whose transfer and wait take least together.

    Where that is equal, the one with less data of unknown size elsewhere wins, then the name.
    """

    def cost(each: tuple[Site, Transfer]) -> tuple[bool, float, int, str]:
        site, moved = each
        wait = site.wait_seconds
        return wait is None, moved.seconds + (wait or 0.0), moved.unsized_far, site.datacenter

    best = min(sites, key=cost)[0] if sites else None
    return [replace(site, is_chosen=site is best) for site, _ in sites]


def site_text(sites: Iterable[Site]) -> str:
    """Return why a datacenter was chosen, with the numbers of all."""
    parts = []
    for site in sorted(sites, key=lambda site: (not site.is_chosen, site.datacenter)):
        moves = _moves(site)
        if site.wait_seconds is None:
            waits = "no end of the wait known"
        elif site.wait_seconds:
            waits = f"about {seconds(site.wait_seconds)} to wait"
        else:
            waits = "no wait"
        parts.append(f"{site.datacenter}: {moves}, {waits}")
    return "; ".join(parts)


def _moves(site: Site) -> str:
    parts = []
    if site.bytes_to_move:
        took = seconds(site.transfer_seconds)
        parts.append(f"{format_memory(site.bytes_to_move)} to move ({took})")
    if site.unsized:
        parts.append(f"{site.unsized} of unknown size to move")
    return " and ".join(parts) or "nothing to move"
