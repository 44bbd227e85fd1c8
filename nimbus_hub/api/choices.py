"""The API's JSON about what may be asked for; like :mod:`nimbus_hub.api.schemas`."""

from __future__ import annotations

from nimbus_hub.api.schemas import Response

__all__ = [
    "Environment",
    "GpuCount",
    "GpuHolder",
    "GpuPool",
    "GpuPoolList",
    "Options",
    "Queue",
    "Size",
]


class Size(Response):
    """A ready-made choice of the spawn form."""

    name: str
    cpus_milli: int
    memory_bytes: int
    gpus: int


class Environment(Response):
    """Software that sessions and jobs can run in."""

    name: str
    description: str


class GpuCount(Response):
    """How many devices of a model there are, and are free."""

    model: str
    total: int
    free: int


class GpuHolder(Response):
    """Who holds thousandths of devices; no owner means others than who asks."""

    owner: str | None
    gpus_milli: int


class GpuPool(Response):
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
    holders: list[GpuHolder]


class GpuPoolList(Response):
    """GPUs by model and datacenter."""

    items: list[GpuPool]


class Queue(Response):
    """Where requests may wait: ``priority`` is added to theirs, which may be up to ``highest``."""

    name: str
    priority: int
    highest: int
    is_preemptible: bool


class Options(Response):
    """What may be asked for: environments, sizes, GPUs, largest host, where, lease bounds."""

    environments: list[Environment]
    sizes: list[Size]
    gpus: list[GpuCount]
    frameworks: list[str]
    queues: list[Queue]
    datacenters: list[str]
    largest_cpus_milli: int
    largest_memory_bytes: int
    largest_gpus: int
    default_length_seconds: float
    longest_length_seconds: float
    renewal_seconds: float
    latest_end_seconds: float
