"""What a placement means for a gang: hosts, racks, and the bytes per step that cross racks.

Workers alone exchange their gradients in a ring (Patarasuk and Yuan, 2009): in each step
every link of the ring carries 2 (n - 1) / n times their size, and a ring that visits its
racks one after the other has as many links between racks as there are racks. With
parameter servers every worker sends each of the p servers 1/p of the gradients and gets as
much back.
"""

from __future__ import annotations

from collections.abc import Sequence

from nimbus_hub.model.quantities import format_memory
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.scheduler.fit import Seats
from nimbus_hub.scheduler.free import Free
from nimbus_hub.scheduler.words import counted, roles_text

__all__ = ["crossing", "topology_text"]

_TRAINING = ("chief", "worker", "master")


def crossing(worker_racks: Sequence[int], server_racks: Sequence[int]) -> float:
    """Return what crosses racks in a step, in sizes of what a worker exchanges."""
    workers = len(worker_racks)
    if server_racks:
        pairs = sum(worker != server for worker in worker_racks for server in server_racks)
        return 2 * pairs / len(server_racks)
    racks = len(set(worker_racks))
    return racks * 2 * (workers - 1) / workers if racks > 1 else 0.0


def topology_text(
    datacenter: str,
    free: Free,
    groups: Sequence[SlotGroup],
    seats: Seats,
    step_bytes: int | None,
) -> str:
    """Return where a gang is: ``8 workers on 2 hosts in 1 rack of east; ...``."""
    parts = []
    racks: dict[str, list[int]] = {}
    for group, own in zip(groups, seats, strict=True):
        racks.setdefault(group.role, []).extend(
            free.rack_of(seat.host) for seat in own for _ in range(seat.slots)
        )
        hosts = counted(len({seat.host for seat in own}), "host")
        in_racks = counted(len({free.rack_of(seat.host) for seat in own}), "rack")
        parts.append(f"{roles_text(group.role, group.count)} on {hosts} in {in_racks}")
    text = f"{', '.join(parts)} of {datacenter}"
    workers = [rack for role in _TRAINING for rack in racks.get(role, ())]
    if len(workers) + len(racks.get("ps", ())) < 2 or not workers:
        return text
    return f"{text}; {_crossing_text(crossing(workers, racks.get('ps', [])), step_bytes)}"


def _crossing_text(times: float, step_bytes: int | None) -> str:
    if not times:
        return "nothing crosses racks"
    if step_bytes is None:
        return f"in each step {times:.3g} times what a worker exchanges crosses racks"
    return f"{format_memory(round(times * step_bytes))} per step cross racks"
