"""What may be asked for, as the service answers: like the resources, frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Environment",
    "GpuCount",
    "GpuHolder",
    "GpuPool",
    "Options",
    "Queue",
    "Size",
]


@dataclass(frozen=True, slots=True)
class Size:
    """A ready-made choice of the spawn form."""

    name: str
    cpus_milli: int
    memory_bytes: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Environment:
    """Software that sessions and jobs can run in."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class GpuCount:
    """How many devices of a model there are, and are free."""

    model: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class GpuHolder:
    """Who holds thousandths of devices; no owner means others than who asks."""

    owner: str | None
    gpus_milli: int


@dataclass(frozen=True, slots=True)
class GpuPool:
    """The devices of one model in one datacenter.

    ``free`` are whole and ``shared_free_milli`` what is left of those that are shared;
    ``away`` are on hosts that take nothing now, whether held or not.
    """

    model: str
    datacenter: str
    total: int
    free: int
    shared: int
    shared_free_milli: int
    away: int
    holders: tuple[GpuHolder, ...]


@dataclass(frozen=True, slots=True)
class Queue:
    """Where requests may wait: ``priority`` is added to theirs, which may be up to ``highest``."""

    name: str
    priority: int
    highest: int
    is_preemptible: bool


@dataclass(frozen=True, slots=True)
class Options:
    """What may be asked for: environments, sizes, GPUs, largest host, where, lease bounds."""

    environments: tuple[Environment, ...]
    sizes: tuple[Size, ...]
    gpus: tuple[GpuCount, ...]
    frameworks: tuple[str, ...]
    queues: tuple[Queue, ...]
    datacenters: tuple[str, ...]
    largest_cpus_milli: int
    largest_memory_bytes: int
    largest_gpus: int
    default_length_seconds: float
    longest_length_seconds: float
    renewal_seconds: float
    latest_end_seconds: float
