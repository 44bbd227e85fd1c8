"""Leases: request, look up, renew, give back. Intent is recorded; the reconciler acts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from weakref import WeakValueDictionary

from nimbus_hub.control.activity import Activity
from nimbus_hub.control.admission import check_quotas, check_wishes
from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.policies import Policies
from nimbus_hub.control.promises import Promises
from nimbus_hub.control.records import Records
from nimbus_hub.control.requeue import TAKEN
from nimbus_hub.control.saving import Saving
from nimbus_hub.control.scheduling import Scheduling
from nimbus_hub.control.settings import Settings
from nimbus_hub.control.tokens import new_id
from nimbus_hub.errors import Conflict, Ended, Impossible, InvalidRequest, Unavailable
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.policy import LeasePolicy
from nimbus_hub.model.quantities import format_duration
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.model.wishes import Wishes

__all__ = ["Leases"]

log = logging.getLogger(__name__)

_NO_WISHES = Wishes()
_SCRIPT = "before-reclaim"


class Leases:
    """What may be done with leases; a write that lost a race is tried again."""

    def __init__(
        self,
        records: Records,
        inventory: Inventory,
        settings: Settings,
        scheduling: Scheduling,
        policies: Policies,
        activity: Activity,
    ) -> None:
        self._records = records
        self._inventory = inventory
        self._settings = settings
        self._scheduling = scheduling
        self.policies = policies
        self.activity = activity
        self._promises = Promises(records, scheduling)
        self.saving = Saving(records.clock, settings.save)
        # One request at a time for one session; who has none waiting is forgotten.
        self._turns = WeakValueDictionary[tuple[str, str], asyncio.Lock]()

    def policy(self, lease: Lease) -> LeasePolicy:
        """Return what holds for a lease now, by its kind, its owner's group and its size."""
        return self.policies.of(lease)

    def latest_end(self, lease: Lease) -> datetime | None:
        """Return the latest end policy allows a lease now; None before it is granted.

        A policy that became shorter takes away nothing that was given.
        """
        start = lease.active_at or lease.granted_at
        if start is None or lease.expires_at is None or lease.state.is_end:
            return lease.latest_end
        return max(lease.expires_at, start + self.policy(lease).latest_end)

    def renewable_until(self, lease: Lease) -> datetime | None:
        """Return the latest end that renewals can lead to now; None if none can."""
        latest = self.latest_end(lease)
        if lease.expires_at is None or latest is None or lease.target or lease.state.is_end:
            return None
        return self.policy(lease).renewable_until(lease.expires_at, latest, lease.renewals)

    def draft(
        self,
        kind: LeaseKind,
        owner: str,
        groups: Sequence[SlotGroup],
        *,
        name: str = "",
        environment: str = "default",
        length: timedelta | None = None,
        wait: timedelta | None = None,
        wishes: Wishes = _NO_WISHES,
        is_admin: bool = False,
    ) -> Lease:
        """Return a lease that could be asked for, not yet recorded.

        Raises InvalidRequest for bounds that policy sets, Forbidden for what only others may
        ask for (``is_admin``: nothing is), and Impossible for what could never be granted.
        """
        if environment not in self._settings.environments:
            known = ", ".join(sorted(self._settings.environments))
            raise InvalidRequest(f"there is no environment {environment!r}; there is {known}")
        now = self._records.clock.now()
        size = self._settings.size_of(groups) if kind is LeaseKind.SESSION else ""
        lease = Lease(
            id=new_id("l"),
            kind=kind,
            owner=owner,
            name=name,
            groups=tuple(groups),
            length=self.policies.find(kind, owner, size, groups).length(length),
            created_at=now,
            environment=environment,
            size=size,
            wishes=wishes,
            reason="being scheduled",
            wait_until=None if wait is None else now + wait,
        )
        cluster = self._scheduling.cluster
        check_wishes(lease, cluster, self._scheduling.hosts, is_admin=is_admin)
        check_quotas(lease, cluster)
        self._refuse_impossible(lease)
        return lease

    async def request(self, lease: Lease) -> Lease:
        """Record a drafted lease; it is queued from here on."""
        if lease.kind is LeaseKind.SESSION:
            await self._add_session(lease)
        else:
            await self._records.add(lease)
        log.info("lease %s queued for %s", lease.id, lease.owner)
        return lease

    async def get(self, lease_id: str, owner: str | None = None) -> Lease:
        """Return a lease; raise NotFound, also for another owner's."""
        return await self._records.lease(lease_id, owner)

    async def activate(self, lease_id: str) -> Lease:
        """Record that the session that holds the lease is ready; its time counts from now."""
        before, lease = await self._change(lease_id, self._activated)
        if lease is not before:
            log.info("lease %s active until %s", lease.id, lease.expires_at)
        return lease

    async def renew(self, lease_id: str, length: timedelta | None = None) -> Lease:
        """Move the end of a lease to ``length`` from now, within policy.

        A renewal that would not move the end by a second changes nothing and succeeds, so
        that two tabs that renew at once count as one. What it does to others who wait is
        weighed, and told in ``note``.
        """
        lease = self._records.known(lease_id) or await self._records.lease(lease_id)
        while True:
            now = self._records.clock.now()
            renewed = self._renewed(lease, length, now)
            if renewed is lease:
                return lease
            changed = await self._promises.weigh(renewed, now)
            try:
                (lease, *_) = await self._records.save(*changed)
            except Conflict:
                lease = await self._records.lease(lease_id)
                continue
            log.info("lease %s renewed until %s %s", lease.id, lease.expires_at, lease.note)
            return lease

    async def keep(self, lease_id: str) -> Lease:
        """Count somebody's word that an idle lease is wanted as activity; its end stays.

        Raises Conflict for a lease that is never idle: a job's, or one that holds nothing.
        """
        lease = self._records.known(lease_id) or await self._records.lease(lease_id)
        self._refuse_ended(lease)
        self._refuse_ending(lease)
        if lease.kind is LeaseKind.JOB or not lease.state.is_holding:
            raise Conflict(f"lease {lease.id} is never idle; it need not be kept")
        self.activity.keep(lease)
        return lease

    async def release(self, lease_id: str, reason: str) -> Lease:
        """Ask for the end of a lease; what holds it is stopped first."""
        return await self.end(lease_id, LeaseState.RELEASED, reason)

    async def stopped(self, lease_id: str, reason: str) -> Lease:
        """Record that the session that held a lease is gone: its slots are free at once.

        Raises Conflict for the lease of a job, whose slots are free when its replicas are gone.
        """
        self.saving.forget_script(lease_id)
        before, lease = await self._change(lease_id, lambda lease: self._stopped(lease, reason))
        if lease is not before:
            log.info("lease %s %s: %s", lease.id, lease.state, lease.reason)
        return lease

    async def saved(self, lease_id: str, opened: Sequence[str] = ()) -> Lease:
        """Record that the session's documents are saved, and which were open.

        An end need not wait longer for them.
        """
        return (await self._change(lease_id, lambda lease: self._saved(lease, opened)))[1]

    def opened(self, lease: Lease) -> tuple[str, ...]:
        """Return what is open in a session: as its page told at the end, else its server before."""
        report = self.activity.report(lease.id)
        return lease.opened or (report.open_documents if report is not None else ())

    async def wait_for_script(self, lease_id: str, longest: timedelta) -> Lease:
        """Have the end of a session wait for its before-reclaim script; may be repeated."""
        _, lease = await self._change(lease_id, lambda lease: self._scripted(lease, longest))
        self.saving.wait_for_script(lease, longest)
        return lease

    async def script_ended(self, lease_id: str, outcome: str) -> Lease:
        """Record what became of the before-reclaim script: an end need not wait for it."""
        self.saving.forget_script(lease_id)
        return (await self._change(lease_id, lambda lease: self._script_ended(lease, outcome)))[1]

    async def end(self, lease_id: str, target: LeaseState, reason: str) -> Lease:
        """Record that a lease shall end so; the first end asked for stays.

        But a job whose lease is being taken away would get another one: whoever asks for
        the end meanwhile does not want that.
        """
        before, lease = await self._change(
            lease_id, lambda lease: self._ending(lease, target, reason)
        )
        if lease is not before:
            log.info("lease %s %s: %s", lease.id, lease.public_state, reason)
        return lease

    def can_renew(self, lease: Lease, now: datetime) -> bool:
        """Tell whether policy allows a renewal now to move the end; promises are not asked."""
        try:
            return self._renewed(lease, None, now) is not lease
        except Conflict:
            return False

    async def _change(self, lease_id: str, decide: Callable[[Lease], Lease]) -> tuple[Lease, Lease]:
        """Return a lease before and after a change; the same twice if none was needed."""
        lease = self._records.known(lease_id) or await self._records.lease(lease_id)
        while True:
            changed = decide(lease)
            if changed is lease:
                return lease, lease
            try:
                (saved,) = await self._records.save(changed)
            except Conflict:
                lease = await self._records.lease(lease_id)
                continue
            return lease, saved

    def _activated(self, lease: Lease) -> Lease:
        if lease.state is LeaseState.ACTIVE:
            return lease
        self._refuse_ended(lease)
        self._refuse_job(lease)
        return lease.activated(self._records.clock.now())

    def _stopped(self, lease: Lease, reason: str) -> Lease:
        if lease.state.is_end:
            return lease
        self._refuse_job(lease)
        state = LeaseState.RELEASED if lease.state.is_holding else LeaseState.CANCELLED
        ended = lease.ended(state, reason, self._records.clock.now())
        note = "" if lease.note.startswith(_SCRIPT) else lease.note
        return replace(ended, opened=self.opened(lease), note=note)

    def _ending(self, lease: Lease, target: LeaseState, reason: str) -> Lease:
        if lease.kind is LeaseKind.JOB and lease.target in TAKEN:
            return replace(lease, target=target, reason=reason)
        return lease.ending(target, reason, self._records.clock.now())

    def _saved(self, lease: Lease, opened: Sequence[str]) -> Lease:
        self._refuse_ended(lease)
        if lease.target is None or lease.saved_at is not None:
            return lease
        return replace(
            lease,
            saved_at=self._records.clock.now(),
            opened=tuple(opened),
            reason=f"{lease.reason}; its documents were saved",
        )

    def _scripted(self, lease: Lease, longest: timedelta) -> Lease:
        self._refuse_ended(lease)
        self._refuse_job(lease)
        if lease.target is None:
            raise Conflict(f"lease {lease.id} is not ending; its script runs when it is")
        if lease.note.startswith(_SCRIPT):
            return lease
        return replace(lease, note=f"{_SCRIPT} script runs, at most {format_duration(longest)}")

    def _script_ended(self, lease: Lease, outcome: str) -> Lease:
        self._refuse_ended(lease)
        self._refuse_job(lease)
        told = f"; {_SCRIPT}: "
        if lease.target is None or told in lease.reason:
            return lease
        return replace(lease, note="", reason=f"{lease.reason}{told}{outcome}")

    def _renewed(self, lease: Lease, length: timedelta | None, now: datetime) -> Lease:
        self._refuse_ended(lease)
        self._refuse_ending(lease)
        if lease.expires_at is None or lease.latest_end is None:
            raise Conflict(f"lease {lease.id} is still queued; it can be renewed once granted")
        policy, latest = self.policy(lease), self.latest_end(lease) or lease.latest_end
        end = policy.renewed_end(now, lease.expires_at, latest, length)
        if lease.expires_at >= latest:
            raise Conflict(
                f"lease {lease.id} cannot be renewed past {latest:%Y-%m-%d %H:%M} UTC, "
                "the latest end its policy allows; save your work and start again after it"
            )
        if end - lease.expires_at < timedelta(seconds=1):
            return lease
        if lease.renewals >= policy.renewals:
            raise Conflict(
                f"lease {lease.id} was renewed {lease.renewals} times, "
                "as often as its policy allows"
            )
        return replace(lease, expires_at=end, latest_end=latest, renewals=lease.renewals + 1)

    def _refuse_impossible(self, lease: Lease) -> None:
        try:
            self._scheduling.refuse(lease)
        except Impossible:
            if self._inventory.is_complete:
                raise
            raise Unavailable(
                "not all hosts have been heard of since the service started; try again in a moment"
            ) from None

    def _refuse_job(self, lease: Lease) -> None:
        """What the hub says of sessions would free a job's slots while its replicas run."""
        if lease.kind is LeaseKind.JOB:
            raise Conflict(f"lease {lease.id} is held by a job; stop the job instead")
        if lease.kind is LeaseKind.DEBUG:
            raise Conflict(f"lease {lease.id} is held by a debug gang; give it back instead")

    def _refuse_ending(self, lease: Lease) -> None:
        if lease.target is not None:
            raise Ended(f"lease {lease.id} is ending: {lease.reason}; start again after it")

    def _refuse_ended(self, lease: Lease) -> None:
        if lease.state.is_end and lease.ended_at is not None:
            raise Ended(
                f"lease {lease.id} ended at {lease.ended_at:%Y-%m-%d %H:%M} UTC "
                f"({lease.reason or lease.state}); start a new session or job"
            )

    async def _add_session(self, lease: Lease) -> None:
        """Record a session's lease unless it has one: two would mean slots that nobody uses."""
        session = (lease.owner, lease.name)
        turn = self._turns.setdefault(session, asyncio.Lock())
        async with turn:
            held = await self._records.session(*session)
            if held is not None:
                raise Conflict(
                    f"session {lease.name or 'default'!r} of {lease.owner} holds lease "
                    f"{held.id} already; release it first"
                )
            await self._records.add(lease)
