"""What an operator may set of the control layer, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.policy import LeasePolicy
from nimbus_hub.model.slot import SlotGroup

__all__ = ["Settings", "Size"]

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Size:
    """A ready-made choice of the spawn form."""

    name: str
    slot: SlotGroup


def _sizes() -> tuple[Size, ...]:
    return tuple(
        Size(name, SlotGroup("notebook", 1, cpus_milli, memory_bytes, gpus))
        for name, cpus_milli, memory_bytes, gpus in (
            ("small", 500, 2 * _GIB, 0),
            ("medium", 1000, 4 * _GIB, 0),
            ("large", 4000, 16 * _GIB, 0),
            ("1 GPU", 1000, 8 * _GIB, 1),
        )
    )


def _policies() -> dict[LeaseKind, LeasePolicy]:
    day, week = timedelta(days=1), timedelta(days=7)
    return {
        LeaseKind.SESSION: LeasePolicy(),
        LeaseKind.JOB: LeasePolicy(default=day, longest=week, renewal=day, latest_end=week),
    }


@dataclass(frozen=True, slots=True)
class Settings:
    """Bounds and addresses. Times are how long the service waits before it acts itself.

    ``save`` is how long a session that ends may save its documents; ``stop_grace`` how long
    a replica has between being asked to end and being killed; ``start`` how long a granted
    session, or all replicas of a gang, may take to run.
    """

    api_url: str
    job_token_secret: bytes
    environments: Mapping[str, str] = field(default_factory=lambda: {"default": ""})
    policies: Mapping[LeaseKind, LeasePolicy] = field(default_factory=_policies)
    sizes: tuple[Size, ...] = field(default_factory=_sizes)
    save: timedelta = timedelta(seconds=10)
    stop_grace: timedelta = timedelta(seconds=10)
    start: timedelta = timedelta(minutes=5)
    sweep: timedelta = timedelta(seconds=20)
