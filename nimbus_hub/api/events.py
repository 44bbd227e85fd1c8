"""The caller's changes as they happen."""

from __future__ import annotations

import asyncio

from tornado.iostream import StreamClosedError

from nimbus_hub.api import schemas
from nimbus_hub.api.handler import Operation
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.streams import PING_SECONDS, EventStreamHandler
from nimbus_hub.api.views import job_view, lease_view
from nimbus_hub.control.bus import Change, Subscription, Warned
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease

__all__ = ["EventsHandler"]


_LONGEST_ID = 18  # digits; a larger number is no id of ours


class EventsHandler(EventStreamHandler):
    """Leases, jobs and warnings of the caller; an administrator's: of everybody."""

    operations = {
        "get": Operation("Follow changes", Scope.READ, schemas.Lease, media="text/event-stream")
    }

    async def get(self) -> None:
        """Send what changes; after a break (Last-Event-ID) first what changed meanwhile."""
        self.open_stream()
        with self.services.control.bus.subscribe(self._is_own) as changes:
            try:
                await self._catch_up(changes)
                await self._follow(changes)
            except StreamClosedError:
                return

    async def _catch_up(self, changes: Subscription) -> None:
        records = self.services.control.records
        last = self.request.headers.get("Last-Event-ID", "")
        if not last.isdecimal() or len(last) > _LONGEST_ID:
            await self.ping()
            return
        after = int(last)
        missed: dict[str, None] = {}
        while events := await records.read(records.store.events, self.owner, after):
            missed |= dict.fromkeys(event.object_id for event in events)
            after = events[-1].id
        for object_id in missed:
            is_job = object_id.startswith("j-")
            change = await (records.job(object_id) if is_job else records.lease(object_id))
            if self._is_own(change):
                await self._send_change(change, changes)

    async def _follow(self, changes: Subscription) -> None:
        while not self.gone.is_set():
            waiting = asyncio.ensure_future(changes.get(PING_SECONDS))
            leaving = asyncio.ensure_future(self.gone.wait())
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            if not waiting.done():
                waiting.cancel()
                return
            change = waiting.result()
            if changes.is_behind:
                return  # The reader connects again and catches up from the store.
            await (self.ping() if change is None else self._send_change(change, changes))

    async def _send_change(self, change: Change, changes: Subscription) -> None:
        """Send a change, with the last event's id only when nothing up to it is left to send."""
        control = self.services.control
        newest = await control.records.read(control.records.store.last_event_id)
        last = newest if changes.is_empty else None
        if isinstance(change, Job):
            await self.send("job", job_view(await control.jobs.view(change)), last)
        elif isinstance(change, Lease):
            await self.send("lease", lease_view(change, control.leases, control.clock.now()), last)
        else:
            lease = lease_view(change.lease, control.leases, control.clock.now())
            warning = schemas.LeaseWarning(
                lease=lease, seconds=change.seconds, kind=change.kind.value, reason=change.reason
            )
            await self.send("warning", warning, last)

    def _is_own(self, change: Change) -> bool:
        if isinstance(change, Job) and change.is_holder:
            return False  # What people see of it is the gang.
        owner = change.lease.owner if isinstance(change, Warned) else change.owner
        return self.caller.is_admin or owner == self.caller.name
