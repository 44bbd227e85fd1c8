"""Jobs over HTTP."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nimbus_hub.api import requests, schemas
from nimbus_hub.api.handler import ApiHandler, Operation, Query
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.leases import IS_LIVE, WaitQuery
from nimbus_hub.api.views import job_view, plan_view, slot_groups, wishes_of
from nimbus_hub.control.bus import Change, deadline
from nimbus_hub.control.jobs import JobView, with_framework
from nimbus_hub.errors import InvalidRequest, NotFound
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.quantities import parse_duration
from nimbus_hub.model.request import read_stall
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.decisions import Preview

__all__ = [
    "InputHandler",
    "JobBase",
    "JobHandler",
    "JobsHandler",
    "ProgressHandler",
    "StopHandler",
]


class ListQuery(Query):
    """Which jobs to list; ``gang`` is the lease of a debug gang they run on."""

    state: Literal["live", "ended", "all"] = "live"
    gang: str | None = None
    limit: int = Field(default=100, ge=1, le=1000)


class SubmitQuery(Query):
    """Whether to tell only what would happen."""

    dry_run: bool = False


class JobBase(ApiHandler):
    """What the handlers of jobs share."""

    async def own(self, job_id: str) -> JobView:
        """Return a job the caller may reach; raise NotFound."""
        if self.caller.job_id not in (None, job_id):
            raise NotFound(f"there is no job {job_id} for the token of {self.caller.job_id}")
        return await self.services.control.jobs.get(job_id, self.owner)

    async def own_left(self, job_id: str) -> JobView:
        """Return such a job with its files and output; raise Deleted if they were deleted."""
        view = await self.own(job_id)
        view.job.check_left()
        return view


class JobsHandler(JobBase):
    """The jobs of the caller; an administrator's: of everybody."""

    operations = {
        "get": Operation("List jobs", Scope.READ, schemas.JobList, query=ListQuery),
        "post": Operation(
            "Submit a job",
            Scope.USE,
            schemas.Job,
            status=201,
            body=requests.JobRequest,
            query=SubmitQuery,
            also={200: schemas.Plan},
        ),
    }

    async def get(self) -> None:
        """List jobs, newest first."""
        query = self.parse_query(ListQuery)
        control = self.services.control
        jobs = await control.records.read(
            control.records.store.jobs,
            owner=self.owner,
            is_live=IS_LIVE[query.state],
            limit=query.limit,
            lease_id=query.gang,
            is_holder=False,
        )
        views = [await control.jobs.view(job) for job in jobs]
        self.reply(schemas.JobList(items=[job_view(view) for view in views]))

    async def post(self) -> None:
        """Submit a job, or tell where it would run."""
        dry_run = self.parse_query(SubmitQuery).dry_run
        request = self.parse_body(requests.JobRequest)
        ask = self._submit if request.gang is None else self._run
        launch, answer = await ask(request, dry_run=dry_run)
        if isinstance(answer, JobView):
            self.reply(job_view(answer))
        else:
            hosts = self.services.control.inventory.hosts
            self.reply(plan_view(answer, launch, hosts, is_admin=self.caller.is_admin), 200)

    async def _submit(
        self, request: requests.JobRequest, *, dry_run: bool
    ) -> tuple[Launch, JobView | Preview]:
        """Have a job wait for a lease of its own."""
        jobs = self.services.control.jobs
        ask = jobs.plan if dry_run else jobs.submit
        launch = _launch(request, Launch(()))
        if request.framework is None:
            launch = with_framework(launch, request.imports)
        return launch, await ask(
            self.caller.name,
            launch,
            slot_groups(request.groups or [requests.GroupRequest()]),
            name=request.name,
            length=None if request.duration is None else parse_duration(request.duration),
            wishes=wishes_of(request),
            is_admin=self.caller.is_admin,
        )

    async def _run(
        self, request: requests.JobRequest, *, dry_run: bool
    ) -> tuple[Launch, JobView | Preview]:
        """Run a job on a debug gang of the caller's own, also if that is an administrator."""
        gangs = self.services.control.gangs
        gang = await gangs.find(request.gang or "", self.caller.name)
        if request.duration is not None:
            raise InvalidRequest(
                f"a run on gang {gang.lease.id} has no duration of its own, got "
                f"{request.duration!r}; leave it out, or submit the job without a gang"
            )
        if wishes_of(request) != Wishes():
            raise InvalidRequest(
                f"where and when a run is, gang {gang.lease.id} has settled; leave out "
                "queue, priority, data and the like, or submit the job without a gang"
            )
        launch = _launch(request, gang.holder.launch)
        groups = None if request.groups is None else slot_groups(request.groups)
        if dry_run:
            return launch, gangs.plan(gang, launch, groups)
        return launch, await gangs.submit(gang, launch, groups, name=request.name)


class JobHandler(JobBase):
    """One job."""

    operations = {
        "get": Operation("Show a job", Scope.READ, schemas.Job, query=WaitQuery, for_jobs=True),
        "delete": Operation("Delete what a job left", Scope.USE, schemas.Job),
    }

    async def delete(self, job_id: str) -> None:
        """Have files and output of a job that is over deleted; its record stays."""
        view = await self.own(job_id)
        control = self.services.control
        job = await control.retention.delete(view.job.id, f"deleted by {self.caller.name}")
        self.reply(job_view(await control.jobs.view(job)))

    async def get(self, job_id: str) -> None:
        """Show a job, at once or when it or its lease changed."""
        query = self.parse_query(WaitQuery)
        shown = job_view(await self.own(job_id))

        def wanted(change: Change) -> bool:
            # A job that is queued again has another lease than the one it was asked for with.
            return isinstance(change, (Job, Lease)) and change.id in (job_id, shown.lease_id)

        with self.services.control.bus.subscribe(wanted) as changes:
            shown = job_view(await self.own(job_id))
            left = deadline(query.timeout)
            # News may be older than what was just read: only the version counts.
            while query.after is not None and shown.version <= query.after:
                if await changes.get(left()) is None:
                    break
                shown = job_view(await self.own(job_id))
        self.reply(shown)


class StopHandler(JobBase):
    """Stopping."""

    operations = {"post": Operation("Stop a job", Scope.USE, schemas.Job, body=requests.EndRequest)}

    async def post(self, job_id: str) -> None:
        """Ask for the end of a job."""
        request = self.parse_body(requests.EndRequest)
        view = await self.own(job_id)
        reason = request.reason or f"stopped by {self.caller.name}"
        self.reply(job_view(await self.services.control.jobs.stop(view.job.id, reason)))


class InputHandler(JobBase):
    """Standard input."""

    operations = {
        "post": Operation(
            "Write to a replica's input", Scope.USE, schemas.Job, body=requests.InputRequest
        )
    }

    async def post(self, job_id: str) -> None:
        """Write text to the standard input of a replica that takes some."""
        request = self.parse_body(requests.InputRequest)
        view = await self.own(job_id)
        jobs = self.services.control.jobs
        data = request.text.encode(errors="replace")
        self.reply(job_view(await jobs.write_input(view.job.id, request.replica, data)))


class ProgressHandler(JobBase):
    """How far a job is."""

    operations = {
        "post": Operation(
            "Report progress",
            Scope.USE,
            schemas.Job,
            body=requests.ProgressRequest,
            for_jobs=True,
        )
    }

    async def post(self, job_id: str) -> None:
        """Record how far a job is."""
        request = self.parse_body(requests.ProgressRequest)
        view = await self.own(job_id)
        jobs = self.services.control.jobs
        self.reply(job_view(await jobs.report(view.job.id, request.fraction, request.message)))


def _launch(request: requests.JobRequest, default: Launch) -> Launch:
    """Return what is to run; what the request leaves open is as in ``default``."""
    return Launch(
        argv=tuple(request.argv),
        framework=default.framework if request.framework is None else request.framework,
        env=request.env,
        snapshot=request.snapshot,
        environment=default.environment if request.environment is None else request.environment,
        retries=request.retries,
        pdb=request.pdb,
        options=request.options,
        stall_seconds=None if request.stall is None else read_stall(request.stall),
    )
