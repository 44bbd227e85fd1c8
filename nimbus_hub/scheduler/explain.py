"""What can never run, and what would happen: both before anything is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from nimbus_hub.errors import Impossible
from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.host import Host
from nimbus_hub.model.quantities import format_cpus, format_memory
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.capacity import Capacity
from nimbus_hub.scheduler.decisions import Grant, Preview, Wait
from nimbus_hub.scheduler.fit import Fitter
from nimbus_hub.scheduler.placement import Tightest
from nimbus_hub.scheduler.plan import Pass
from nimbus_hub.scheduler.shape import Shape
from nimbus_hub.scheduler.shortage import most_arranged, most_room
from nimbus_hub.scheduler.snapshot import Snapshot, Waiting
from nimbus_hub.scheduler.words import counted, gpus_text, roles_text, wish_text

__all__ = ["preview", "refuse"]

_NO_PORTS = (
    "the hosts have too few ports or addresses for so many slots; ask for fewer, or have an "
    "administrator give the hosts more ports, or a larger network"
)


def refuse(
    groups: Sequence[SlotGroup],
    hosts: Sequence[Host],
    wishes: Wishes | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Raise Impossible, saying what would be possible, for what no empty hosts could run.

    Hosts that are draining or down count: they come back, and until then the request waits
    with that reason.
    """
    if not hosts:
        raise Impossible("there are no hosts to run on; an administrator has to add one")
    rules = (cluster or Cluster()).rules
    capacity = Capacity(hosts, rules, {}, Tightest)
    wished = wishes.datacenter if wishes is not None else None
    if wished is not None and wished not in capacity.fitters:
        raise Impossible(
            f"no host is in datacenter {wished!r}; there are {', '.join(capacity.fitters)}"
        )
    names = [wished] if wished is not None else list(capacity.fitters)
    seated = capacity.gang(groups, names)
    if seated is not None:
        if capacity.slots(groups, seated, "") is None:
            raise Impossible(_NO_PORTS)
        return
    fitters = [capacity.fitters[name] for name in names]
    where = f" in {wished}" if wished is not None else ""
    for group in groups:
        _refuse_slot(group, fitters, where)
        _refuse_count(group, fitters, where)
        _refuse_topology(group, fitters)
    _refuse_addresses(groups, capacity, names)
    asked = " and ".join(roles_text(group.role, group.count) for group in groups)
    raise Impossible(
        f"{asked} fit alone but not together{where or ' in one datacenter'}; "
        "ask for fewer or smaller ones"
    )


def preview(snapshot: Snapshot, request: Waiting, now: datetime) -> Preview:
    """Return what would become of a request that arrives now, after all that wait."""
    # One tick later than the last: at the same instant, ids would decide who is first.
    tick = timedelta(microseconds=1)
    since = max([now, *(each.since + tick for each in snapshot.waiting)])
    request = replace(request, since=since)
    deciding = Pass(replace(snapshot, waiting=(*snapshot.waiting, request)), now)
    decided = deciding.run()
    answers: list[Grant | Wait] = [*decided.grants, *decided.waits]
    return Preview(
        answer=next(each for each in answers if each.lease_id == request.lease_id),
        sites=deciding.sites.get(request.lease_id, ()),
        preemptions=tuple(
            each for each in decided.preemptions if each.for_lease_id == request.lease_id
        ),
    )


def _refuse_slot(group: SlotGroup, fitters: Sequence[Fitter], where: str) -> None:
    """Refuse what no single host has."""
    shape = Shape.of(group)
    if group.gpus:
        _refuse_gpus(group, fitters, where)
    beside = f" with {gpus_text(shape.all_gpus_milli, shape.models)}" if group.gpus else ""
    cpus = _most(fitters, shape, "cpus")
    if cpus < group.cpus_milli:
        raise Impossible(
            f"{format_cpus(group.cpus_milli)} CPUs on one host were asked for, but the largest "
            f"host{beside}{where} has {format_cpus(cpus)}{_reserved(group, fitters)}; "
            f"ask for at most {format_cpus(cpus)} per {group.role}"
        )
    memory = _most(fitters, shape, "memory")
    if memory < group.memory_bytes:
        raise Impossible(
            f"{format_memory(group.memory_bytes)} of memory on one host was asked for, but the "
            f"largest host{beside}{where} has {_floored(memory)}{_reserved(group, fitters)}; "
            f"ask for at most {_floored(memory)} per {group.role}"
        )
    if not any(fitter.rooms(shape).hosts.any() for fitter in fitters):
        host = max((h for fitter in fitters for h in fitter.free.hosts), key=lambda h: h.cpus_milli)
        raise Impossible(
            f"no host has {wish_text(group)} together; host {host.name}, for one, has "
            f"{format_cpus(host.cpus_milli)} CPUs and {_floored(host.memory_bytes)}; "
            f"ask for less per {group.role}"
        )


def _most(fitters: Sequence[Fitter], shape: Shape, what: str) -> int:
    """Return the most CPUs or memory that one host gives to slots of a shape."""
    most = 0
    for fitter in fitters:
        free = fitter.free
        amount = free.cpus if what == "cpus" else free.memory
        if shape.gpus:
            amount = amount[_whole(fitter, shape) >= shape.gpus]
        else:
            amount = amount - (free.kept_cpus() if what == "cpus" else free.kept_memory())
        most = max(most, int(amount.max(initial=0)))
    return most


def _reserved(group: SlotGroup, fitters: Sequence[Fitter]) -> str:
    """Say that GPUs keep some of the hosts, where that is what is missing."""
    if group.gpus or not any(fitter.free.has_gpus.any() for fitter in fitters):
        return ""
    return " for slots without GPUs"


def _whole(fitter: Fitter, shape: Shape) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return how many devices of the allowed models each host has."""
    return np.asarray((fitter.free.free_gpus(shape.models) > 0).sum(axis=1), np.int64)


def _refuse_gpus(group: SlotGroup, fitters: Sequence[Fitter], where: str) -> None:
    """Refuse more GPUs, or others, than any host has."""
    shape = Shape.of(group)
    models = sorted({name for fitter in fitters for name in fitter.free.model_names})
    asked = gpus_text(shape.all_gpus_milli, shape.models)
    if not models:
        raise Impossible(
            f"{asked} per {group.role} asked for, but no host{where} has GPUs; ask for 0"
        )
    most = max(int(_whole(fitter, shape).max(initial=0)) for fitter in fitters)
    if not most:
        raise Impossible(
            f"no host{where} has a GPU of model {' or '.join(shape.models)}; "
            f"ask for one of: {', '.join(models)}"
        )
    if most < group.gpus:
        raise Impossible(
            f"{asked} on one host were asked for, but the largest host{where} has {most}; "
            f"ask for at most {most} per {group.role}"
        )


def _refuse_count(group: SlotGroup, fitters: Sequence[Fitter], where: str) -> None:
    """Refuse more equal slots than any datacenter holds."""
    _, fitting = most_room(fitters, group)
    if fitting >= group.count:
        return
    gpus = f" ({gpus_text(group.all_gpus_milli)} in all)" if group.gpus else ""
    place = where or (" in one datacenter" if len(fitters) > 1 else " on all hosts together")
    raise Impossible(
        f"{roles_text(group.role, group.count)} with {wish_text(group)} each{gpus} were asked "
        f"for, but only {fitting} fit{place}; "
        f"ask for at most {roles_text(group.role, fitting)} of this size"
    )


def _refuse_topology(group: SlotGroup, fitters: Sequence[Fitter]) -> None:
    """Refuse a topology that the largest host, the largest rack or the hosts do not allow."""
    most, where = most_arranged(fitters, group)
    if most < group.count:
        raise Impossible(
            f"{roles_text(group.role, group.count)} {where} were asked for "
            f"({group.wanted_topology}), but at most {most} can be; "
            f"ask for at most {most}, or for another topology"
        )


def _refuse_addresses(
    groups: Sequence[SlotGroup], capacity: Capacity, names: Sequence[str]
) -> None:
    """Refuse a gang that would fit, had its part of the network addresses for all its slots."""
    fitting = [name for name in names if capacity.fitters[name].gang(groups) is not None]
    if not fitting:
        return
    most = max(capacity.most_slots[name] for name in fitting)
    count = sum(group.count for group in groups)
    raise Impossible(
        f"{counted(count, 'slot')} at once were asked for, but the network of the hosts in "
        f"{' and '.join(fitting)} has addresses for at most {most} of one gang; ask for fewer, or "
        "have an administrator give it a larger subnet in the cluster file"
    )


def _floored(memory_bytes: int) -> str:
    """Return a size that is not more than the given one: what may really be asked for."""
    for unit, size in (("G", 2**30), ("M", 2**20)):
        if memory_bytes >= 4 * size:
            return f"{memory_bytes // size}{unit}"
    return format_memory(memory_bytes)
