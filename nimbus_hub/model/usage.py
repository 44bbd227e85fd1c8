"""What a lease held and how busy it was: what the accounting needs of a lease."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import Slot

__all__ = ["LeaseUse"]


@dataclass(frozen=True, slots=True)
class LeaseUse:
    """A lease that was granted: what it holds, since when, and until when if it is over.

    ``cpu_seconds`` and ``gpu_seconds`` are how busy it was in all that time.
    """

    lease_id: str
    owner: str
    kind: LeaseKind
    slots: tuple[Slot, ...]
    granted_at: datetime
    ended_at: datetime | None = None
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
