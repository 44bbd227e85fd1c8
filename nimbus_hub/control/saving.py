"""Saving: what an ending session still does before its server is stopped.

Two parts are waited for, each for its own time at most: the documents, which the browser
saves, and the user's before-reclaim script, which the session's own server runs. The one
never cuts the other off.

What runs is kept in memory: after a restart of the service each session that was ending has
the time to say it again; so it has when the service was away otherwise.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from nimbus_hub.clock import Clock
from nimbus_hub.model.lease import Lease, LeaseState

__all__ = ["LONGEST_SCRIPT", "Saving"]

LONGEST_SCRIPT = timedelta(seconds=60)
"""The most that a before-reclaim script may take."""


class Saving:
    """Tells how long the end of a session waits; ``save`` is how long for its documents."""

    def __init__(self, clock: Clock, save: timedelta) -> None:
        self._clock = clock
        self._save = save
        self._since = clock.now()
        self._scripts: dict[str, datetime] = {}

    def until(self, lease: Lease) -> datetime | None:
        """Return when the server of an ending session may be stopped; None: at once."""
        if lease.state is not LeaseState.ACTIVE or lease.ending_at is None:
            return None
        parts = []
        if lease.saved_at is None:
            parts.append(lease.ending_at + self._save)
        if lease.id in self._scripts:
            parts.append(self._scripts[lease.id])
        if lease.ending_at < self._since:
            parts.append(self._since + self._save)
        return max(parts, default=None)

    def begin_anew(self, now: datetime) -> None:
        """Give each session that is ending the time it had anew."""
        self._since = now

    def wait_for_script(self, lease: Lease, longest: timedelta) -> None:
        """Have the end of a lease wait for its script so long; repeating it does not add up."""
        asked = max(lease.ending_at or self._since, self._since)
        bound = asked + self._save + LONGEST_SCRIPT
        self._scripts[lease.id] = min(self._clock.now() + longest, bound)

    def forget_script(self, lease_id: str) -> None:
        """Wait no longer for the script of a lease."""
        self._scripts.pop(lease_id, None)
