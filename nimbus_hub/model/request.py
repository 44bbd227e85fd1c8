"""Requests as people write them, read into the model: one reading, and one refusal, for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.quantities import parse_cpus, parse_duration, parse_gpus, parse_memory
from nimbus_hub.model.slot import SlotGroup, Topology
from nimbus_hub.model.wishes import DataUse, Wishes

__all__ = ["read_group", "read_stall", "read_topology", "read_wishes"]

_OFF = "off"

Given = TypeVar("Given")
Read = TypeVar("Read")


def read_group(
    *,
    role: str,
    count: int,
    cpus: str | float,
    memory: str | int,
    gpus: str | float,
    topology: str | None,
) -> SlotGroup:
    """Return a wish for equal slots; raise InvalidRequest for the first amount that is wrong."""
    amount = parse_gpus(gpus)
    return SlotGroup(
        role=role,
        count=count,
        cpus_milli=parse_cpus(cpus),
        memory_bytes=parse_memory(memory),
        gpus=amount.gpus,
        gpu_milli=amount.milli,
        gpu_models=amount.models,
        topology=None if topology is None else read_topology(topology),
    )


def read_topology(text: str) -> Topology:
    """Read ``pack``, ``spread:host`` and the like; raise InvalidRequest naming those there are."""
    try:
        return Topology(text)
    except ValueError:
        raise InvalidRequest(
            f"topology must be one of {', '.join(Topology)}, got {text!r}"
        ) from None


def read_stall(given: str | int) -> float:
    """Return the seconds that a job may be silent, 0 for ``off``; raise InvalidRequest."""
    if given == _OFF:
        return 0.0
    try:
        return parse_duration(given).total_seconds()
    except InvalidRequest:
        raise InvalidRequest(f"stall must be a time like 10m or {_OFF!r}, got {given!r}") from None


def read_wishes(
    *,
    datacenter: str | None,
    inputs: Iterable[str],
    outputs: Iterable[str],
    queue: str,
    priority: int,
    preemptible: bool,
    expected: str | float | None,
    step_bytes: str | int | None,
) -> Wishes:
    """Return what a request says beside its slots; raise InvalidRequest naming what is wrong."""
    return Wishes(
        datacenter=datacenter,
        inputs=tuple(map(DataUse.parse, inputs)),
        outputs=tuple(map(DataUse.parse, outputs)),
        queue=queue,
        priority=priority,
        is_preemptible=preemptible,
        expected=None if expected is None else _named("expected", parse_duration, expected),
        step_bytes=None if step_bytes is None else _named("step bytes", parse_memory, step_bytes),
    )


def _named(name: str, parse: Callable[[Given], Read], value: Given) -> Read:
    """Read an amount; a refusal says whose it is."""
    try:
        return parse(value)
    except InvalidRequest as error:
        raise InvalidRequest(f"{name}: {error.message}") from None
