"""What the scheduler answers: who starts where, who is stopped for it, who waits and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from nimbus_hub.model.slot import Slot

__all__ = ["Grant", "Plan", "Preemption", "Preview", "ReasonCode", "Site", "Wait"]


class ReasonCode(StrEnum):
    """Why a request waits, in one stable word."""

    RESOURCES = "resources"
    """What it asks for is not free."""
    RESERVATION = "reservation"
    """It would fit, but starting now would delay an earlier request."""
    QUOTA = "quota"
    """Its owner, or the owner's group, holds as much as allowed."""
    HOSTS_AWAY = "hosts_away"
    """What it needs is on hosts that are down or draining."""
    PREEMPTING = "preempting"
    """Others are being stopped for it."""
    ENDING = "ending"
    """What it needs is being given back now."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease gets these slots now; ``reason`` says where they are and why there."""

    lease_id: str
    slots: tuple[Slot, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """A lease waits; positions count from 1.

    ``starts_by`` is the latest start, given only where it is a promise.
    """

    lease_id: str
    position: int
    reason: str
    starts_by: datetime | None = None
    code: ReasonCode = ReasonCode.RESOURCES


@dataclass(frozen=True, slots=True)
class Preemption:
    """A lease is to be stopped so that another gets its slots."""

    lease_id: str
    for_lease_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions of one pass; every waiting lease is in ``grants`` or ``waits``, in order."""

    grants: tuple[Grant, ...]
    waits: tuple[Wait, ...]
    preemptions: tuple[Preemption, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """What speaks for and against a datacenter.

    ``bytes_to_move`` are those of inputs and outputs that live elsewhere, ``unsized`` how
    many more of them there are of which nobody knows the size. ``wait_seconds``
    is the estimate until the gang would fit there, None if it never would or nobody knows;
    ``reason`` then says why.
    """

    datacenter: str
    bytes_to_move: int
    transfer_seconds: float
    wait_seconds: float | None
    is_chosen: bool = False
    unsized: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """What would become of a request that arrived now: the answer, and the datacenters weighed."""

    answer: Grant | Wait
    sites: tuple[Site, ...] = ()
    preemptions: tuple[Preemption, ...] = ()
