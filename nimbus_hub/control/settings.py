"""What an operator may set of the control layer, as one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.policy import LeasePolicy
from nimbus_hub.model.quantities import parse_cpus, parse_duration, parse_gpus, parse_memory
from nimbus_hub.model.slot import SlotGroup

__all__ = [
    "NEVER",
    "SIZES",
    "Settings",
    "Size",
    "debug_policy",
    "read_sizes",
    "read_timeout",
    "read_warnings",
]

SIZES: tuple[Mapping[str, object], ...] = (
    {"name": "small", "cpus": 0.5, "memory": "2G", "gpus": 0},
    {"name": "medium", "cpus": 1, "memory": "4G", "gpus": 0},
    {"name": "large", "cpus": 4, "memory": "16G", "gpus": 0},
    {"name": "1 GPU", "cpus": 1, "memory": "8G", "gpus": 1},
)
"""The sizes of a hub that names none, as people write them."""

NEVER = "never"
"""An operator's word for no time-out."""

_KEYS = ("name", "cpus", "memory", "gpus")
_RESERVED = "custom"
"""The spawn form's word for own numbers instead of a size."""


@dataclass(frozen=True, slots=True)
class Size:
    """A ready-made choice of the spawn form."""

    name: str
    slot: SlotGroup


def read_sizes(given: Sequence[object]) -> tuple[Size, ...]:
    """Read sizes as people write them; raise InvalidRequest naming the first that is wrong."""
    sizes = tuple(map(_size, given))
    if not sizes:
        raise InvalidRequest(f"there must be at least one size, got {given!r}")
    names = [size.name for size in sizes]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"there must be one size of a name, got {name!r} twice or more")
    return sizes


def read_warnings(given: Sequence[object]) -> tuple[timedelta, ...]:
    """Read times before a lease's end, longest first; raise InvalidRequest for a wrong one."""
    return tuple(sorted({parse_duration(str(each)) for each in given}, reverse=True))


def _size(given: object) -> Size:
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"a size must have {', '.join(_KEYS)}, got {given!r}")
    if {*given, "gpus"} != set(_KEYS):
        raise InvalidRequest(f"a size must have {', '.join(_KEYS)} and no more, got {given!r}")
    name = given["name"]
    if not isinstance(name, str) or name.strip() in ("", _RESERVED):
        raise InvalidRequest(f"a size's name must be a text other than {_RESERVED!r}, got {name!r}")
    try:
        return Size(name.strip(), _slot(given))
    except InvalidRequest as error:
        raise InvalidRequest(f"size {name!r}: {error.message}") from None


def _slot(given: Mapping[str, object]) -> SlotGroup:
    written = str(given.get("gpus", 0))
    amount = parse_gpus(written)
    # The spawn form knows sizes by their number of whole GPUs alone.
    if amount.models or amount.milli != 1000:
        raise InvalidRequest(f"gpus must be a whole number, got {written!r}")
    cpus, memory = parse_cpus(str(given["cpus"])), parse_memory(str(given["memory"]))
    return SlotGroup("notebook", 1, cpus, memory, amount.gpus)


def _policies() -> dict[LeaseKind, LeasePolicy]:
    hour, day, week = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
    return {
        LeaseKind.SESSION: LeasePolicy(),
        LeaseKind.JOB: LeasePolicy(default=day, longest=week, renewal=day, latest_end=week),
        LeaseKind.DEBUG: debug_policy(hour, 8 * hour),
    }


def debug_policy(length: timedelta, longest: timedelta, renewals: int = 100) -> LeasePolicy:
    """Return what holds for debug gangs: they are told of when idle, and not ended for it."""
    return LeasePolicy(
        default=length,
        longest=longest,
        renewal=length,
        renewals=renewals,
        latest_end=longest,
        warnings=(timedelta(minutes=10), timedelta(minutes=2)),
        idle=timedelta(minutes=20),
        idle_ends=False,
    )


def read_timeout(given: object) -> timedelta | None:
    """Read a time-out, None for ``never``; raise InvalidRequest for a wrong one."""
    return None if str(given) == NEVER else parse_duration(str(given))


@dataclass(frozen=True, slots=True)
class Settings:
    """Bounds and addresses. Times are how long the service waits before it acts itself.

    ``save`` is how long a session that ends may save its documents; ``stop_grace`` how long
    a replica has between being asked to end and being killed; ``start`` how long a granted
    session, or all replicas of a gang, may take to run; ``host_patience`` how long a host
    may be down before what holds its slots is given up; ``measure`` how often use is measured;
    ``stall`` after what time without a sign of life a job of several replicas that says nothing
    of it is ended as stalled, None for never; ``keep_jobs`` how long files and output of jobs are
    kept after their end, None for ever.
    """

    api_url: str
    job_token_secret: bytes
    environments: Mapping[str, str] = field(default_factory=lambda: {"default": ""})
    policies: Mapping[LeaseKind, LeasePolicy] = field(default_factory=_policies)
    sizes: tuple[Size, ...] = field(default_factory=lambda: read_sizes(SIZES))
    save: timedelta = timedelta(seconds=10)
    stop_grace: timedelta = timedelta(seconds=10)
    start: timedelta = timedelta(minutes=5)
    sweep: timedelta = timedelta(seconds=20)
    host_patience: timedelta = timedelta(minutes=2)
    measure: timedelta = timedelta(seconds=10)
    stall: timedelta | None = timedelta(hours=1)
    keep_jobs: timedelta | None = None

    def size_of(self, groups: Sequence[SlotGroup]) -> str:
        """Return the name of the size that holds just this, empty for own numbers."""
        if len(groups) != 1 or groups[0].count != 1 or groups[0].gpu_milli != 1000:
            return ""
        wanted = (groups[0].cpus_milli, groups[0].memory_bytes, groups[0].gpus)
        for size in self.sizes:
            if (size.slot.cpus_milli, size.slot.memory_bytes, size.slot.gpus) == wanted:
                return size.name
        return ""
