"""Usage: what was held and used, as it is asked for and as it is answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["UsageQuery", "UsageReport", "UsageRow"]


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Whose usage, of when, and by what: user, group, kind or day.

    By default one's own of the last seven days. Administrators may name an ``owner``, ask for
    ``everybody``, and for groups.
    """

    since: datetime | None = None
    until: datetime | None = None
    by: str = "user"
    owner: str | None = None
    everybody: bool = False

    def params(self) -> dict[str, str | None]:
        """Return the query string to send."""
        return {
            "since": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "by": self.by,
            "owner": self.owner,
            "all": "true" if self.everybody else None,
        }


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What was held and used: GPUs, CPUs and GiB of memory, each times hours.

    ``key`` is the user, group (empty: in none), kind, or day in UTC. ``gpu_model_hours`` is
    what was held by model, ``unknown`` on hosts that are gone. ``busy_percent`` is how busy
    the GPUs were, None where none was held.
    """

    key: str
    leases: int
    gpu_hours_held: float
    gpu_hours_busy: float
    busy_percent: float | None
    gpu_model_hours: dict[str, float]
    cpu_hours_held: float
    cpu_hours_used: float
    gib_hours_held: float


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What was held from ``since`` to ``until``; ``owner`` is None for everybody's."""

    since: datetime
    until: datetime
    by: str
    owner: str | None
    items: tuple[UsageRow, ...]
    total: UsageRow
