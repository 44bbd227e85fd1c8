"""The runner: takes one job one step further, from how it stands to how it should.

Each step starts from the records and the executors' word, so a step that was cut off by a
crash is simply done again: nothing is remembered here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from nimbus_hub.control.absences import Absences
from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.leftovers import Leftovers
from nimbus_hub.control.metrics import Metrics
from nimbus_hub.control.records import Records
from nimbus_hub.control.requeue import TAKEN, requeued
from nimbus_hub.control.settings import Settings
from nimbus_hub.control.specs import attempt_replicas, replica_spec
from nimbus_hub.control.tokens import new_id
from nimbus_hub.errors import InvalidRequest, NimbusError, Unavailable
from nimbus_hub.executors.base import Executor
from nimbus_hub.masters.base import Master, Outcome, Verdict
from nimbus_hub.masters.registry import master
from nimbus_hub.masters.script import ScriptMaster
from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import Lease, LeaseState
from nimbus_hub.model.quantities import format_duration
from nimbus_hub.model.replica import REPLICA_MOVES, Replica, ReplicaState, ReplicaStatus
from nimbus_hub.model.text import one_line

__all__ = ["Runner"]

log = logging.getLogger(__name__)

_LAST_LINES = 5
_TAIL_BYTES = 4096


class Runner:
    """Drives jobs: starts attempts, watches replicas, ends what is over."""

    def __init__(
        self,
        records: Records,
        inventory: Inventory,
        settings: Settings,
        absences: Absences,
        leftovers: Leftovers,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._inventory = inventory
        self._settings = settings
        self._absences = absences
        self._leftovers = leftovers
        self._metrics = metrics

    async def step(self, job: Job) -> None:
        """Take a job one step further; raise Conflict if it was written meanwhile."""
        job = await self._records.job(job.id)
        if job.state.is_end:
            return
        lease = await self._records.lease(job.lease_id)
        is_over = lease.target is not None or lease.state.is_end
        if job.target is None and is_over and lease.target not in TAKEN:
            (job,) = await self._records.save(job.stopping(lease.reason))
        if job.state is JobState.QUEUED:
            if job.target is not None:
                await self._finish(job, lease, JobState.STOPPED, job.reason)
            elif lease.target in TAKEN:
                await self._requeue(job, lease)
            elif lease.state is LeaseState.GRANTED:
                await self._run(*await self._begin(job, lease))
        else:
            await self._run(job, lease)

    async def _run(self, job: Job, lease: Lease) -> None:
        """Bring the replicas of a job that has its slots to how they should be."""
        try:
            gang = _master(job)
        except NimbusError as error:
            await self._give_up(job, error.message)
            return
        replicas = await self._records.replicas(job.id, job.attempt)
        job, replicas = await self._observe(job, lease, replicas, gang)
        try:
            verdict = gang.judge(_by_themselves(replicas, lease))
        except Exception as error:
            log.exception("job %s cannot be judged", job.id)
            await self._give_up(job, _failed_in(job, error))
            return
        await self._decide(job, lease, replicas, verdict)

    async def _begin(self, job: Job, lease: Lease) -> tuple[Job, Lease]:
        now = self._records.clock.now()
        # Why it starts again is still news then.
        reason = job.reason if job.attempt > 1 else ""
        starting = job.moved(JobState.STARTING, started_at=now, reason=reason)
        saved = await self._records.save(
            starting, lease.activated(now), new=attempt_replicas(starting, lease)
        )
        log.info("job %s starting on %s", job.id, ", ".join({slot.host for slot in lease.slots}))
        return saved

    async def _observe(
        self, job: Job, lease: Lease, replicas: Sequence[Replica], gang: Master
    ) -> tuple[Job, tuple[Replica, ...]]:
        """Start what is not started, and record what the executors tell."""
        seen = await asyncio.gather(*(self._see(job, lease, replica, gang) for replica in replicas))
        changed = [after for before, after in zip(replicas, seen, strict=True) if after != before]
        # The executors may have taken long, and jobs tell their progress meanwhile: without
        # another look one that reports often would never get past its Conflicts.
        job = await self._records.job(job.id)
        if changed:
            (saved, *_) = await self._records.save(job, *changed)
            job = saved if isinstance(saved, Job) else job
            for replica in changed:
                log.info("replica %s %s %s", replica.id, replica.state, replica.reason)
        return job, tuple(seen)

    async def _see(self, job: Job, lease: Lease, replica: Replica, gang: Master) -> Replica:
        if replica.state.is_end:
            return replica
        # Not before its lease is asked to end for it: till then it would be a failed attempt.
        given_up = self._absences.reason(replica.host) if lease.target is not None else ""
        if given_up and self._inventory.has_left(replica.host):
            await self._abandon(replica)
            return self._gone(replica, ReplicaState.LOST, given_up)
        try:
            executor = self._inventory.executor(replica.host)
            return await self._ask(executor, job, lease, replica, gang)
        except Unavailable as error:
            if given_up:
                self._leftovers.add(replica)
                return self._gone(replica, ReplicaState.LOST, given_up)
            log.warning("replica %s: %s", replica.id, error)
            return replica
        except NimbusError as error:
            # Refused: asking again would not help.
            return self._gone(replica, ReplicaState.EXITED, error.message)

    async def _ask(
        self, executor: Executor, job: Job, lease: Lease, replica: Replica, gang: Master
    ) -> Replica:
        """Return the replica as its executor tells; start it if that was not done."""
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
            spec = replica_spec(job, lease, replica, gang, self._settings)
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

    async def _decide(
        self, job: Job, lease: Lease, replicas: Sequence[Replica], verdict: Verdict
    ) -> None:
        is_taken = job.target is None and lease.target in TAKEN
        if job.target is None and not is_taken and verdict.outcome is Outcome.RUNNING:
            await self._note_running(job, replicas)
            return
        alive = [replica for replica in replicas if not replica.state.is_end]
        if alive:
            await asyncio.gather(*(self._stop(replica) for replica in alive))
        elif job.target is not None:
            await self._finish(job, lease, job.target, job.reason)
        elif verdict.outcome is Outcome.SUCCEEDED:
            await self._finish(job, lease, JobState.SUCCEEDED, "")
        elif verdict.outcome is Outcome.FAILED:
            reason = await self._blame(verdict.culprit, replicas)
            if job.attempt >= job.attempts:
                await self._finish(job, lease, JobState.FAILED, reason)
            elif is_taken:
                await self._requeue(job, lease, reason)
            else:
                await self._retry(job, lease, reason)
        elif lease.target is LeaseState.PREEMPTED or job.attempt < job.attempts:
            await self._requeue(job, lease)
        else:
            await self._finish(job, lease, JobState.FAILED, lease.reason)

    async def _note_running(self, job: Job, replicas: Sequence[Replica]) -> None:
        """Record that a gang is complete, or that it is not in time."""
        if job.state is not JobState.STARTING:
            return
        missing = [
            replica.name
            for replica in replicas
            if replica.state is not ReplicaState.RUNNING and not replica.state.is_end
        ]
        if not missing:
            await self._records.save(job.moved(JobState.RUNNING))
            log.info("job %s running", job.id)
        elif job.started_at and self._records.clock.now() >= job.started_at + self._settings.start:
            late = format_duration(self._settings.start)
            await self._give_up(job, f"{', '.join(missing)} did not start within {late}")

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
            reason=f"attempt {job.attempt} of {job.attempts} failed: {reason}",
        )
        await self._records.save(again, new=attempt_replicas(again, lease))
        log.info("job %s attempt %d of %d", job.id, again.attempt, again.attempts)

    async def _requeue(self, job: Job, lease: Lease, failure: str = "") -> None:
        """Have a job whose lease was taken away wait for another."""
        again, over, waiting = requeued(job, lease, new_id("l"), self._records.clock.now(), failure)
        await self._records.save(again, over, new=[waiting])
        self._metrics.requeues.labels(cause=over.state.value).inc()
        log.info("job %s queued again with lease %s: %s", job.id, waiting.id, again.headline)

    async def _finish(self, job: Job, lease: Lease, state: JobState, reason: str) -> None:
        now = self._records.clock.now()
        ended = job.ended(state, reason, now)
        if lease.state.is_end:
            await self._records.save(ended)
        else:
            over = LeaseState.RELEASED if lease.state.is_holding else LeaseState.CANCELLED
            await self._records.save(ended, lease.ended(over, f"job {ended.state}", now))
        log.info("job %s %s %s", job.id, ended.state, reason)

    async def _blame(self, culprit: Replica | None, replicas: Sequence[Replica]) -> str:
        """Return which replica failed, how, and its last lines."""
        if culprit is None:
            return "the job failed"
        others = "; the others were stopped" if len(replicas) > 1 else ""
        sentence = f"{culprit.name} on {culprit.host} {_how(culprit)}{others}"
        lines = await self._last_lines(culprit)
        return "\n  ".join([f"{sentence}. Its last lines:", *lines]) if lines else sentence

    async def _last_lines(self, replica: Replica) -> list[str]:
        try:
            executor = self._inventory.keeper(replica.host)
            chunk = await executor.read_output(replica.id, -_TAIL_BYTES, _TAIL_BYTES)
        except Unavailable:
            return []
        text = chunk.data.decode(errors="replace")
        # Others read the reason in a terminal: what a program printed must not act there.
        lines = map(one_line, text.splitlines())
        return [line for line in lines if line][-_LAST_LINES:]


def _by_themselves(replicas: Sequence[Replica], lease: Lease) -> Sequence[Replica]:
    """Return replicas as they were when the lease was taken from them, if it was.

    How they end after that says nothing of the job: one that saves its state and exits with
    0 when asked to end has not succeeded.
    """
    since = lease.ending_at
    if lease.target not in TAKEN or since is None:
        return replicas
    return [
        replica
        if replica.ended_at is None or replica.ended_at < since
        else replace(replica, state=ReplicaState.RUNNING, exit_code=None, ended_at=None)
        for replica in replicas
    ]


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
        reason=status.reason or replica.reason,
        directory=status.directory or replica.directory,
        started_at=status.started_at or replica.started_at,
        ended_at=status.ended_at or replica.ended_at,
    )


def _how(replica: Replica) -> str:
    """Say how a replica ended."""
    if replica.state is ReplicaState.LOST:
        return f"was lost: {replica.reason}"
    if replica.exit_code is None:
        return f"did not run: {replica.reason}" if replica.reason else "did not run"
    code = replica.exit_code
    ended = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
    return f"{ended} ({replica.reason})" if replica.reason else ended
