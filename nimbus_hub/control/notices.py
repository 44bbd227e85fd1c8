"""Notices: what happens to leases and jobs, told to people away from the browser.

Follows the bus in the background, puts warnings and ends into words, and gives them to the
notifiers that the operator named. Each is sent at most once, over restarts too; the end of a
job that came while the service was down is sent when the service records it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from zlib import crc32

from nimbus_hub.control.bus import Change, Warned, WarningKind
from nimbus_hub.control.delivery import Delivery
from nimbus_hub.control.leases import Leases
from nimbus_hub.control.metrics import Metrics
from nimbus_hub.control.records import Records
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import SERVER_DIED, Lease, LeaseKind, LeaseState
from nimbus_hub.model.notice import Notice, NoticeKind
from nimbus_hub.model.quantities import format_duration
from nimbus_hub.model.text import one_line
from nimbus_hub.notifiers.registry import Route
from nimbus_hub.store.sent import Sent

__all__ = ["Notices"]

log = logging.getLogger(__name__)

_LOOK_SECONDS = 60.0
_HOLDERS = {LeaseKind.SESSION: "session", LeaseKind.DEBUG: "debug gang", LeaseKind.JOB: "job"}
_NOT_ASKED_FOR = frozenset({LeaseState.EXPIRED, LeaseState.PREEMPTED, LeaseState.LOST})


class Notices:
    """Sends notices to the notifiers of ``routes``; ``site`` is the hub's public address."""

    def __init__(
        self,
        records: Records,
        leases: Leases,
        metrics: Metrics,
        routes: Sequence[Route],
        sent: Sent,
        site: str,
    ) -> None:
        self._records = records
        self._leases = leases
        self._sent = sent
        self._deliveries = [Delivery(route, metrics) for route in routes]
        self._home = f"{site.rstrip('/')}/hub/home"
        self._page = f"{site.rstrip('/')}/services/nimbus/"

    async def run(self) -> None:
        """Send notices until cancelled; return at once where there is no notifier."""
        if not self._deliveries:
            return
        tasks = [asyncio.create_task(each.run()) for each in self._deliveries]
        try:
            with self._records.bus.subscribe(_is_news) as news:
                while True:
                    change = await news.get(_LOOK_SECONDS)
                    if change is not None:
                        await self._tell(change)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, change: Change) -> None:
        try:
            notice = await self._notice(change)
            if notice is None or not self._sent.add(notice.id):
                return
        except Exception:
            log.exception("a notice could not be made")
            return
        for delivery in self._deliveries:
            delivery.put(notice)

    async def _notice(self, change: Change) -> Notice | None:
        if isinstance(change, Warned):
            is_idle = change.kind is WarningKind.IDLE
            return self._idle(change) if is_idle else self._warning(change)
        if isinstance(change, Job):
            lease = await self._records.lease(change.lease_id)
            # Who runs something on a gang looks at it.
            if lease.kind is LeaseKind.DEBUG:
                return None
            return self._job_ended(change) if change.state.is_end else self._job_warned(change)
        return self._lease_ended(change)

    def _warning(self, warned: Warned) -> Notice:
        lease, now = warned.lease, self._records.clock.now()
        left = format_duration(timedelta(seconds=warned.seconds))
        end = lease.expires_at or now + timedelta(seconds=warned.seconds)
        what = _HOLDERS[lease.kind]
        until = self._leases.renewable_until(lease)
        can = (
            f"It can be renewed until {_time(until, now)}, in JupyterLab or with: "
            f"nimbus lease renew --lease {lease.id}"
            if until is not None and self._leases.can_renew(lease, now)
            else "It cannot be renewed any more; save your work."
        )
        return Notice(
            id=f"{lease.id}.{NoticeKind.LEASE_WARNING}.{end:%Y%m%dT%H%M%S}.{warned.seconds}",
            kind=NoticeKind.LEASE_WARNING,
            user=lease.owner,
            title=f"Your {_named(what, lease.name)} ends in {left}",
            text=f"The lease of your {_named(what, lease.name)} ends at {_time(end, now)}. {can}",
            url=self._home,
            time=now,
        )

    def _idle(self, warned: Warned) -> Notice:
        lease, now = warned.lease, self._records.clock.now()
        what = _named(_HOLDERS[lease.kind], lease.name)
        end = now + timedelta(seconds=warned.seconds)
        unless = " unless you keep it" if self._leases.policy(lease).idle_ends else ""
        return Notice(
            id=f"{lease.id}.{NoticeKind.IDLE_WARNING}.{now:%Y%m%dT%H%M}",
            kind=NoticeKind.IDLE_WARNING,
            user=lease.owner,
            title=f"Your {what} is idle",
            text=f"Your {what} is {warned.reason}. It ends at {_time(end, now)}{unless}. "
            f"If you do not need it any more, give it back: nimbus lease release {lease.id}",
            url=self._home,
            time=now,
        )

    def _lease_ended(self, lease: Lease) -> Notice:
        now = self._records.clock.now()
        ended, what = lease.ended_at or now, _named(_HOLDERS[lease.kind], lease.name)
        reason = lease.reason.rstrip(".") or "its lease ended"
        opened = f" Open were: {', '.join(lease.opened)}." if lease.opened else ""
        return Notice(
            id=f"{lease.id}.{NoticeKind.LEASE_ENDED}",
            kind=NoticeKind.LEASE_ENDED,
            user=lease.owner,
            title=f"Your {what} has ended",
            text=f"Your {what} ended at {_time(ended, now)}: {reason}.{opened}",
            url=self._home,
            time=ended,
        )

    def _job_warned(self, job: Job) -> Notice:
        now, name = self._records.clock.now(), one_line(job.name or job.id)
        # Other news of the job have the same note.
        which = f"{job.attempt}.{now:%Y%m%d}.{crc32(job.note.encode()):08x}"
        return Notice(
            id=f"{job.id}.{NoticeKind.JOB_WARNING}.{which}",
            kind=NoticeKind.JOB_WARNING,
            user=job.owner,
            title=f"Job {name} is silent",
            text=f"Job {name} ({job.id}): {job.note}. Its output: nimbus logs {job.id}",
            url=self._page,
            time=now,
        )

    def _job_ended(self, job: Job) -> Notice:
        now = self._records.clock.now()
        ended, name = job.ended_at or now, one_line(job.name or job.id)
        lasted = f" after {format_duration(ended - job.started_at)}" if job.started_at else ""
        reason = f": {job.headline.rstrip('.')}" if job.reason else ""
        return Notice(
            id=f"{job.id}.{NoticeKind.JOB_ENDED}",
            kind=NoticeKind.JOB_ENDED,
            user=job.owner,
            title=f"Job {name} {job.state}",
            text=f"Job {name} ({job.id}) {job.state}{lasted}{reason}. "
            f"Its output: nimbus logs {job.id}",
            url=self._page,
            time=ended,
        )


def _is_news(change: Change) -> bool:
    if isinstance(change, Warned):
        return True
    if isinstance(change, Job):
        # That what it left is deleted, later, is no news of it.
        return not (change.is_holder or change.deleted_at) and (
            change.state.is_end or bool(change.note)
        )
    if change.kind is LeaseKind.JOB or not change.state.is_end:
        return False
    return change.state in _NOT_ASKED_FOR or change.reason.startswith(SERVER_DIED)


def _named(what: str, name: str) -> str:
    return f"{what} {one_line(name)}" if name else what


def _time(at: datetime, now: datetime) -> str:
    """Return a time for readers whose zone nobody here knows."""
    return f"{at:%H:%M} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M} UTC"
