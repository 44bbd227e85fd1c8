"""What a request lacks, in users' words: "waiting for 2 GPUs A100: 1 of 4 is free"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nimbus_hub.model.host import Host, HostState
from nimbus_hub.model.quantities import format_cpus, format_memory
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.scheduler.fit import roomy
from nimbus_hub.scheduler.free import Free, FreeHost

__all__ = ["counted", "gpus_text", "most_fitting", "roles_text", "shortage", "wish_text"]

_NAMED_HOSTS = 3


def shortage(free: Free, groups: Sequence[SlotGroup], hosts: Sequence[Host]) -> str:
    """Return why a gang does not fit in what is free; ``hosts`` are all, in any state."""
    absent = _absent(groups, hosts)
    if absent:
        return f"waiting for {_hosts_text(absent)}"
    for group in groups:
        if most_fitting(free, group) < group.count:
            return _group_shortage(free, group)
    count = sum(group.count for group in groups)
    return f"waiting for {counted(count, 'slot')} at once in one datacenter: not all are free"


def most_fitting(free: Free, group: SlotGroup) -> int:
    """Return how many slots of a group fit at once in the datacenter that holds most."""
    return max(
        (sum(host.room(group) for host in hosts) for hosts in free.datacenters.values()),
        default=0,
    )


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 slot``, ``2 slots``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def gpus_text(count: int, model: str | None) -> str:
    """Return a number of GPUs in words: ``2 GPUs A100``."""
    return counted(count, "GPU") + (f" {model}" if model else "")


def roles_text(role: str, count: int) -> str:
    """Return a number of a role in words: ``1 worker``, ``2 workers``, ``2 ps``."""
    return f"{count} {role}" if role.endswith("s") else counted(count, role)


def wish_text(group: SlotGroup) -> str:
    """Return the size of a slot in words: ``1 GPU, 4 CPUs and 8G of memory``."""
    gpus = f"{gpus_text(group.gpus, group.gpu_model)}, " if group.gpus else ""
    return f"{gpus}{_cpus_text(group.cpus_milli)} and {format_memory(group.memory_bytes)} of memory"


def _cpus_text(milli: int) -> str:
    return f"{format_cpus(milli)} CPU{'' if milli == 1000 else 's'}"


def _group_shortage(free: Free, group: SlotGroup) -> str:
    hosts = tuple(free.hosts.values())
    gpus = group.gpus * group.count
    free_gpus = sum(host.gpus_of(group.gpu_model) for host in hosts)
    if free_gpus < gpus:
        total = sum(host.gpus_in_all(group.gpu_model) for host in hosts)
        are = "is" if free_gpus == 1 else "are"
        return f"waiting for {gpus_text(gpus, group.gpu_model)}: {free_gpus} of {total} {are} free"
    fitting = most_fitting(free, group)
    if fitting:
        each = f" of {wish_text(group)} each" if group.count > 1 else ""
        roles = roles_text(group.role, group.count)
        fit = "fits" if fitting == 1 else "fit"
        return f"waiting for {roles}{each}: {fitting} of {group.count} {fit} in one datacenter now"
    each = f"{roles_text(group.role, group.count)}, each with " if group.count > 1 else ""
    return f"waiting for {each}{_host_shortage(hosts, group)}"


def _host_shortage(hosts: Sequence[FreeHost], group: SlotGroup) -> str:
    """Return what no single host has free."""
    most = max((host.gpus_of(group.gpu_model) for host in hosts), default=0)
    if most < group.gpus:
        gpus = gpus_text(group.gpus, group.gpu_model)
        return f"{gpus} on one host: at most {most} {'is' if most == 1 else 'are'} free on one"
    where = "one host"
    if group.gpus:
        hosts = [host for host in hosts if host.gpus_of(group.gpu_model) >= group.gpus]
        where = f"one host with {gpus_text(group.gpus, group.gpu_model)} free"
    cpus = max(0, max((host.cpus_milli for host in hosts), default=0))
    if cpus < group.cpus_milli:
        return f"{_cpus_text(group.cpus_milli)} on {where}: at most {format_cpus(cpus)} are free"
    memory = max(0, max((host.memory_bytes for host in hosts), default=0))
    if memory < group.memory_bytes:
        asked = format_memory(group.memory_bytes)
        return f"{asked} of memory on {where}: at most {format_memory(memory)} are free"
    return f"{wish_text(group)} on one host: none has them free together"


def _absent(groups: Sequence[SlotGroup], hosts: Sequence[Host]) -> list[Host]:
    """Return the hosts without which a gang could not run even if nothing else did."""
    ready = [host for host in hosts if host.state is HostState.READY]
    if len(ready) == len(hosts) or _has_room(groups, ready):
        return []
    away = sorted(
        (host for host in hosts if host.state is not HostState.READY), key=lambda host: host.name
    )
    return [
        host
        for host, free in ((host, Free([host])) for host in away)
        if any(view.room(group) for view in free.hosts.values() for group in groups)
    ]


def _has_room(groups: Sequence[SlotGroup], hosts: Iterable[Host]) -> bool:
    free = Free(tuple(hosts))
    return any(roomy(groups, views) for views in free.datacenters.values())


def _hosts_text(hosts: Sequence[Host]) -> str:
    """Return which hosts are away: ``host gpu-1, which is down``."""
    named = [f"{host.name} ({host.state})" for host in hosts[:_NAMED_HOSTS]]
    if len(hosts) == 1:
        return f"host {hosts[0].name}, which is {hosts[0].state}"
    more = len(hosts) - len(named)
    return "hosts that take nothing now: " + ", ".join(named) + (f", {more} more" if more else "")
