"""What the runner has before it when it takes a job a step further."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple, Self

from nimbus_hub.control.gangs import is_warm
from nimbus_hub.control.requeue import TAKEN, is_taken
from nimbus_hub.masters.base import Master, Outcome, Verdict
from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.store.store import JobRecord

__all__ = ["Work"]

_SETTLE = timedelta(seconds=1)


class Work(NamedTuple):
    """A job, its lease, and the replicas of its current attempt.

    For a run on a debug gang ``holder`` is the job that holds that; for such a job ``run`` is
    the run that is under way.
    """

    job: Job
    lease: Lease
    replicas: tuple[Replica, ...]
    holder: Job | None = None
    run: Job | None = None

    @classmethod
    def of(cls, record: JobRecord) -> Self:
        """Return the work there is on a job as it is recorded."""
        job, lease, replicas, holder, run = record
        if not job.is_holder:
            return cls(job, lease, replicas, holder)
        return cls(job, lease, replicas, None, None if run is None or run.state.is_end else run)

    @property
    def is_in_use(self) -> bool:
        """Tell whether a run has begun on the replicas of this job and is not over."""
        return self.run is not None and self.run.state is not JobState.QUEUED

    @property
    def may_begin(self) -> bool:
        """Tell whether the job may have its replicas."""
        if self.holder is not None:
            return is_warm(self.lease, self.holder)
        return self.lease.state is LeaseState.GRANTED

    @property
    def is_over(self) -> bool:
        """Tell whether the lease has ended or is to."""
        return self.lease.target is not None or self.lease.state.is_end

    def job_agreed(self) -> Job:
        """Return the job, asked to end if its lease ends; what is lost with it was no stop."""
        job, lease = self.job, self.lease
        if job.target is not None or not self.is_over or is_taken(lease):
            return job
        if lease.kind is LeaseKind.DEBUG and (lease.target or lease.state) in TAKEN:
            return replace(job, target=JobState.FAILED, reason=lease.reason)
        return job.stopping(lease.reason)

    def lease_agreed(self, now: datetime) -> Lease:
        """Return the lease, asked to end if the job that keeps a gang is to end."""
        job = self.job
        if not job.is_holder or job.target is None or self.is_over:
            return self.lease
        if job.target is JobState.FAILED:
            reason = f"its warm replicas failed: {job.headline}"
            return self.lease.ending(LeaseState.LOST, reason, now)
        return self.lease.ending(LeaseState.RELEASED, job.headline, now)

    def judged(self, replicas: Sequence[Replica], rules: Master) -> Verdict:
        """Return how the job stands by its replicas, as they were by themselves."""
        seen = _by_themselves(replicas, self.lease)
        if self.job.fault:
            return Verdict(Outcome.FAILED)
        if not self.job.is_holder:
            return rules.judge(self.job, seen)
        # A warm replica has nothing to succeed in.
        gone = next((replica for replica in seen if replica.state.is_end), None)
        return Verdict(Outcome.RUNNING) if gone is None else Verdict(Outcome.FAILED, gone)

    def is_settling(self, verdict: Verdict, replicas: Sequence[Replica], now: datetime) -> bool:
        """Tell whether to wait a little for the others before a failed attempt is ended.

        A peer may see a replica fail, and end, before that itself has ended: only then it is
        known which was first. Nor is what the others have to say of it cut off.
        """
        ends = [replica.ended_at for replica in replicas if replica.ended_at is not None]
        is_asked = self.is_over or self.job.target is not None
        if self.job.is_holder or is_asked or verdict.outcome is not Outcome.FAILED or not ends:
            return False
        return len(ends) < len(replicas) and now < min(ends) + _SETTLE


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
