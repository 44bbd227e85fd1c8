"""Promises: what a renewal does to those who were told when they start at the latest.

A renewal keeps slots that others wait for. Whether that may move a start that was promised
is the operator's rule; whenever it does, both sides are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from nimbus_hub.control.records import Records
from nimbus_hub.control.scheduling import Scheduling
from nimbus_hub.errors import Conflict
from nimbus_hub.model.cluster import Renewals
from nimbus_hub.model.lease import Lease, LeaseState

__all__ = ["Broken", "Promises"]


@dataclass(frozen=True, slots=True)
class Broken:
    """A promised start that a renewal moves; ``then`` is None where none could be promised."""

    lease: Lease
    promised: datetime
    then: datetime | None

    @property
    def is_within_patience(self) -> bool:
        """Tell whether who was promised a start is still there when it comes."""
        until = self.lease.wait_until
        return until is None or (self.then is not None and self.then <= until)


class Promises:
    """Weighs renewals against promises."""

    def __init__(self, records: Records, scheduling: Scheduling) -> None:
        self._records = records
        self._scheduling = scheduling

    async def weigh(self, renewed: Lease, now: datetime) -> tuple[Lease, ...]:
        """Return all that is to be written for a renewal, the renewed lease first.

        Raises Conflict if it would break a promise and the rules do not allow that.
        """
        if not any(each.starts_by for each in await self._records.queued()):
            return (replace(renewed, note=""),)
        broken = self._broken(renewed, (await self._records.live()).leases, now)
        if not broken:
            return (replace(renewed, note=""),)
        worst = max(broken, key=_delay)
        if not _is_allowed(self._scheduling.cluster.rules.renewals, broken):
            raise Conflict(
                f"lease {renewed.id} cannot be renewed until {_time(renewed.expires_at, now)}: "
                f"another request, which waits for what it holds, was promised a start by "
                f"{_time(worst.promised, now)}; save your work, and start again after it"
            )
        renewed = replace(renewed, note=_note_of_renewed(broken, worst, now))
        return (renewed, *(_told(each, now) for each in broken))

    def _broken(self, renewed: Lease, live: Sequence[Lease], now: datetime) -> list[Broken]:
        queued = {each.id: each for each in live if each.state is LeaseState.QUEUED}
        before = self._starts(live, now)
        after = self._starts([renewed if each.id == renewed.id else each for each in live], now)
        return [
            Broken(queued[lease_id], promised, after[lease_id])
            for lease_id, promised in before.items()
            if promised is not None and lease_id in after
            if _is_later(after[lease_id], promised)
        ]

    def _starts(self, leases: Iterable[Lease], now: datetime) -> Mapping[str, datetime | None]:
        """Return the promised start of each lease that waits."""
        decided = self._scheduling.plan(self._scheduling.snapshot(leases, now), now)
        return {wait.lease_id: wait.starts_by for wait in decided.waits}


_ALLOWS: Mapping[Renewals, Callable[[Broken], bool]] = {
    Renewals.ALLOWED: lambda broken: True,
    Renewals.PATIENCE: lambda broken: broken.is_within_patience,
    Renewals.REFUSED: lambda broken: False,
}


def _is_allowed(rule: Renewals, broken: Iterable[Broken]) -> bool:
    return all(map(_ALLOWS[rule], broken))


def _is_later(then: datetime | None, promised: datetime) -> bool:
    return then is None or then > promised


def _delay(broken: Broken) -> float:
    return (broken.then - broken.promised).total_seconds() if broken.then else float("inf")


def _note_of_renewed(broken: Sequence[Broken], worst: Broken, now: datetime) -> str:
    """Return what is told to who renewed; others stay unnamed."""
    promised = f"was promised a start by {_time(worst.promised, now)}"
    if len(broken) > 1:
        return f"renewed although {len(broken)} other requests now start later; one {promised}"
    may = f"may now start at the latest {_time(worst.then, now)}" if worst.then else "now waits on"
    return f"renewed although another request, which {promised}, {may}"


def _told(broken: Broken, now: datetime) -> Lease:
    """Return a promised lease with its new start and why it moved."""
    was = _time(broken.promised, now)
    if broken.then is None:
        moved = f"its start, promised by {was}, is not known any more"
    else:
        moved = f"its start moved from {was.removesuffix(' UTC')} to {_time(broken.then, now)}"
    note = f"{moved}: a lease it waits for was renewed"
    return replace(broken.lease, starts_by=broken.then, note=note)


def _time(at: datetime | None, now: datetime) -> str:
    """Return a time of today, or with its date."""
    if at is None:
        return "an unknown time"
    return f"{at:%H:%M} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M} UTC"
