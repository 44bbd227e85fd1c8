"""The runner: takes one job one step further, from how it stands to how it should.

Each step starts from the records and the executors' word, so a step that was cut off by a
crash is simply done again: nothing is remembered here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from nimbus_hub.control.absences import Absences
from nimbus_hub.control.blame import Blame, how
from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.leftovers import Leftovers
from nimbus_hub.control.metrics import Metrics
from nimbus_hub.control.outages import Outages
from nimbus_hub.control.records import Records
from nimbus_hub.control.requeue import is_taken, requeued
from nimbus_hub.control.settings import Settings
from nimbus_hub.control.specs import attempt_replicas, replacement, replica_spec
from nimbus_hub.control.stalls import Stalls
from nimbus_hub.control.tokens import new_id
from nimbus_hub.control.work import Work
from nimbus_hub.errors import InvalidRequest, NimbusError, Unavailable
from nimbus_hub.executors.base import Executor
from nimbus_hub.masters.base import Master, Outcome, Verdict
from nimbus_hub.masters.registry import master
from nimbus_hub.masters.script import ScriptMaster
from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.quantities import format_duration
from nimbus_hub.model.replica import REPLICA_MOVES, Replica, ReplicaState, ReplicaStatus

__all__ = ["Runner"]

log = logging.getLogger(__name__)


class Runner:
    """Drives jobs: starts attempts, watches replicas, ends what is over."""

    def __init__(
        self,
        records: Records,
        inventory: Inventory,
        settings: Settings,
        absences: Absences,
        leftovers: Leftovers,
        outages: Outages,
        stalls: Stalls,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._inventory = inventory
        self._settings = settings
        self._absences = absences
        self._leftovers = leftovers
        self._outages = outages
        self._stalls = stalls
        self._metrics = metrics
        self._blame = Blame(inventory)

    async def step(self, job: Job) -> None:
        """Take a job one step further; raise Conflict if it was written meanwhile."""
        record = await self._records.job_record(job.id)
        if record.job.state.is_end:
            return
        work = await self._agreed(Work.of(record))
        job, lease = work.job, work.lease
        if job.state is not JobState.QUEUED:
            await self._run(work)
        elif job.target is not None:
            await self._finish(work, JobState.STOPPED, job.reason)
        elif is_taken(lease):
            await self._requeue(job, lease)
        elif work.may_begin:
            await self._run(await self._begin(work))

    async def _agreed(self, work: Work) -> Work:
        """Have a job end with its lease, and the lease of a gang with the job that holds it."""
        job, lease = work.job_agreed(), work.lease_agreed(self._records.clock.now())
        if job is not work.job:
            (job,) = await self._records.save(job)
        if lease is not work.lease:
            (lease,) = await self._records.save(lease)
        return work._replace(job=job, lease=lease)

    async def _run(self, work: Work) -> None:
        """Bring the replicas of a job that has its slots to how they should be."""
        job = work.job
        try:
            rules = _master(job)
        except NimbusError as error:
            await self._give_up(job, error.message)
            return
        job, replicas = await self._observe(work, rules)
        try:
            verdict = work.judged(replicas, rules)
        except Exception as error:
            log.exception("job %s cannot be judged", job.id)
            await self._give_up(job, _failed_in(job, error))
            return
        await self._decide(work._replace(job=job), replicas, verdict)

    async def _begin(self, work: Work) -> Work:
        job, lease = work.job, work.lease
        now = self._records.clock.now()
        # Why it starts again is still news then.
        reason = job.reason if job.attempt > 1 else ""
        job = job.moved(JobState.STARTING, started_at=now, reason=reason)
        replicas = attempt_replicas(job, lease)
        if work.holder is None:
            job, lease = await self._records.save(job, lease.activated(now), new=replicas)
        else:
            (job,) = await self._records.save(job, new=replicas)
        log.info("job %s starting on %s", job.id, ", ".join({slot.host for slot in lease.slots}))
        return work._replace(job=job, lease=lease, replicas=replicas)

    async def _observe(self, work: Work, rules: Master) -> tuple[Job, tuple[Replica, ...]]:
        """Start what is not started, and record what the executors tell."""
        job, replicas = work.job, work.replicas
        seen = await asyncio.gather(*(self._see(work, replica, rules) for replica in replicas))
        changed = [after for before, after in zip(replicas, seen, strict=True) if after != before]
        # The executors may have taken long, and jobs tell their progress meanwhile: without
        # another look one that reports often would never get past its Conflicts.
        job = self._records.known_job(job.id) or job
        if changed:
            (saved, *_) = await self._records.save(job, *changed)
            job = saved if isinstance(saved, Job) else job
            for replica in changed:
                log.info("replica %s %s %s", replica.id, replica.state, replica.reason)
        return job, tuple(seen)

    async def _see(self, work: Work, replica: Replica, rules: Master) -> Replica:
        if replica.state.is_end:
            return replica
        # Not before its lease is asked to end for it: till then it would be a failed attempt.
        is_ending = work.lease.target is not None
        given_up = self._absences.reason(replica.host) if is_ending else ""
        if given_up and self._inventory.has_left(replica.host):
            await self._abandon(replica)
            return self._gone(replica, ReplicaState.LOST, given_up)
        is_silent = False
        try:
            executor = self._inventory.executor(replica.host)
            seen = await self._ask(executor, work, replica, rules)
        except Unavailable as error:
            log.warning("replica %s: %s", replica.id, error)
            is_silent = True
            # Till it runs, people wait for it and want to know why.
            is_running = replica.state is ReplicaState.RUNNING
            seen = replica if is_running else replace(replica, reason=error.message)
        except NimbusError as error:
            # Refused: asking again would not help.
            return self._gone(replica, ReplicaState.EXITED, error.message)
        runs = seen.state is ReplicaState.RUNNING and not is_silent
        if given_up and not runs and not seen.state.is_end:
            # An executor may tell how far it was with a start, and not that its host is away.
            await self._stop(replica)
            self._leftovers.add(replica)
            return self._gone(replica, ReplicaState.LOST, given_up)
        return seen

    async def _ask(
        self, executor: Executor, work: Work, replica: Replica, rules: Master
    ) -> Replica:
        """Return the replica as its executor tells; start it if that was not done."""
        job, lease = work.job, work.lease
        is_new = replica.state is ReplicaState.CREATED
        is_ending = job.target is not None or lease.target is not None
        if not is_new or is_ending:
            status = await executor.poll(replica.id)
            if status.state is not ReplicaState.CREATED:
                return _updated(replica, status)
            if replica.state is ReplicaState.RUNNING:
                reason = "its host knows nothing of it any more"
                return self._gone(replica, ReplicaState.LOST, reason)
            if is_ending:
                return replica
            # Asked to start by a service that was killed before the executor had done it.
        try:
            spec = replica_spec(job, lease, replica, rules, self._settings, work.holder)
        except Exception as error:
            log.exception("replica %s cannot be specified", replica.id)
            raise InvalidRequest(_failed_in(job, error)) from error
        await executor.start(spec)
        return _updated(replica, await executor.poll(replica.id))

    async def _abandon(self, replica: Replica) -> None:
        """Ask everybody to stop a replica of whose host nobody knows any more."""
        self._leftovers.add(replica)
        for executor in self._inventory.executors:
            try:
                await executor.stop(replica.id, self._settings.stop_grace.total_seconds())
            except NimbusError as error:
                log.warning("replica %s may go on: %s", replica.id, error)

    def _gone(self, replica: Replica, state: ReplicaState, reason: str) -> Replica:
        return replace(replica, state=state, reason=reason, ended_at=self._records.clock.now())

    async def _decide(self, work: Work, replicas: Sequence[Replica], verdict: Verdict) -> None:
        job, lease = work.job, work.lease
        taken = job.target is None and is_taken(lease)
        if job.target is None and not taken and verdict.outcome is Outcome.RUNNING:
            if verdict.replace:
                await self._replace(job, verdict.replace)
            elif job.state is JobState.RUNNING:
                await self._look_for_life(job, replicas)
            else:
                await self._note_running(job, replicas)
            return
        if work.is_settling(verdict, replicas, self._records.clock.now()):
            return
        if work.is_in_use:
            return
        alive = [replica for replica in replicas if not replica.state.is_end]
        if alive:
            await asyncio.gather(*(self._stop(replica) for replica in alive))
        elif job.target is not None:
            await self._finish(work, job.target, job.reason)
        elif verdict.outcome is Outcome.SUCCEEDED:
            await self._finish(work, JobState.SUCCEEDED, "")
        elif verdict.outcome is Outcome.FAILED:
            reason = job.fault or await self._blame.words(verdict.culprit, replicas)
            if job.attempt < job.attempts:
                lease = lease if taken else await self._left(lease, verdict.culprit)
                await (self._requeue if is_taken(lease) else self._retry)(job, lease, reason)
            elif job.is_holder:
                await self._give_up(job, reason)
            else:
                await self._finish(work, JobState.FAILED, reason)
        elif lease.target is LeaseState.PREEMPTED or job.attempt < job.attempts:
            await self._requeue(job, lease)
        else:
            await self._finish(work, JobState.FAILED, lease.reason)

    async def _replace(self, job: Job, ended: Sequence[Replica]) -> None:
        """Start some of a job's replicas again, alone."""
        new = [replacement(replica) for replica in ended]
        await self._records.save(job, new=new)
        for replica in ended:
            log.info("replica %s %s and is replaced", replica.id, how(replica))

    async def _note_running(self, job: Job, replicas: Sequence[Replica]) -> None:
        """Record that a gang is complete, or that it is not in time."""
        missing = [
            replica
            for replica in replicas
            if replica.state is not ReplicaState.RUNNING and not replica.state.is_end
        ]
        if not missing:
            await self._records.save(job.moved(JobState.RUNNING))
            log.info("job %s running", job.id)
        elif job.started_at and self._records.clock.now() >= self._start_by(job.started_at):
            names = ", ".join(replica.name for replica in missing)
            late = format_duration(self._settings.start)
            why = next((f": {each.reason}" for each in missing if each.reason), "")
            await self._give_up(job, f"{names} did not start within {late}{why}")

    async def _look_for_life(self, job: Job, replicas: Sequence[Replica]) -> None:
        """Record that a running job is silent, that it is not any more, or that it stalled."""
        seen = await self._stalls.look(job, replicas)
        if seen != job:
            await self._records.save(seen)
            log.info("job %s %s", job.id, seen.fault or seen.note or "is heard of again")

    def _start_by(self, started_at: datetime) -> datetime:
        """Return when the replicas of a job are not waited for any longer."""
        return self._outages.since(started_at) + self._settings.start

    async def _give_up(self, job: Job, reason: str) -> None:
        """Record that a job shall end as failed, whatever attempts are left."""
        await self._records.save(replace(job, target=JobState.FAILED, reason=reason))
        log.info("job %s is given up: %s", job.id, reason)

    async def _stop(self, replica: Replica) -> None:
        try:
            executor = self._inventory.executor(replica.host)
            await executor.stop(replica.id, self._settings.stop_grace.total_seconds())
        except Unavailable as error:
            log.warning("replica %s cannot be stopped yet: %s", replica.id, error)

    async def _retry(self, job: Job, lease: Lease, reason: str) -> None:
        again = job.moved(
            JobState.STARTING,
            attempt=job.attempt + 1,
            started_at=self._records.clock.now(),
            progress=None,
            progress_message="",
            note="",
            fault="",
            reason=f"attempt {job.attempt} of {job.attempts} failed: {reason}",
        )
        await self._records.save(again, new=attempt_replicas(again, lease))
        log.info("job %s attempt %d of %d", job.id, again.attempt, again.attempts)

    async def _left(self, lease: Lease, culprit: Replica | None) -> Lease:
        """Return a lease given up if a replica could not start on a host that takes none now."""
        if culprit is None or culprit.exit_code is not None or culprit.started_at is not None:
            return lease
        await self._inventory.refresh()
        reason = self._inventory.refusal(culprit.host)
        if lease.kind is not LeaseKind.JOB or not reason:
            return lease
        return lease.ending(LeaseState.LOST, reason, self._records.clock.now())

    async def _requeue(self, job: Job, lease: Lease, failure: str = "") -> None:
        """Have a job whose lease was taken away wait for another."""
        again, over, waiting = requeued(job, lease, new_id("l"), self._records.clock.now(), failure)
        await self._records.save(again, over, new=[waiting])
        self._metrics.requeues.labels(cause=over.state.value).inc()
        log.info("job %s queued again with lease %s: %s", job.id, waiting.id, again.headline)

    async def _finish(self, work: Work, state: JobState, reason: str) -> None:
        """Record that a job is over, and with it its lease; that of a gang at the very last."""
        if work.run is not None:
            return
        job, lease = work.job, work.lease
        now = self._records.clock.now()
        ended = job.ended(state, reason, now)
        if lease.state.is_end or work.holder is not None:
            await self._records.save(ended)
        else:
            over = LeaseState.RELEASED if lease.state.is_holding else LeaseState.CANCELLED
            await self._records.save(ended, lease.ended(over, f"job {ended.state}", now))
        log.info("job %s %s %s", job.id, ended.state, reason)


def _master(job: Job) -> Master:
    """Return the job's master; to end one that is stopping takes none, however broken."""
    return ScriptMaster() if job.target is not None else master(job.launch.framework)


def _failed_in(job: Job, error: Exception) -> str:
    """Say what a master raised: it may be a plug-in, which fails in any way it likes."""
    if isinstance(error, NimbusError):
        return error.message
    return f"framework {job.launch.framework!r} failed with {type(error).__name__}: {error}"


def _updated(replica: Replica, status: ReplicaStatus) -> Replica:
    """Return the replica as the executor tells, if it may be so from where it was."""
    if status.state is not replica.state and status.state not in REPLICA_MOVES[replica.state]:
        return replica
    return replace(
        replica,
        state=status.state,
        exit_code=status.exit_code,
        reason=status.reason or _still(replica, status),
        directory=status.directory or replica.directory,
        # Once: as the service's clock follows the host's, the same moment is told anew.
        started_at=replica.started_at or status.started_at,
        ended_at=status.ended_at or replica.ended_at,
    )


def _still(replica: Replica, status: ReplicaStatus) -> str:
    """Return why a replica did not start when it was last tried, if it still does not run."""
    is_past = replica.state is ReplicaState.PULLING and status.state is not ReplicaState.PULLING
    is_waiting = status.state in (ReplicaState.CREATED, ReplicaState.PULLING, ReplicaState.STARTING)
    return replica.reason if is_waiting and not is_past else ""
