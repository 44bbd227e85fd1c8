"""The cluster as its operator configures it: hosts, datacenters, who may hold how much.

All of it is read from one file, see :mod:`nimbus_hub.control.cluster`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.engine import Engine, Swarm
from nimbus_hub.model.host import Host
from nimbus_hub.model.policy import LeaseRule

__all__ = ["Cluster", "Datacenter", "Link", "Queue", "Quota", "Renewals", "Rules", "UserGroup"]


@dataclass(frozen=True, slots=True)
class Datacenter:
    """A site; data whose URL starts with one of ``locations`` is near."""

    name: str
    locations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """The way between two datacenters, the same both ways."""

    ends: frozenset[str]
    bytes_per_second: int

    def __post_init__(self) -> None:
        """Refuse a way that leads nowhere."""
        if len(self.ends) != 2:
            raise InvalidRequest("a link must be between two different datacenters")
        if self.bytes_per_second <= 0:
            raise InvalidRequest("a link's bandwidth must be more than 0")


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that may be held at once; None means no bound."""

    gpus_milli: int | None = None
    cpus_milli: int | None = None
    leases: int | None = None


@dataclass(frozen=True, slots=True)
class UserGroup:
    """People who share a quota and a weight: twice the weight is twice the fair share."""

    name: str
    users: frozenset[str] = frozenset()
    weight: float = 1.0
    quota: Quota = Quota()


@dataclass(frozen=True, slots=True)
class Queue:
    """Where requests wait; ``priority`` is added to theirs, which may be up to ``highest``.

    ``users`` are those who may use it, none means everybody. ``may_preempt``: its requests
    may have preemptible leases of lower priority stopped. ``is_preemptible``: all its leases
    are preemptible.
    """

    name: str = "default"
    priority: int = 0
    highest: int = 0
    users: frozenset[str] = frozenset()
    may_preempt: bool = False
    is_preemptible: bool = False


class Renewals(StrEnum):
    """Whether a renewal may break the promise made to a waiting request."""

    ALLOWED = "allowed"
    PATIENCE = "patience"
    """As long as the promised request's patience is not exceeded."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Rules:
    """How the scheduler decides.

    ``reserve_*`` is what each free GPU keeps from CPU-only slots, at most half of its equal
    share of the host. ``half_life`` is the time after which used GPU time counts half.
    ``aging``: who has waited longer comes first, in order of arrival, whatever priorities
    and shares say.
    """

    placement: str = "fragmentation"
    ordering: str = "fair"
    reserve_cpus_milli: int = 2000
    reserve_memory_bytes: int = 8 * 2**30
    half_life: timedelta = timedelta(days=7)
    aging: timedelta = timedelta(days=1)
    renewals: Renewals = Renewals.PATIENCE

    def __post_init__(self) -> None:
        """Refuse amounts that make no sense."""
        if self.reserve_cpus_milli < 0 or self.reserve_memory_bytes < 0:
            raise InvalidRequest("the reserve per free GPU must be at least 0")
        if self.half_life <= timedelta(0) or self.aging <= timedelta(0):
            raise InvalidRequest("half_life and aging must be more than 0")


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the operator's file says. ``hosts`` are those declared there, not all there are."""

    hosts: tuple[Host, ...] = ()
    engines: tuple[Engine, ...] = ()
    swarms: tuple[Swarm, ...] = ()
    datacenters: tuple[Datacenter, ...] = ()
    links: tuple[Link, ...] = ()
    bytes_per_second: int = 125_000_000
    """Between datacenters without a link of their own."""
    groups: tuple[UserGroup, ...] = ()
    queues: tuple[Queue, ...] = (Queue(),)
    quota: Quota = Quota()
    """Of each user who has none of his own in ``quotas``."""
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    rules: Rules = Rules()
    leases: tuple[LeaseRule, ...] = ()
    """Each changes what those before it say of the leases it matches."""

    def queue(self, name: str) -> Queue:
        """Return a queue; raise InvalidRequest naming those there are."""
        for queue in self.queues:
            if queue.name == name:
                return queue
        known = ", ".join(queue.name for queue in self.queues)
        raise InvalidRequest(f"there is no queue {name!r}; there is {known}")

    def group_of(self, user: str) -> UserGroup | None:
        """Return the group of a user, or None."""
        return next((group for group in self.groups if user in group.users), None)

    def user_quota(self, user: str) -> Quota:
        """Return a user's own quota."""
        return self.quotas.get(user, self.quota)

    def bandwidth(self, one: str, other: str) -> int:
        """Return bytes per second between two datacenters."""
        ends = frozenset((one, other))
        return next(
            (link.bytes_per_second for link in self.links if link.ends == ends),
            self.bytes_per_second,
        )
