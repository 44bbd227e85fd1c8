"""Requeueing: a job whose slots were taken away waits for others, under a new lease."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState

__all__ = ["TAKEN", "Requeued", "is_taken", "requeued"]

TAKEN = frozenset({LeaseState.PREEMPTED, LeaseState.LOST})
"""The ends of a job's lease that are no end of the job."""

_HOW = {LeaseState.PREEMPTED: "was preempted", LeaseState.LOST: "was lost"}


class Requeued(NamedTuple):
    """What is written together: the job, its lease that is over, and the one it waits for."""

    job: Job
    over: Lease
    waiting: Lease


def is_taken(lease: Lease) -> bool:
    """Tell whether the job of a lease is to wait for another one.

    A debug gang is not asked for again by itself: who held it may be at something else by then.
    """
    return lease.kind is LeaseKind.JOB and lease.target in TAKEN


def requeued(job: Job, lease: Lease, new_id: str, now: datetime, failure: str = "") -> Requeued:
    """Return a job queued again after its lease was taken away and its replicas are gone.

    The new lease keeps the place in the queue: it counts as asked for when the old one was.
    ``failure`` says how the attempt had failed before the lease was taken, if it had.
    """
    cause = lease.target or lease.state
    is_preempted = cause is LeaseState.PREEMPTED and not failure
    was_started = job.state is not JobState.QUEUED
    how = f"failed: {failure}" if failure else f"{_HOW[cause]}: {lease.reason}"
    reason = f"attempt {job.attempt} {how}" if was_started else f"its lease {how}"
    again = replace(job, lease_id=new_id, reason=reason)
    if was_started:
        again = again.moved(
            JobState.QUEUED,
            attempt=job.attempt + 1,
            preemptions=job.preemptions + is_preempted,
            progress=None,
            progress_message="",
            note="",
            fault="",
            started_at=None,
        )
    headline = f"requeued: {again.headline}"
    over = lease.ended(cause, lease.reason, now)
    return Requeued(again, over, _next_lease(lease, new_id, headline, now))


def _next_lease(lease: Lease, new_id: str, reason: str, now: datetime) -> Lease:
    return Lease(
        id=new_id,
        kind=lease.kind,
        owner=lease.owner,
        name=lease.name,
        groups=lease.groups,
        length=lease.length,
        created_at=lease.created_at,
        environment=lease.environment,
        wishes=lease.wishes,
        reason=reason,
        queued_at=now,
        wait_until=lease.wait_until and now + (lease.wait_until - lease.waits_since),
        # What people see of a job counts both versions together: it must never go back.
        version=lease.version + 1,
    )
