"""Policy: how long leases last and how far they can be renewed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.quantities import format_duration

__all__ = ["LeasePolicy"]


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """Bounds of a lease's length.

    A lease lasts ``default`` unless asked otherwise, at most ``longest``; a renewal
    moves its end to ``renewal`` from now; no end is later than ``latest_end`` after the
    start, and there are at most ``renewals`` of them. ``warnings`` are the times before
    the end at which people are warned, longest first.
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

    def __post_init__(self) -> None:
        """Refuse bounds that contradict each other."""
        if not timedelta(0) < self.default <= self.longest <= self.latest_end:
            raise InvalidRequest(
                "a lease policy needs 0 < default <= longest <= latest_end, got "
                f"{format_duration(self.default)}, {format_duration(self.longest)}, "
                f"{format_duration(self.latest_end)}"
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
