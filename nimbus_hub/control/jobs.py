"""Jobs: submit, plan, look up, stop. Intent is recorded; the reconciler acts."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.leases import Leases
from nimbus_hub.control.records import Records
from nimbus_hub.control.scheduling import Scheduling
from nimbus_hub.control.snapshots import Snapshots
from nimbus_hub.control.stalls import Stalls
from nimbus_hub.control.tokens import new_id
from nimbus_hub.errors import Conflict, Ended, InvalidRequest, NotFound
from nimbus_hub.masters.registry import detected, master
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.replica import Replica, last_of_each
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.model.text import one_line
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.decisions import Preview

__all__ = ["JobView", "Jobs", "job_name", "script_of", "with_framework"]

log = logging.getLogger(__name__)

_LONGEST_NAME = 100
_NO_WISHES = Wishes()


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with its lease and the replicas of its present attempt, as people see it."""

    job: Job
    lease: Lease
    replicas: tuple[Replica, ...]


class Jobs:
    """What may be done with jobs; a write that lost a race is tried again."""

    def __init__(
        self,
        records: Records,
        leases: Leases,
        scheduling: Scheduling,
        snapshots: Snapshots,
        inventory: Inventory,
        stalls: Stalls,
    ) -> None:
        self._inventory = inventory
        self._stalls = stalls
        self._records = records
        self._leases = leases
        self._scheduling = scheduling
        self._snapshots = snapshots

    async def submit(
        self,
        owner: str,
        launch: Launch,
        groups: Sequence[SlotGroup],
        *,
        name: str = "",
        length: timedelta | None = None,
        wishes: Wishes = _NO_WISHES,
        is_admin: bool = False,
    ) -> JobView:
        """Record a job and the wish for its lease, in one write."""
        lease = self._draft(owner, launch, groups, name, length, wishes, is_admin=is_admin)
        if launch.snapshot is not None:
            await self._snapshots.check(owner, launch.snapshot)
        job = Job(
            id=new_id("j"),
            name=lease.name,
            owner=owner,
            lease_id=lease.id,
            launch=launch,
            created_at=lease.created_at,
        )
        await self._records.add(lease, job)
        log.info("job %s queued for %s with lease %s", job.id, owner, lease.id)
        return JobView(job, lease, ())

    async def plan(
        self,
        owner: str,
        launch: Launch,
        groups: Sequence[SlotGroup],
        *,
        name: str = "",
        length: timedelta | None = None,
        wishes: Wishes = _NO_WISHES,
        is_admin: bool = False,
    ) -> Preview:
        """Return what submitting would do now; change nothing."""
        lease = self._draft(owner, launch, groups, name, length, wishes, is_admin=is_admin)
        live = await self._records.live()
        return self._scheduling.preview(lease, live.leases, self._records.clock.now())

    async def get(self, job_id: str, owner: str | None = None) -> JobView:
        """Return a job as people see it; raise NotFound, also for another owner's."""
        return await self.view(await self._records.job(job_id, owner))

    async def view(self, job: Job) -> JobView:
        """Return a job with its lease and the replicas of its present attempt."""
        lease = await self._records.lease(job.lease_id)
        replicas = await self._records.replicas(job.id, job.attempt)
        return JobView(job, lease, last_of_each(replicas))

    async def stop(self, job_id: str, reason: str) -> JobView:
        """Ask for the end of a job; its replicas are stopped first."""
        while True:
            job = await self._records.job(job_id)
            stopping = job.stopping(reason)
            if stopping is job:
                return await self.view(job)
            try:
                (job,) = await self._records.save(stopping)
            except Conflict:
                continue
            log.info("job %s stopping: %s", job.id, reason)
            return await self.view(job)

    async def report(self, job_id: str, progress: float, message: str) -> JobView:
        """Record how far a job is, as it tells itself."""
        self._stalls.reported(job_id)
        while True:
            job = await self._records.job(job_id)
            if job.state.is_end:
                raise Ended(f"job {job.id} ended already: {job.headline}")
            try:
                job = await self._records.note(
                    replace(job, progress=progress, progress_message=message)
                )
            except Conflict:
                continue
            return await self.view(job)

    async def write_input(self, job_id: str, replica: str, data: bytes) -> JobView:
        """Write to the standard input of a replica, named like ``worker-0``; no bytes are its end.

        Raises NotFound for a replica that is not there, and Conflict for a job that takes no
        input or is over.
        """
        view = await self.get(job_id)
        job = view.job
        if job.state.is_end:
            raise Ended(f"job {job.id} ended already: {job.headline}")
        if not job.launch.pdb:
            raise Conflict(f"job {job.id} takes no input; run it with --pdb")
        found = next((each for each in view.replicas if each.name == replica), None)
        if found is None:
            there_is = ", ".join(each.name for each in view.replicas) or "none yet"
            raise NotFound(f"job {job.id} has no replica {replica!r}; it has {there_is}")
        await self._inventory.executor(found.host).write_input(found.id, data)
        return view

    def _draft(
        self,
        owner: str,
        launch: Launch,
        groups: Sequence[SlotGroup],
        name: str,
        length: timedelta | None,
        wishes: Wishes,
        *,
        is_admin: bool,
    ) -> Lease:
        if launch.pdb:
            raise InvalidRequest(
                "--pdb needs a debug gang, whose replicas take input: "
                "hold one with `nimbus debug start` and run on it"
            )
        groups = _accepted(launch, groups)
        return self._leases.draft(
            LeaseKind.JOB,
            owner,
            groups,
            name=name or job_name(launch),
            environment=launch.environment,
            length=length,
            wishes=wishes,
            is_admin=is_admin,
        )


def with_framework(launch: Launch, imports: Collection[str]) -> Launch:
    """Return a launch for the framework whose modules its script imports, if it imports any."""
    found = detected(imports)
    if not found:
        return launch
    (framework, module), *others = found
    reason = f"{script_of(launch)} imports {module}"
    if others:
        named = " or ".join(f"--framework {name}" for name, _ in others)
        reason += f"; it imports {' and '.join(other for _, other in others)}, too: {named}"
    return replace(launch, framework=framework, framework_reason=reason)


def _accepted(launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
    """Return the slots a job takes; a refusal says where its framework came from."""
    try:
        return master(launch.framework).accept(launch, groups)
    except InvalidRequest as error:
        if not launch.framework_reason:
            raise
        raise InvalidRequest(
            f"{error.message} (framework {launch.framework} was chosen because "
            f"{launch.framework_reason}; choose another with --framework, like script)"
        ) from error


def script_of(launch: Launch) -> str:
    """Return the script that is run, or the program."""
    words = launch.argv
    return one_line(next((word for word in words if word.endswith((".py", ".sh"))), words[0]))


def job_name(launch: Launch) -> str:
    """Return the script's name without its ending, or the program's."""
    script = script_of(launch)
    name = script.rpartition("/")[2].rpartition(".")[0] or script or "job"
    return name[:_LONGEST_NAME]
