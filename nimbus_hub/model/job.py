"""Jobs: which processes run on a lease's slots, and how it went."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Self

from nimbus_hub.errors import Conflict, Deleted, Ended

__all__ = ["JOB_MOVES", "Job", "JobState", "Launch"]


class JobState(StrEnum):
    """Where a job is on its way; the last three are ends."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_end(self) -> bool:
        """Tell whether a job in this state is over."""
        return not JOB_MOVES[self]


JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.STARTING, JobState.STOPPED, JobState.FAILED}),
    JobState.STARTING: frozenset(
        {
            JobState.STARTING,
            JobState.RUNNING,
            JobState.QUEUED,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.STOPPED,
        }
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.STARTING,
            JobState.QUEUED,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.STOPPED,
        }
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.STOPPED: frozenset(),
}
"""The states each state may be followed by; starting again is the next attempt.

From running back to queued: what it ran on was taken away, and it waits for a new lease.
"""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a job runs: the user's command and where it runs, the same for every replica.

    ``argv`` starts with ``python`` or another program of the environment. ``snapshot`` is
    the digest of the working directory, or None for an empty one. ``options`` are the
    framework's own. ``pdb``: a replica that fails waits in its debugger.

    ``framework_reason`` says why the framework is this one if nobody named it.
    ``stall_seconds`` is after what time without a sign of life an attempt is ended as failed,
    0 for never, and None for what the operator has set.
    """

    argv: tuple[str, ...]
    framework: str = "script"
    env: dict[str, str] = field(default_factory=dict)
    snapshot: str | None = None
    environment: str = "default"
    retries: int = 0
    pdb: bool = False
    options: dict[str, str] = field(default_factory=dict)
    framework_reason: str = ""
    stall_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One job. ``attempt`` counts from 1; there are at most ``attempts``.

    ``preemptions`` is how often its lease was taken away for others: these are no retries.
    ``is_holder``: it runs nothing itself but keeps warm replicas on the slots of a debug gang.
    ``run`` counts the runs on one gang, from 0, and ``earlier_turns`` all their attempts.
    ``note`` is what people should know of it while it runs, ``fault`` why this attempt is
    ended as failed although its replicas are not.

    ``deleted_at`` is when the files and the output that it left were given up, ``deletion`` says
    why; ``is_kept`` is true until they are gone everywhere. The job's record stays.
    """

    id: str
    name: str
    owner: str
    lease_id: str
    launch: Launch
    created_at: datetime
    is_holder: bool = False
    run: int = 0
    earlier_turns: int = 0
    state: JobState = JobState.QUEUED
    target: JobState | None = None
    reason: str = ""
    attempt: int = 1
    preemptions: int = 0
    progress: float | None = None
    progress_message: str = ""
    note: str = ""
    fault: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deleted_at: datetime | None = None
    deletion: str = ""
    is_kept: bool = True
    version: int = 1

    @property
    def attempts(self) -> int:
        """Return how many attempts there may be."""
        return self.launch.retries + 1 + self.preemptions

    @property
    def turn(self) -> int:
        """Return a number, from 1, that no attempt before it had, nor of any earlier run."""
        return self.earlier_turns + self.attempt

    @property
    def headline(self) -> str:
        """Return the reason's first line, without the output it may quote, or the state."""
        return self.reason.partition("\n")[0] or self.state

    def moved(self, state: JobState, **changes: object) -> Self:
        """Return this job in another state; raise Conflict if the table has no such move."""
        if state not in JOB_MOVES[self.state]:
            raise Conflict(f"job {self.id} is {self.state} and cannot become {state}")
        return replace(self, state=state, **changes)  # type: ignore[arg-type]

    def stopping(self, reason: str) -> Self:
        """Return this job with its stop asked for; the first reason given stays."""
        if self.state.is_end:
            raise Ended(f"job {self.id} ended already: {self.headline}")
        if self.target is not None:
            return self
        return replace(self, target=JobState.STOPPED, reason=reason)

    def deleting(self, reason: str, now: datetime) -> Self:
        """Return this job with what it left given up; the first reason stays.

        Raises Conflict if it is not over.
        """
        if not self.state.is_end:
            raise Conflict(f"job {self.id} is {self.state}; stop it first: nimbus stop {self.id}")
        if self.deleted_at is not None:
            return self
        return replace(self, deleted_at=now, deletion=reason)

    def without_leavings(self) -> Self:
        """Return this job when all that it left is gone."""
        return replace(self, is_kept=False)

    def check_left(self) -> None:
        """Raise Deleted if what it left was given up."""
        if self.deleted_at is not None:
            at = f"{self.deleted_at:%Y-%m-%d %H:%M} UTC"
            raise Deleted(
                f"the output and files of job {self.id} were deleted at {at}: {self.deletion}"
            )

    def ended(self, state: JobState, reason: str, now: datetime) -> Self:
        """Return this job over; what was asked for first wins over what is said now."""
        return self.moved(
            self.target or state,
            target=None,
            note="",
            reason=self.reason if self.target else reason,
            ended_at=now,
        )
