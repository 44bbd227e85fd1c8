"""Leases: the right of an owner to hold slots until a time.

Whatever holds resources holds a lease. ``state`` is what is so, ``target`` is the end that
was asked for; what people see is derived from both by :attr:`Lease.public_state`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from nimbus_hub.errors import Conflict, Ended
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.model.wishes import Wishes

__all__ = ["LEASE_MOVES", "SERVER_DIED", "Lease", "LeaseKind", "LeaseState"]

SERVER_DIED = "the session's server ended with exit code"
"""How the reason begins of a session that ended by itself, and not because its user stopped it."""


class LeaseKind(StrEnum):
    """What a lease is held by."""

    SESSION = "session"
    JOB = "job"
    DEBUG = "debug"


class LeaseState(StrEnum):
    """Where a lease is on its way; the last five are ends."""

    QUEUED = "queued"
    GRANTED = "granted"
    ACTIVE = "active"
    EXPIRING = "expiring"
    RELEASED = "released"
    EXPIRED = "expired"
    PREEMPTED = "preempted"
    LOST = "lost"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """Tell whether a lease in this state holds nothing and never will again."""
        return not LEASE_MOVES[self]

    @property
    def is_holding(self) -> bool:
        """Tell whether a lease in this state holds slots."""
        return self in _HOLDING


_ENDS = frozenset(
    {
        LeaseState.RELEASED,
        LeaseState.EXPIRED,
        LeaseState.PREEMPTED,
        LeaseState.LOST,
        LeaseState.CANCELLED,
    }
)
_HOLDING = frozenset({LeaseState.GRANTED, LeaseState.ACTIVE, LeaseState.EXPIRING})

LEASE_MOVES: dict[LeaseState, frozenset[LeaseState]] = {
    LeaseState.QUEUED: frozenset({LeaseState.GRANTED, LeaseState.CANCELLED, LeaseState.EXPIRED}),
    LeaseState.GRANTED: frozenset({LeaseState.ACTIVE, LeaseState.EXPIRING}) | _ENDS,
    LeaseState.ACTIVE: frozenset({LeaseState.EXPIRING}) | _ENDS,
    LeaseState.EXPIRING: _ENDS,
    LeaseState.RELEASED: frozenset(),
    LeaseState.EXPIRED: frozenset(),
    LeaseState.PREEMPTED: frozenset(),
    LeaseState.LOST: frozenset(),
    LeaseState.CANCELLED: frozenset(),
}
"""The states each state may be followed by."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One lease. ``expires_at`` and ``latest_end`` are set when it is granted.

    ``wait_until`` is the end of the owner's patience while it is queued (None: for ever).
    ``reason_code`` is the scheduler's word for why it waits, ``placement`` its sentence on
    where the slots are and why. ``note`` is what others did to it while it waited, like a
    promise that a renewal moved.
    ``queued_at`` is when it began to wait, if that was later than when it was asked for: a job
    that waits again keeps its place.
    ``saved_at`` is when the session told that its documents are saved, while it is ending.
    ``parent`` is the session's lease that a debug gang belongs to. ``size`` is the name of the
    size chosen for a session. ``cpu_seconds`` and ``gpu_seconds`` are how busy what it holds
    was; ``opened`` is what was open in the session when it ended, as paths below its home.
    ``version`` grows with every write; it guards writes and lets readers wait for change.
    """

    id: str
    kind: LeaseKind
    owner: str
    name: str
    groups: tuple[SlotGroup, ...]
    length: timedelta
    created_at: datetime
    environment: str = "default"
    parent: str | None = None
    size: str = ""
    wishes: Wishes = field(default_factory=Wishes)
    state: LeaseState = LeaseState.QUEUED
    target: LeaseState | None = None
    reason: str = ""
    reason_code: str = ""
    note: str = ""
    placement: str = ""
    queued_at: datetime | None = None
    slots: tuple[Slot, ...] = ()
    position: int | None = None
    starts_by: datetime | None = None
    wait_until: datetime | None = None
    granted_at: datetime | None = None
    active_at: datetime | None = None
    expires_at: datetime | None = None
    latest_end: datetime | None = None
    renewals: int = 0
    ending_at: datetime | None = None
    saved_at: datetime | None = None
    ended_at: datetime | None = None
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    opened: tuple[str, ...] = ()
    version: int = 1

    @property
    def public_state(self) -> LeaseState:
        """Return the state people see: expiring while an end was asked for."""
        if self.target is not None and self.state.is_holding:
            return LeaseState.EXPIRING
        return self.state

    @property
    def waits_since(self) -> datetime:
        """Return when this lease began to wait."""
        return self.queued_at or self.created_at

    def moved(self, state: LeaseState, **changes: object) -> Self:
        """Return this lease in another state; raise Conflict if the table has no such move."""
        if state not in LEASE_MOVES[self.state]:
            raise Conflict(f"lease {self.id} is {self.state} and cannot become {state}")
        return replace(self, state=state, **changes)  # type: ignore[arg-type]

    def granted(
        self, slots: tuple[Slot, ...], now: datetime, latest_end: timedelta, placement: str = ""
    ) -> Self:
        """Return this lease holding ``slots`` from now on; ``placement`` says why there."""
        return self.moved(
            LeaseState.GRANTED,
            slots=slots,
            reason="",
            reason_code="",
            note="",
            placement=placement,
            position=None,
            starts_by=None,
            granted_at=now,
            expires_at=now + self.length,
            latest_end=now + latest_end,
        )

    def activated(self, now: datetime) -> Self:
        """Return this lease in use; its time counts from here, not from the grant.

        An end that was moved further away since then, for an outage, stays, and so does one
        that was asked for already.
        """
        if self.granted_at is None or self.expires_at is None or self.latest_end is None:
            raise Conflict(f"lease {self.id} is {self.state} and cannot be activated")
        if self.target is not None:
            return self.moved(LeaseState.ACTIVE, active_at=now)
        return self.moved(
            LeaseState.ACTIVE,
            active_at=now,
            expires_at=max(self.expires_at, now + self.length),
            latest_end=self.latest_end + (now - self.granted_at),
        )

    def ending(self, target: LeaseState, reason: str, now: datetime) -> Self:
        """Return this lease with its end asked for; the first reason given stays.

        A lease that holds nothing yet ends at once.
        """
        if self.state.is_end:
            raise Ended(f"lease {self.id} ended already: {self.reason or self.state}")
        if not self.state.is_holding:
            return self.ended(LeaseState.CANCELLED, reason, now)
        if self.target is not None:
            return self
        return replace(self, target=target, reason=reason, ending_at=now)

    def ended(self, state: LeaseState, reason: str, now: datetime) -> Self:
        """Return this lease over; what was asked for first wins over what is said now."""
        return self.moved(
            self.target or state,
            target=None,
            reason=self.reason if self.target else reason,
            reason_code="",
            position=None,
            starts_by=None,
            ended_at=now,
        )
