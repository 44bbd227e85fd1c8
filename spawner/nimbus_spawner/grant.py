"""What a session asks the service for, and what it makes of the grant: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from nimbus_hub.client.choices import Options
from nimbus_hub.client.requests import GangRequest, GroupRequest, JobRequest, WishesRequest
from nimbus_hub.client.resources import Lease
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.quantities import format_cpus, format_duration, parse_duration
from nimbus_spawner.options import GangOptions, SessionOptions

__all__ = ["SessionRequest", "gang_question", "gang_request", "lease_env", "session_request"]


_QUEUE = "default"


class SessionRequest(TypedDict):
    """What ``Client.request_lease`` takes."""

    kind: str
    owner: str
    name: str
    groups: list[GroupRequest]
    environment: str
    duration: str | None
    wait: str
    wishes: WishesRequest


def session_request(
    chosen: SessionOptions, options: Options, owner: str, name: str, patience: str
) -> SessionRequest:
    """Return the wish for a session's lease.

    Raises InvalidRequest if there is no such size, environment, framework, queue or datacenter,
    or for a wait that is no duration or longer than ``patience``.
    """
    known = [environment.name for environment in options.environments]
    _require("environment", chosen.environment, known)
    if chosen.gang is not None:
        _require("framework", chosen.gang.framework, options.frameworks)
    return SessionRequest(
        kind="session",
        owner=owner,
        name=name,
        groups=[_group(chosen, options)],
        environment=chosen.environment,
        duration=chosen.duration,
        wait=_wait(chosen, patience),
        wishes=_wishes(chosen, options),
    )


def gang_question(chosen: SessionOptions, wishes: WishesRequest) -> JobRequest | None:
    """Return a job on slots like those of the debug gang that a session wants, if it wants one.

    To have it planned tells whether its framework takes them, before the session is started;
    ``wishes`` are the session's.
    """
    if chosen.gang is None:
        return None
    return JobRequest(
        argv=("python",),
        framework=chosen.gang.framework,
        groups=_gang_groups(chosen.gang),
        environment=chosen.environment,
        wishes=wishes,
    )


def gang_request(chosen: SessionOptions, lease: Lease) -> GangRequest | None:
    """Return the wish for the debug gang of a session that holds its lease, if it wants one."""
    gang = chosen.gang
    if gang is None:
        return None
    return GangRequest(
        framework=gang.framework,
        groups=_gang_groups(gang),
        environment=lease.environment,
        session=lease.id,
    )


def _gang_groups(gang: GangOptions) -> tuple[GroupRequest, ...]:
    workers = GroupRequest("worker", gang.workers, gpus=gang.gpus)
    return (workers, GroupRequest("ps", gang.ps)) if gang.ps else (workers,)


def lease_env(lease: Lease, api_url: str) -> dict[str, str]:
    """Return what a session's processes are told of their lease.

    The list of devices is empty if none were granted: unset would mean all of them.
    """
    slot = lease.slots[0]
    devices = ",".join(map(str, slot.gpus))
    return {
        "NIMBUS_API_URL": api_url.rstrip("/"),
        "NIMBUS_LEASE_ID": lease.id,
        "NIMBUS_ENVIRONMENT": lease.environment,
        # The order in which the devices were counted; CUDA's own default is by speed.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": devices,
        "NVIDIA_VISIBLE_DEVICES": devices or "void",
        "CPU_LIMIT": format_cpus(slot.cpus_milli),
        "MEM_LIMIT": str(slot.memory_bytes),
    }


def _wait(chosen: SessionOptions, patience: str) -> str:
    """Return how long the start may wait: as chosen, else and at most the spawner's patience."""
    if chosen.wait is None:
        return patience
    longest = parse_duration(patience)
    try:
        is_right = parse_duration(chosen.wait) <= longest
    except InvalidRequest:
        is_right = False
    if not is_right:
        raise InvalidRequest(
            "wait must be a duration like 90s or 10m and at most "
            f"{format_duration(longest)}, got {chosen.wait!r}"
        )
    return chosen.wait


def _wishes(chosen: SessionOptions, options: Options) -> WishesRequest:
    """Return where the session is to wait and to be."""
    queues = [queue.name for queue in options.queues]
    if chosen.queue is not None:
        _require("queue", chosen.queue, queues)
    # Where the operator named all queues otherwise, or this one is not for all, the first is.
    usual = queues[0] if queues and _QUEUE not in queues else _QUEUE
    if chosen.datacenter is not None:
        _require("datacenter", chosen.datacenter, options.datacenters)
    return WishesRequest(datacenter=chosen.datacenter, queue=chosen.queue or usual)


def _require(noun: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise InvalidRequest(
            f"there is no {noun} {name!r}; there are: {', '.join(known) or 'none'}"
        )


def _group(chosen: SessionOptions, options: Options) -> GroupRequest:
    """Return the one slot a session wants; without any choice that of the first size."""
    if chosen.cpus is not None and chosen.memory is not None and chosen.gpus is not None:
        return GroupRequest("session", 1, chosen.cpus, chosen.memory, chosen.gpus)
    names = [size.name for size in options.sizes]
    name = chosen.size or (names[0] if names else "")
    for size in options.sizes:
        if size.name == name:
            cpus = format_cpus(size.cpus_milli)
            return GroupRequest("session", 1, cpus, size.memory_bytes, size.gpus)
    raise InvalidRequest(f"there is no size {name!r}; there are: {', '.join(names) or 'none'}")
