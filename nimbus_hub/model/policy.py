"""Policy: how long leases last, how far they can be renewed, and when they are idle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.quantities import format_duration

__all__ = ["LeasePolicy", "LeaseRule", "Signal", "ruled"]


class Signal(StrEnum):
    """What shows that somebody, or something, is at work in a session."""

    KERNELS = "kernels"
    TERMINALS = "terminals"
    PROCESSES = "processes"
    CPU = "cpu"
    GPU = "gpu"
    JOBS = "jobs"
    CONNECTIONS = "connections"

    @property
    def noun(self) -> str:
        """Return the word for people: no kernel, no terminal, ... did anything."""
        return _NOUNS[self]


_NOUNS = {
    Signal.KERNELS: "kernel",
    Signal.TERMINALS: "terminal",
    Signal.PROCESSES: "other process",
    Signal.CPU: "CPU",
    Signal.GPU: "GPU",
    Signal.JOBS: "job",
    Signal.CONNECTIONS: "input",
}


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """Bounds of a lease's length, and what makes it idle.

    A lease lasts ``default`` unless asked otherwise, at most ``longest``; a renewal
    moves its end to ``renewal`` from now; no end is later than ``latest_end`` after the
    start, and there are at most ``renewals`` of them. ``warnings`` are the times before
    the end at which people are warned, longest first.

    A lease that showed none of the signals in ``activity`` for ``idle`` (None: never) ends,
    and people are warned ``idle_warning`` before; without ``idle_ends`` they are only told.
    CPU is busy from ``cpu_busy`` of a core on, a GPU from ``gpu_busy`` of one on.
    """

    default: timedelta = timedelta(hours=2)
    longest: timedelta = timedelta(hours=12)
    renewal: timedelta = timedelta(hours=2)
    renewals: int = 100
    latest_end: timedelta = timedelta(hours=12)
    warnings: tuple[timedelta, ...] = (
        timedelta(minutes=15),
        timedelta(minutes=5),
        timedelta(minutes=1),
    )
    idle: timedelta | None = None
    idle_warning: timedelta = timedelta(minutes=10)
    idle_ends: bool = True
    activity: frozenset[Signal] = frozenset(Signal)
    cpu_busy: float = 0.05
    gpu_busy: float = 0.05

    def __post_init__(self) -> None:
        """Refuse bounds that contradict each other."""
        if not timedelta(0) < self.default <= self.longest <= self.latest_end:
            raise InvalidRequest(
                "a lease policy needs 0 < default <= longest <= latest_end, got "
                f"{format_duration(self.default)}, {format_duration(self.longest)}, "
                f"{format_duration(self.latest_end)}"
            )
        if self.idle is not None and self.idle_ends and self.idle_warning >= self.idle:
            raise InvalidRequest(
                f"idle_warning must be less than idle ({format_duration(self.idle)}), "
                f"got {format_duration(self.idle_warning)}"
            )

    def length(self, asked: timedelta | None) -> timedelta:
        """Return the length of a new lease; raise InvalidRequest if it is over the bound."""
        if asked is None:
            return self.default
        if asked > self.longest:
            raise InvalidRequest(
                f"duration must be at most {format_duration(self.longest)}, "
                f"got {format_duration(asked)}"
            )
        return asked

    def renewed_end(
        self, now: datetime, end: datetime, latest_end: datetime, asked: timedelta | None
    ) -> datetime:
        """Return the end after a renewal: ``asked`` from now, never earlier nor past bounds."""
        step = self.renewal if asked is None else self.length(asked)
        return max(end, min(now + step, latest_end))

    def renewable_until(
        self, end: datetime, latest_end: datetime, renewals: int
    ) -> datetime | None:
        """Return the latest end that the renewals still left can lead to; None if none can."""
        left = self.renewals - renewals
        if left <= 0 or end >= latest_end:
            return None
        room = latest_end - end
        step = max(self.renewal, self.longest)
        # As many as fit: thousands of steps are more than a datetime can tell.
        return min(latest_end, end + min(left, -(-room // step)) * step)


@dataclass(frozen=True, slots=True)
class LeaseRule:
    """What an operator sets for leases of a kind, of a group of users, of a size.

    What is None matches all of them; ``gpus`` is the least number of GPUs, shares counted.
    ``sets`` are fields of :class:`LeasePolicy`; the others stay as they were, but for bounds
    that would contradict them.
    """

    kind: LeaseKind | None = None
    group: str | None = None
    size: str | None = None
    gpus: float | None = None
    sets: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is unknown or contradicts itself."""
        known = {each.name for each in fields(LeasePolicy)}
        unknown = sorted(set(self.sets) - known)
        if unknown:
            raise InvalidRequest(f"{unknown[0]} is nothing a lease policy has")
        if self.kind is LeaseKind.JOB and "idle" in self.sets:
            raise InvalidRequest("a job is never idle: it ends by itself")
        self.applied_to(LeasePolicy())

    def matches(self, kind: LeaseKind, group: str | None, size: str, gpus: float) -> bool:
        """Tell whether the rule is for such a lease; ``gpus`` is how many it holds."""
        return (
            self.kind in (None, kind)
            and self.group in (None, group)
            and self.size in (None, size)
            and (self.gpus is None or gpus >= self.gpus)
        )

    def applied_to(self, policy: LeasePolicy) -> LeasePolicy:
        """Return a policy as this rule changes it; raise InvalidRequest for a contradiction.

        A bound that is set moves those that are not: who sets the longest length to an hour
        need not say that the default is not two.
        """
        values: dict[str, Any] = {each.name: getattr(policy, each.name) for each in fields(policy)}
        values.update(self.sets)
        bounds = ("default", "longest", "latest_end")
        for place, name in enumerate(bounds):
            if name not in self.sets:
                lower = [values[each] for each in bounds[:place] if each in self.sets]
                upper = [values[each] for each in bounds[place + 1 :] if each in self.sets]
                values[name] = min([max([values[name], *lower]), *upper])
        if values["idle"] is not None and not {"idle", "idle_warning"} <= set(self.sets):
            values["idle_warning"] = min(values["idle_warning"], values["idle"] / 2)
        return LeasePolicy(**values)


def ruled(
    policy: LeasePolicy,
    rules: Iterable[LeaseRule],
    kind: LeaseKind,
    group: str | None,
    size: str,
    gpus: float,
) -> LeasePolicy:
    """Return a kind's policy as the rules that match change it, each over those before it."""
    for rule in rules:
        if rule.matches(kind, group, size, gpus):
            policy = rule.applied_to(policy)
    if kind is LeaseKind.JOB:
        return replace(policy, idle=None)
    return policy
