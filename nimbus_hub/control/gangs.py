"""Debug gangs: slots that stay held, with a warm replica on each, for one run after another.

A gang is a lease, the job that holds it (``Job.is_holder``), and its runs, one at a time.
Whoever submits a run writes the lease anew: of two who come at once, or of one who comes
with the gang's end, the later is refused by the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from weakref import WeakValueDictionary

from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.jobs import JobView, job_name, script_of
from nimbus_hub.control.leases import Leases
from nimbus_hub.control.records import Records
from nimbus_hub.control.snapshots import Snapshots
from nimbus_hub.control.specs import attempt_replicas
from nimbus_hub.control.tokens import new_id
from nimbus_hub.errors import Conflict, Ended, InvalidRequest, NotFound
from nimbus_hub.masters.registry import master
from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.replica import Replica
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.decisions import Grant, Preview, ReasonCode, Wait
from nimbus_hub.scheduler.words import roles_text, wish_text
from nimbus_hub.store.store import GangRecord

__all__ = ["Gang", "GangState", "Gangs", "is_warm"]

log = logging.getLogger(__name__)

_NAME = "debug"
_RESTARTS = 4
"""How often the warm replicas are started again: what users run may bring them down."""

_NO_WISHES = Wishes()


class GangState(StrEnum):
    """What a gang is good for now."""

    QUEUED = "queued"
    WARMING = "warming"
    READY = "ready"
    BUSY = "busy"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Gang:
    """A gang as people see it; ``replicas`` are the warm ones, ``run`` is the one under way."""

    lease: Lease
    holder: Job
    replicas: tuple[Replica, ...]
    run: JobView | None
    runs: int
    version: int

    @property
    def state(self) -> GangState:
        """Return what it is good for now."""
        if self.lease.state.is_end:
            return GangState.ENDED
        if self.lease.target is not None:
            return GangState.ENDING
        if not self.lease.state.is_holding:
            return GangState.QUEUED
        if self.run is not None:
            return GangState.BUSY
        return GangState.READY if is_warm(self.lease, self.holder) else GangState.WARMING

    @property
    def reason(self) -> str:
        """Say why it is in this state; nothing where there is no more to say."""
        if self.state is GangState.WARMING:
            return self.holder.reason or "its replicas are being warmed up"
        if self.state is GangState.BUSY and self.run is not None:
            return f"runs {_told(self.run.job)}"
        return self.lease.reason


def is_warm(lease: Lease, holder: Job) -> bool:
    """Tell whether a run on a gang may start."""
    is_held = lease.state is LeaseState.ACTIVE and lease.target is None
    return is_held and holder.state is JobState.RUNNING and holder.target is None


class Gangs:
    """What may be done with debug gangs."""

    def __init__(
        self, records: Records, inventory: Inventory, leases: Leases, snapshots: Snapshots
    ) -> None:
        self._records = records
        self._inventory = inventory
        self._leases = leases
        self._snapshots = snapshots
        # One request of an owner at a time; who has none waiting is forgotten.
        self._turns = WeakValueDictionary[str, asyncio.Lock]()

    async def request(
        self,
        owner: str,
        framework: str,
        groups: Sequence[SlotGroup],
        *,
        environment: str = "default",
        name: str = "",
        length: timedelta | None = None,
        wait: timedelta | None = None,
        parent: Lease | None = None,
    ) -> Gang:
        """Record the wish for a gang, near the session whose lease is ``parent``.

        Raises Conflict if that session, or without one the owner under that name, has one
        already; NotFound and Ended for a session that is over or ending.
        """
        launch = Launch((), framework, environment=environment, retries=_RESTARTS)
        groups = master(framework).accept(launch, groups)
        draft = self._leases.draft(
            LeaseKind.DEBUG,
            owner,
            groups,
            name=name or _NAME,
            environment=environment,
            length=length,
            wait=wait,
            wishes=_NO_WISHES if parent is None else self._beside(parent),
        )
        lease = replace(draft, parent=None if parent is None else parent.id)
        holder = Job(
            id=new_id("j"),
            name=lease.name,
            owner=owner,
            lease_id=lease.id,
            launch=launch,
            created_at=lease.created_at,
            is_holder=True,
        )
        turn = self._turns.setdefault(owner, asyncio.Lock())
        async with turn:
            await self._refuse_second(lease, parent)
            await self._records.add(lease, holder)
        log.info("gang %s queued for %s with job %s", lease.id, owner, holder.id)
        return await self.get(lease.id)

    async def find(self, lease_id: str, owner: str | None = None) -> GangRecord:
        """Return a gang's records; raise NotFound, with ``owner`` also for another's."""
        return await self._records.gang(lease_id, owner)

    async def get(self, lease_id: str, owner: str | None = None) -> Gang:
        """Return a gang as people see it; raise NotFound, with ``owner`` also for another's."""
        lease, holder, newest, version = await self.find(lease_id, owner)
        run = None
        if newest is not None and not newest.state.is_end:
            run = JobView(newest, lease, await self._replicas(newest))
        runs = 0 if newest is None else newest.run + 1
        return Gang(lease, holder, await self._replicas(holder), run, runs, version)

    async def list(
        self, owner: str | None, session: str | None, is_live: bool | None
    ) -> tuple[Gang, ...]:
        """Return gangs of an owner and a session's lease (None: any), newest first."""
        leases = await self._records.read(
            self._records.store.leases,
            owner=owner,
            kind=LeaseKind.DEBUG,
            is_live=is_live,
            parent=session,
        )
        return tuple([await self.get(lease.id) for lease in leases])

    async def submit(
        self,
        gang: GangRecord,
        launch: Launch,
        groups: Sequence[SlotGroup] | None = None,
        *,
        name: str = "",
    ) -> JobView:
        """Record a run; it starts at once on a gang that is ready, else as soon as it is.

        Raises InvalidRequest for what the gang does not hold, Conflict while another run is
        under way, Ended for a gang that is over or ending.
        """
        _refuse_other(gang.lease, launch, groups)
        if launch.snapshot is not None:
            await self._snapshots.check(gang.lease.owner, launch.snapshot)
        while True:
            _refuse_unfree(gang)
            run = self._run(gang, launch, name)
            replicas = () if run.state is JobState.QUEUED else attempt_replicas(run, gang.lease)
            try:
                (lease,) = await self._records.save(gang.lease, new=[run, *replicas])
            except Conflict:
                gang = await self.find(gang.lease.id)
                continue
            log.info("job %s %s on gang %s of %s", run.id, run.state, lease.id, run.owner)
            return JobView(run, lease, replicas)

    def plan(
        self, gang: GangRecord, launch: Launch, groups: Sequence[SlotGroup] | None = None
    ) -> Preview:
        """Return what submitting would do now; raise what it would raise."""
        lease = gang.lease
        _refuse_other(lease, launch, groups)
        _refuse_unfree(gang)
        if lease.state.is_holding:
            return Preview(Grant(lease.id, lease.slots, lease.placement))
        code = ReasonCode(lease.reason_code or ReasonCode.RESOURCES)
        reason = f"waits for its gang: {lease.reason}"
        return Preview(Wait(lease.id, lease.position or 1, reason, lease.starts_by, code))

    async def follow_sessions(self, leases: Sequence[Lease]) -> tuple[Lease, ...]:
        """End the gangs whose session ended or ends; return those of all that are still live."""
        by_id = {lease.id: lease for lease in leases}
        seen = [
            lease
            if lease.parent is None or lease.target is not None
            else await self._follow(lease, lease.parent, by_id.get(lease.parent))
            for lease in leases
        ]
        return tuple(lease for lease in seen if not lease.state.is_end)

    async def _follow(self, lease: Lease, parent_id: str, parent: Lease | None) -> Lease:
        if parent is not None and parent.target is None:
            return lease
        session = parent or await self._records.lease(parent_id)
        if session.target is None and not session.state.is_end:
            return lease  # Both were asked for since these were read.
        reason = f"its session ended: {session.reason or session.public_state}"
        ended = lease.ending(LeaseState.RELEASED, reason, self._records.clock.now())
        try:
            (ended,) = await self._records.save(ended)
        except Conflict:
            return lease  # Changed meanwhile: the next pass decides again.
        log.info("lease %s %s: %s", ended.id, ended.public_state, reason)
        return ended

    def _run(self, gang: GangRecord, launch: Launch, name: str) -> Job:
        now = self._records.clock.now()
        run = Job(
            id=new_id("j"),
            name=name or job_name(launch),
            owner=gang.lease.owner,
            lease_id=gang.lease.id,
            launch=launch,
            created_at=now,
            run=0 if gang.run is None else gang.run.run + 1,
            earlier_turns=0 if gang.run is None else gang.run.turn,
        )
        if not is_warm(gang.lease, gang.holder):
            return run
        return run.moved(JobState.STARTING, started_at=now)

    async def _replicas(self, job: Job) -> tuple[Replica, ...]:
        return await self._records.replicas(job.id, job.attempt)

    def _beside(self, session: Lease) -> Wishes:
        """Return the wish to be where a session is."""
        if session.kind is not LeaseKind.SESSION or session.state.is_end:
            raise NotFound(f"lease {session.id} is not that of a live session")
        if session.target is not None:
            raise Ended(f"session {session.id} is ending: {session.reason}")
        if not session.slots:
            raise Conflict(f"session {session.id} is still queued; ask again when it runs")
        datacenters = {host.name: host.datacenter for host in self._inventory.hosts}
        return Wishes(datacenter=datacenters.get(session.slots[0].host))

    async def _refuse_second(self, lease: Lease, parent: Lease | None) -> None:
        live = await self._records.read(
            self._records.store.leases, owner=lease.owner, kind=LeaseKind.DEBUG, is_live=True
        )
        for held in live:
            if held.parent != lease.parent or (parent is None and held.name != lease.name):
                continue
            who = lease.owner if parent is None else f"session {parent.name or 'default'!r}"
            raise Conflict(
                f"{who} has gang {held.id} ({held.name}) already; "
                "give it back first with `nimbus debug stop`"
            )


def _refuse_other(lease: Lease, launch: Launch, groups: Sequence[SlotGroup] | None) -> None:
    """Refuse a run that needs something else than its gang holds."""
    remedy = "leave that out, or submit it as a job of its own"
    rules = master(launch.framework)
    groups = None if groups is None else rules.accept(launch, groups)
    if groups is not None and _sizes(groups) != _sizes(lease.groups):
        raise InvalidRequest(
            f"gang {lease.id} holds {_held(lease.groups)}, and a run uses it as it is; "
            f"{_held(groups)} were asked for: {remedy}"
        )
    if launch.environment != lease.environment:
        raise InvalidRequest(
            f"gang {lease.id} holds environment {lease.environment!r}, "
            f"{launch.environment!r} was asked for: {remedy}"
        )
    needed = rules.accept(launch, lease.groups)
    if _sizes(needed) != _sizes(lease.groups):
        raise InvalidRequest(
            f"{launch.framework} needs {_held(needed)}, and gang "
            f"{lease.id} holds {_held(lease.groups)}: {remedy}"
        )


def _refuse_unfree(gang: GangRecord) -> None:
    """Refuse a run on a gang that ends, or on which one is under way."""
    lease, run = gang.lease, gang.run
    if lease.state.is_end or lease.target is not None:
        state = "over" if lease.state.is_end else "ending"
        raise Ended(
            f"gang {lease.id} is {state}: {lease.reason or lease.state}; "
            "hold another with `nimbus debug start`"
        )
    if run is None or run.state.is_end:
        return
    if run.target is not None:
        raise Conflict(
            f"gang {lease.id} is still stopping {_told(run)}; try again when that has ended"
        )
    raise Conflict(
        f"gang {lease.id} runs {_told(run)} now; stop it with `nimbus stop {run.id}` or wait"
    )


def _told(run: Job) -> str:
    return f"{run.id} ({script_of(run.launch)})"


def _sizes(groups: Sequence[SlotGroup]) -> list[SlotGroup]:
    """Return groups without how they lie, which is settled for slots that are held."""
    return [replace(group, topology=None) for group in groups]


def _held(groups: Sequence[SlotGroup]) -> str:
    return " and ".join(
        f"{roles_text(group.role, group.count)} with {wish_text(group)}" for group in groups
    )
