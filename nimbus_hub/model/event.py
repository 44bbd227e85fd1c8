"""Events: what happened to leases and jobs, in order; the record of every public change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["Event", "EventKind"]


class EventKind(StrEnum):
    """What an event is about."""

    LEASE = "lease"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class Event:
    """One change that people can see. ``id`` grows with every event and is never used twice.

    ``state`` is the public state from then on, ``reason`` the sentence that came with it.
    """

    id: int
    at: datetime
    owner: str
    kind: EventKind
    object_id: str
    state: str
    reason: str = ""
