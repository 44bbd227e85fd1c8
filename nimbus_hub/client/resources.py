"""What the service answers: frozen dataclasses with the fields of the API's responses.

Times are aware datetimes, lists are tuples. Fields this client does not know are ignored,
so an older client reads a newer service; one that is missing is an error that says so.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass
from datetime import datetime

from nimbus_hub.errors import Unavailable

__all__ = [
    "Environment",
    "Gpu",
    "GpuCount",
    "Group",
    "Health",
    "Host",
    "Job",
    "Lease",
    "LeaseWarning",
    "LogText",
    "Options",
    "Plan",
    "Replica",
    "Size",
    "Slot",
    "Snapshot",
    "decode",
    "decode_items",
    "encode",
]

Resource = typing.TypeVar("Resource")


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the service works."""

    status: str
    version: str


@dataclass(frozen=True, slots=True)
class Group:
    """A wish for equal slots."""

    role: str
    count: int
    cpus_milli: int
    memory_bytes: int
    gpus: int
    gpu_model: str | None


@dataclass(frozen=True, slots=True)
class Slot:
    """A share of one host, held by a lease."""

    name: str
    role: str
    host: str
    address: str
    cpus_milli: int
    memory_bytes: int
    gpus: tuple[int, ...]
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease. ``now`` is the service's time; ``warnings_seconds`` the times before the end."""

    id: str
    kind: str
    owner: str
    name: str
    state: str
    reason: str
    environment: str
    groups: tuple[Group, ...]
    slots: tuple[Slot, ...]
    length_seconds: float
    position: int | None
    starts_by: datetime | None
    created_at: datetime
    granted_at: datetime | None
    active_at: datetime | None
    expires_at: datetime | None
    latest_end: datetime | None
    ended_at: datetime | None
    renewals: int
    is_ended: bool
    can_renew: bool
    renewal_seconds: float
    warnings_seconds: tuple[float, ...]
    now: datetime
    version: int


@dataclass(frozen=True, slots=True)
class LeaseWarning:
    """A lease that ends in ``seconds``."""

    lease: Lease
    seconds: float


@dataclass(frozen=True, slots=True)
class Replica:
    """A process of a job; ``reason`` says more where the exit code does not."""

    id: str
    name: str
    role: str
    rank: int
    attempt: int
    host: str
    state: str
    exit_code: int | None
    reason: str
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job with the replicas of its current attempt. Directories are None before the start."""

    id: str
    name: str
    owner: str
    lease_id: str
    framework: str
    argv: tuple[str, ...]
    state: str
    reason: str
    position: int | None
    starts_by: datetime | None
    attempt: int
    attempts: int
    progress: float | None
    progress_message: str
    replicas: tuple[Replica, ...]
    output_dir: str | None
    log_dir: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    is_ended: bool
    version: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What would happen: where the slots would be, or why they would wait."""

    slots: tuple[Slot, ...]
    would_wait: bool
    reason: str
    starts_by: datetime | None


@dataclass(frozen=True, slots=True)
class LogText:
    """Output of a replica; bytes that are no UTF-8 are replaced. Offsets are in bytes."""

    replica: str
    attempt: int
    offset: int
    next_offset: int
    text: str
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device of a host and the lease that holds it."""

    index: int
    model: str
    memory_bytes: int
    lease_id: str | None


@dataclass(frozen=True, slots=True)
class Host:
    """A host and what of it is free."""

    name: str
    datacenter: str
    rack: str
    address: str
    state: str
    cpus_milli: int
    cpus_free_milli: int
    memory_bytes: int
    memory_free_bytes: int
    gpus: tuple[Gpu, ...]


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
class Options:
    """What may be asked for: environments, sizes, GPUs, largest host, lease bounds."""

    environments: tuple[Environment, ...]
    sizes: tuple[Size, ...]
    gpus: tuple[GpuCount, ...]
    frameworks: tuple[str, ...]
    largest_cpus_milli: int
    largest_memory_bytes: int
    largest_gpus: int
    default_length_seconds: float
    longest_length_seconds: float
    renewal_seconds: float
    latest_end_seconds: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A working directory; ``missing`` are the digests still to be uploaded."""

    digest: str
    missing: tuple[str, ...]


def decode(cls: type[Resource], data: object) -> Resource:
    """Read JSON as ``cls``; raise Unavailable where the service speaks another language."""
    try:
        return typing.cast(Resource, _value(cls, data))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise Unavailable(
            f"the service's answer is no {cls.__name__} ({error}); "
            "its version and this client's do not fit, upgrade the older one"
        ) from error


def decode_items(cls: type[Resource], data: typing.Any) -> tuple[Resource, ...]:
    """Read a list of ``cls``, which the service wraps in an object."""
    if not isinstance(data, dict) or not isinstance(data.get("items"), list):
        raise Unavailable(f"the service's answer is no list of {cls.__name__}")
    return tuple(decode(cls, item) for item in data["items"])


def encode(value: object) -> typing.Any:
    """Write a resource as JSON; the opposite of ``decode``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    return value.isoformat() if isinstance(value, datetime) else value


@functools.cache
def _fields(cls: type) -> dict[str, typing.Any]:
    return typing.get_type_hints(cls)


def _value(hint: typing.Any, data: typing.Any) -> object:
    """Read one value by its type hint; only the kinds of hints used above are known."""
    if isinstance(hint, types.UnionType):
        return None if data is None else _value(typing.get_args(hint)[0], data)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return tuple(_value(item, each) for each in data)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        made = {name: _value(each, data[name]) for name, each in _fields(hint).items()}
        return hint(**made)
    if hint is datetime:
        return datetime.fromisoformat(data)
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, hint) or (hint is int and isinstance(data, bool)):
        raise TypeError(f"{data!r} is no {hint.__name__}")
    return data
