"""What the scheduler is told: the hosts, what is held on them, and what waits.

A snapshot is a value. Holdings may name hosts that are not in it: they hold nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.host import Host
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.shape import Shape

__all__ = ["Holding", "Snapshot", "Waiting"]


@dataclass(frozen=True, slots=True)
class Holding:
    """Slots that a lease holds until ``ends_at`` (None: nobody knows).

    ``expected_end`` is when they likely come back, for estimates only. ``is_ending``: they
    are being given back already. ``priority`` is the queue's and the request's together.
    ``is_of_age``: when it started, ``rules.aging`` had passed since it was asked for; nobody
    may have it stopped.
    """

    lease_id: str
    owner: str
    slots: tuple[Slot, ...]
    ends_at: datetime | None
    kind: LeaseKind = LeaseKind.JOB
    since: datetime | None = None
    priority: int = 0
    is_preemptible: bool = False
    is_ending: bool = False
    expected_end: datetime | None = None
    is_of_age: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """A lease that waits since ``since`` for all slots of its groups at once.

    ``wait_until`` is the end of its owner's patience, None for ever. ``promised`` is the
    latest start that its owner was told. ``waits_since`` is when it began to wait, if not at
    ``since``, which is its place in the queue. ``near`` is the host of the session that it
    belongs to.
    """

    lease_id: str
    owner: str
    groups: tuple[SlotGroup, ...]
    length: timedelta
    since: datetime
    kind: LeaseKind = LeaseKind.JOB
    wishes: Wishes = field(default_factory=Wishes)
    wait_until: datetime | None = None
    promised: datetime | None = None
    waits_since: datetime | None = None
    near: str | None = None

    @property
    def queued_at(self) -> datetime:
        """Return when it began to wait."""
        return self.waits_since or self.since


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster at one instant.

    ``hosts`` are all there are, ``cluster`` what the operator configured beside them.
    ``usage`` is the decayed GPU time of each owner, in GPU-seconds (usage.py). ``mix`` is
    how often each shape was asked for of late, in any unit; empty where nobody counted.
    """

    hosts: tuple[Host, ...]
    holdings: tuple[Holding, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    cluster: Cluster = field(default_factory=Cluster)
    usage: Mapping[str, float] = field(default_factory=dict)
    mix: Mapping[Shape, float] = field(default_factory=dict)
