"""What can never run, and what would happen: both before anything is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from nimbus_hub.errors import Impossible
from nimbus_hub.model.host import Host
from nimbus_hub.model.quantities import format_cpus, format_memory
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.scheduler.fit import Fit, place
from nimbus_hub.scheduler.free import Free, FreeHost
from nimbus_hub.scheduler.plan import Grant, Wait, plan
from nimbus_hub.scheduler.shortage import counted, gpus_text, most_fitting, roles_text, wish_text
from nimbus_hub.scheduler.snapshot import Snapshot, Waiting

__all__ = ["dry_run", "refuse"]

_DRY_RUN = "dry-run"


def refuse(groups: Sequence[SlotGroup], hosts: Sequence[Host], fit: Fit = place) -> None:
    """Raise Impossible, saying what would be possible, for what no empty hosts could run.

    Hosts that are draining or down count: they come back, and until then the request waits
    with that reason.
    """
    if not hosts:
        raise Impossible("there are no hosts to run on; an administrator has to add one")
    free = Free(hosts)
    if fit(free, groups, _DRY_RUN) is not None:
        return
    for group in groups:
        _refuse_slot(group, tuple(free.hosts.values()))
        _refuse_count(group, free)
    wishes = " and ".join(roles_text(group.role, group.count) for group in groups)
    raise Impossible(
        f"{wishes} fit alone but not together in one datacenter; ask for fewer or smaller ones"
    )


def dry_run(
    snapshot: Snapshot,
    groups: Sequence[SlotGroup],
    length: timedelta,
    now: datetime,
    fit: Fit = place,
) -> Grant | Wait:
    """Return what would become of a request that arrives now, after all that wait."""
    # One tick later than the last: at the same instant, ids would decide who is first.
    tick = timedelta(microseconds=1)
    since = max([now, *(each.since + tick for each in snapshot.waiting)])
    request = Waiting(_DRY_RUN, "", tuple(groups), length, since)
    decided = plan(replace(snapshot, waiting=(*snapshot.waiting, request)), now, fit)
    answers: list[Grant | Wait] = [*decided.grants, *decided.waits]
    return next(answer for answer in answers if answer.lease_id == _DRY_RUN)


def _refuse_slot(group: SlotGroup, hosts: Sequence[FreeHost]) -> None:
    """Refuse what no single host has."""
    if group.gpus:
        hosts = _refuse_gpus(group, hosts)
    beside = f" with {gpus_text(group.gpus, group.gpu_model)}" if group.gpus else ""
    cpus = max(host.cpus_milli for host in hosts)
    if cpus < group.cpus_milli:
        raise Impossible(
            f"{format_cpus(group.cpus_milli)} CPUs on one host were asked for, but the largest "
            f"host{beside} has {format_cpus(cpus)}; "
            f"ask for at most {format_cpus(cpus)} per {group.role}"
        )
    memory = max(host.memory_bytes for host in hosts)
    if memory < group.memory_bytes:
        raise Impossible(
            f"{format_memory(group.memory_bytes)} of memory on one host was asked for, but the "
            f"largest host{beside} has {_floored(memory)}; "
            f"ask for at most {_floored(memory)} per {group.role}"
        )
    if not any(host.room(group) for host in hosts):
        host = max(hosts, key=lambda host: host.cpus_milli)
        raise Impossible(
            f"no host has {wish_text(group)} together; host {host.host.name}, for one, has "
            f"{format_cpus(host.cpus_milli)} CPUs and {_floored(host.memory_bytes)}; "
            f"ask for less per {group.role}"
        )


def _refuse_gpus(group: SlotGroup, hosts: Sequence[FreeHost]) -> list[FreeHost]:
    """Return the hosts with enough GPUs for one slot; refuse if there are none."""
    models = sorted({gpu.model for host in hosts for gpu in host.host.gpus})
    asked = gpus_text(group.gpus, group.gpu_model)
    if not models:
        raise Impossible(f"{asked} per {group.role} asked for, but no host has GPUs; ask for 0")
    most = max(host.gpus_of(group.gpu_model) for host in hosts)
    if not most:
        raise Impossible(
            f"no host has a GPU of model {group.gpu_model}; ask for one of: {', '.join(models)}"
        )
    if most < group.gpus:
        raise Impossible(
            f"{asked} on one host were asked for, but the largest host has {most}; "
            f"ask for at most {most} per {group.role}"
        )
    return [host for host in hosts if host.gpus_of(group.gpu_model) >= group.gpus]


def _refuse_count(group: SlotGroup, free: Free) -> None:
    """Refuse more equal slots than any datacenter holds."""
    fitting = most_fitting(free, group)
    if fitting >= group.count:
        return
    gpus = f" ({counted(group.gpus * group.count, 'GPU')} in all)" if group.gpus else ""
    where = "in one datacenter" if len(free.datacenters) > 1 else "on all hosts together"
    raise Impossible(
        f"{roles_text(group.role, group.count)} with {wish_text(group)} each{gpus} were asked "
        f"for, but only {fitting} fit {where}; "
        f"ask for at most {roles_text(group.role, fitting)} of this size"
    )


def _floored(memory_bytes: int) -> str:
    """Return a size that is not more than the given one: what may really be asked for."""
    for unit, size in (("G", 2**30), ("M", 2**20)):
        if memory_bytes >= 4 * size:
            return f"{memory_bytes // size}{unit}"
    return format_memory(memory_bytes)
