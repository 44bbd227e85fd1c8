"""Mates: the live jobs of each debug gang, the one that holds it and the run on it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import Lease

__all__ = ["Mates"]


class Mates:
    """Knows the live jobs of each gang by its lease, as they were last written."""

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        """Begin with all live jobs, of gangs and others."""
        self._jobs: dict[str, dict[str, Job]] = {}
        for job in sorted(jobs, key=lambda job: not job.is_holder):
            self.put(job)

    def put(self, job: Job) -> None:
        """Keep a job that was written if it is one of a gang."""
        if not job.is_holder and job.lease_id not in self._jobs:
            return
        mates = self._jobs.setdefault(job.lease_id, {})
        mates[job.id] = job
        if job.state.is_end:
            del mates[job.id]
        if not mates:
            del self._jobs[job.lease_id]

    def of(self, lease_id: str) -> tuple[Job | None, Job | None]:
        """Return the job that holds a gang, and the run that is under way on it."""
        mates = self._jobs.get(lease_id, {}).values()
        holder = next((job for job in mates if job.is_holder), None)
        return holder, next((job for job in mates if not job.is_holder), None)

    def concerned(self, written: Lease | Job) -> Collection[Job]:
        """Return the jobs to which a write is news that they wait for.

        A job waits for its start and for the word to end; a run for its gang to be warm; what
        holds a gang for its run to be over; and both for the end of their lease.
        """
        if isinstance(written, Lease):
            is_over = written.target is not None or written.state.is_end
            return self._live(written.id) if is_over else ()
        if written.is_holder or written.state.is_end:
            return self._live(written.lease_id)
        is_waiting = written.state is JobState.STARTING or written.target is not None
        return (written,) if is_waiting else ()

    def _live(self, lease_id: str) -> tuple[Job, ...]:
        return tuple(self._jobs.get(lease_id, {}).values())
