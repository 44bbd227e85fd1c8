"""The reaper: ends leases whose time or patience is over, and warns before.

A session that ends may first save its documents; then JupyterHub stops its server; when
that is gone the lease is over. A lease is never over while what holds it still runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from nimbus_hub.control.absences import Absences
from nimbus_hub.control.bus import Warned, WarningKind
from nimbus_hub.control.leases import Leases
from nimbus_hub.control.metrics import Metrics
from nimbus_hub.control.outages import GRACE, Outages
from nimbus_hub.control.records import Records
from nimbus_hub.control.sessions import Sessions
from nimbus_hub.control.settings import Settings
from nimbus_hub.errors import Conflict
from nimbus_hub.model.activity import Idleness
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.quantities import format_duration

__all__ = ["Reaper"]

log = logging.getLogger(__name__)

_AT_ONCE = 500
"""So many leases are looked at before others have their turn."""

_NEVER_LOOKED_AT = None, datetime.min.replace(tzinfo=UTC)


class Reaper:
    """Ends what is over."""

    def __init__(
        self,
        records: Records,
        leases: Leases,
        settings: Settings,
        sessions: Sessions,
        absences: Absences,
        outages: Outages,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._leases = leases
        self._settings = settings
        self._sessions = sessions
        self._absences = absences
        self._outages = outages
        self._metrics = metrics
        self._warned: dict[str, tuple[datetime, timedelta]] = {}
        self._looked_at: dict[str, tuple[Lease | None, datetime]] = {}
        self._looked_with: object = None
        self._missed: frozenset[str] = frozenset()
        self._left_over: set[tuple[str, str]] = set()
        self.has_new_left_over = False
        self._stopping = asyncio.Lock()

    async def step(
        self, leases: Sequence[Lease], jobs: Sequence[Job], now: datetime
    ) -> tuple[Lease, ...]:
        """Record the end of every lease that is due, and warn of those that come close.

        Returns those that are still live, as they are now.
        """
        leases = await self._with_moved_ends(leases)
        self._leases.activity.look(leases, jobs, now)
        self._begin_looking(len(leases))
        over: list[tuple[Lease, Lease]] = []
        for number, lease in enumerate(leases, 1):
            found, until = self._looked_at.get(lease.id, _NEVER_LOOKED_AT)
            if found is lease and now < until:
                continue
            idle = self._leases.activity.due(lease, now)
            ending = self._due(lease, idle, now)
            if ending is not None:
                over.append((lease, ending))
            elif lease.expires_at is not None and lease.target is None:
                self._warn(lease, lease.expires_at - now)
                self._warn_idle(lease, idle, lease.expires_at, now)
                self._looked_at[lease.id] = lease, self._look_again_at(lease, now)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # Of thousands, who renews meanwhile need not wait for all.
        ended = await asyncio.gather(*(self._end(*each, now) for each in over))
        changed = {lease.id: lease for lease in ended}
        seen = (changed.get(lease.id, lease) for lease in leases) if changed else leases
        live = tuple(lease for lease in seen if not lease.state.is_end)
        if self._warned:
            ids = {lease.id for lease in live}
            self._warned = {key: value for key, value in self._warned.items() if key in ids}
        return live

    def _begin_looking(self, count: int) -> None:
        """Look at all leases anew if what they depend on changed, or if most of it is past."""
        depends_on = self._leases.policies.cluster, self._absences.up, self._outages.returned_at
        if depends_on != self._looked_with or len(self._looked_at) > 2 * count + _AT_ONCE:
            self._looked_at.clear()
            self._looked_with = depends_on

    def _look_again_at(self, lease: Lease, now: datetime) -> datetime:
        """Return until when nothing but a write, or what all depend on, makes a lease due."""
        policy = self._leases.policy(lease)
        due = self.next_due(lease)
        is_up = all(slot.host in self._absences.up for slot in lease.slots)
        if policy.idle is not None or due is None or lease.expires_at is None or not is_up:
            return now
        warnings = (lease.expires_at - before for before in policy.warnings)
        return min([due, lease.expires_at, *(time for time in warnings if time > now)])

    async def _with_moved_ends(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Return leases with the ends they have after an outage, if there was one."""
        moved = {lease.id: lease for lease in await self._outages.step(leases)}
        for lease in moved.values():
            assert lease.expires_at is not None
            self._warned[lease.id] = (lease.expires_at, GRACE)
            self._records.bus.publish(
                Warned(lease, round(GRACE.total_seconds()), reason=lease.note)
            )
        return [moved.get(lease.id, lease) for lease in leases] if moved else leases

    async def _end(self, lease: Lease, ending: Lease, now: datetime) -> Lease:
        """Write an end; those of one moment share a transaction."""
        try:
            (ending,) = await self._records.save(ending)
        except Conflict:
            return lease  # Renewed or ended meanwhile: the next pass decides again.
        self._note(ending, now)
        return ending

    def next_due(self, lease: Lease) -> datetime | None:
        """Return when this lease needs the reaper again, if that is known."""
        if lease.state is LeaseState.QUEUED:
            return lease.wait_until
        if lease.target is not None:
            return self._leases.saving.until(lease)
        if lease.state is LeaseState.GRANTED and lease.granted_at is not None:
            return self._start_by(lease.granted_at)
        return lease.expires_at

    async def end_session(self, lease: Lease) -> None:
        """Stop the server of a session that ends, once its work is saved or time is up."""
        lease = self._records.known(lease.id) or await self._records.lease(lease.id)
        if lease.state.is_end:
            return  # Its owner may have started another server of that name by now.
        until = self._leases.saving.until(lease)
        if until is not None and self._records.clock.now() < until:
            return
        if await self._sessions.stop(lease.owner, lease.name):
            await self._leases.stopped(lease.id, lease.reason)
            if lease.target is LeaseState.EXPIRED and lease.ending_at is not None:
                late = self._records.clock.now() - lease.ending_at
                self._metrics.reclaim_seconds.observe(late.total_seconds())

    async def sweep(self, leases: Sequence[Lease]) -> None:
        """End session leases whose server the hub has not known in two sweeps.

        Two, because a server that is just being started or stopped may be missed once.
        Servers whose lease was lost with its host are stopped, should the hub still have them.
        """
        sessions = [
            lease
            for lease in leases
            if lease.kind is LeaseKind.SESSION and lease.state.is_holding and lease.target is None
        ]
        if self._left_over:
            await self.stop_left_over()
        if not sessions:
            return
        running = await self._sessions.running()
        missing = {lease.id for lease in sessions if (lease.owner, lease.name) not in running}
        for lease in sessions:
            if lease.id in missing & self._missed:
                await self._end_lost(lease)
        self._missed = frozenset(missing)

    async def _end_lost(self, lease: Lease) -> None:
        now = self._records.clock.now()
        lost = lease.ended(LeaseState.LOST, "the session's server is gone", now)
        lost = replace(lost, opened=self._leases.opened(lease))
        try:
            await self._records.save(lost)
        except Conflict:
            return
        self._note(lost, now)

    async def stop_left_over(self) -> None:
        """Stop servers whose lease was lost: their users want to start others."""
        # One after the other: a server that is asked to stop twice at once is an error of the hub.
        async with self._stopping:
            running = await self._sessions.running()
            self.has_new_left_over = False
            live = (await self._records.live()).leases
            # One of that name that was started since then has a lease of its own.
            sessions = (lease for lease in live if lease.kind is LeaseKind.SESSION)
            self._left_over -= {(lease.owner, lease.name) for lease in sessions}
            self._left_over &= running
            for owner, name in sorted(self._left_over):
                await self._sessions.stop(owner, name)

    def _note(self, lease: Lease, now: datetime) -> None:
        """Tell of an end that was recorded."""
        log.info("lease %s %s: %s", lease.id, lease.public_state, lease.reason)
        if LeaseState.LOST in (lease.state, lease.target):
            self._metrics.lost.inc()
        if lease.granted_at is None:
            self._metrics.waited(lease, now, "given up")
        if lease.state.is_end and lease.slots and lease.kind is LeaseKind.SESSION:
            self._left_over.add((lease.owner, lease.name))
            self.has_new_left_over = True

    def _due(self, lease: Lease, idle: Idleness | None, now: datetime) -> Lease | None:
        """Return the lease with its end asked for, or None when it is not due."""
        if lease.state is LeaseState.QUEUED:
            if lease.wait_until is None or now < lease.wait_until:
                return None
            waited = format_duration(now - lease.waits_since)
            reason = f"nothing was free within {waited} ({lease.reason})"
            return lease.ended(LeaseState.CANCELLED, reason, now)
        lost = self._lost(lease, now)
        if lost is not None:
            return lost
        if lease.target is not None or lease.expires_at is None:
            return None
        if now >= lease.expires_at:
            # Who shows this shows the time too, in the reader's zone.
            ran_out = "its lease ran out and was not renewed"
            return lease.ending(LeaseState.EXPIRED, ran_out, now)
        activity = self._leases.activity
        if idle is not None and activity.is_over(lease, idle, now):
            return lease.ending(LeaseState.EXPIRED, activity.reason(idle, now), now)
        is_session = lease.kind is LeaseKind.SESSION and lease.state is LeaseState.GRANTED
        if is_session and lease.granted_at and now >= self._start_by(lease.granted_at):
            late = f"the session did not start within {format_duration(self._settings.start)}"
            return lease.ending(LeaseState.LOST, late, now)
        return None

    def _start_by(self, granted_at: datetime) -> datetime:
        """Return when a session that was granted is not waited for any longer."""
        return self._outages.since(granted_at) + self._settings.start

    def _lost(self, lease: Lease, now: datetime) -> Lease | None:
        """Return a lease that ends because a host of it is given up, or None."""
        has_replicas = lease.kind is not LeaseKind.SESSION
        if has_replicas and lease.target is not None:
            return None
        reason = self._absences.reason_for(lease)
        if not reason:
            return None
        if has_replicas:  # Those on its other hosts are stopped first.
            return lease.ending(LeaseState.LOST, reason, now)
        lost = lease.ended(LeaseState.LOST, reason, now)
        return replace(lost, opened=self._leases.opened(lease))

    def _warn(self, lease: Lease, left: timedelta) -> None:
        """Publish the most urgent warning that is due, once for each end of the lease."""
        due = [
            before
            for before in self._leases.policy(lease).warnings
            if left <= before < lease.length
        ]
        if not due or lease.expires_at is None:
            return
        end, before = self._warned.get(lease.id, (None, left))
        if end != lease.expires_at or before > min(due):
            self._warned[lease.id] = (lease.expires_at, min(due))
            self._records.bus.publish(Warned(lease, round(min(due).total_seconds())))

    def _warn_idle(
        self, lease: Lease, idle: Idleness | None, expires_at: datetime, now: datetime
    ) -> None:
        """Publish that a lease is idle, once until something happens on it again."""
        activity = self._leases.activity
        if idle is not None and not activity.is_told(lease):
            activity.tell(lease, now)
            reason = activity.reason(idle, now)
            log.info("lease %s is %s", lease.id, reason)
            left = round(((idle.ends_at or expires_at) - now).total_seconds())
            self._records.bus.publish(Warned(lease, left, WarningKind.IDLE, reason))
