"""What the scheduler is told: the hosts, what is held on them, and what waits.

A snapshot is a value. Holdings may name hosts that are not in it: they hold nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from nimbus_hub.model.host import Host
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = ["Holding", "Snapshot", "Waiting"]


@dataclass(frozen=True, slots=True)
class Holding:
    """Slots that a lease holds until ``ends_at`` (None: nobody knows)."""

    lease_id: str
    owner: str
    slots: tuple[Slot, ...]
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A lease that waits since ``since`` for all slots of its groups at once."""

    lease_id: str
    owner: str
    groups: tuple[SlotGroup, ...]
    length: timedelta
    since: datetime
    priority: int = 0
    kind: LeaseKind = LeaseKind.JOB


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster at one instant."""

    hosts: tuple[Host, ...]
    holdings: tuple[Holding, ...] = ()
    waiting: tuple[Waiting, ...] = ()
