"""Living: all that is not over, in memory as it was last written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from nimbus_hub.control.mates import Mates
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.replica import Replica, Usage
from nimbus_hub.store.store import JobRecord, Known, Live

__all__ = ["Living"]

L = TypeVar("L", Lease, Job)
U = TypeVar("U", Lease, Replica)


class Living:
    """Leases, jobs and the replicas of their current attempts, each in its newest version.

    What has ended is remembered until somebody asks what is live. ``queued`` are the leases
    that wait, by id; ``mates`` the jobs of debug gangs.
    """

    def __init__(self) -> None:
        self.queued: dict[str, Lease] = {}
        self.mates = Mates()
        self._leases: dict[str, Lease] = {}
        self._jobs: dict[str, Job] = {}
        self._replicas: dict[str, dict[str, Replica]] = {}
        self._ended: set[str] = set()
        self._live: Live | None = None

    @property
    def known(self) -> Known:
        """Return leases and jobs by id."""
        return Known(self._leases, self._jobs)

    def begin(self, found: Live) -> None:
        """Start anew with what was read, or with what was put since it was read."""
        self._leases = _newest(self._leases, found.leases)
        self._jobs = _newest(self._jobs, found.jobs)
        self.queued = {
            key: lease for key, lease in self._leases.items() if lease.state is LeaseState.QUEUED
        }
        self.mates = Mates(self._jobs.values())
        self._replicas = {}
        self._ended = set(map(_id, filter(_is_over, self._leases.values())))
        self._ended.update(map(_id, filter(_is_over, self._jobs.values())))
        self._live = None
        for replica in found.replicas:
            self.put(replica)

    def put(self, written: Lease | Job | Replica) -> None:
        """Keep what was written."""
        self._live = None
        if isinstance(written, Replica):
            self._replicas.setdefault(written.job_id, {})[written.id] = written
            return
        if written.state.is_end:
            self._ended.add(written.id)
        if isinstance(written, Job):
            self._jobs[written.id] = written
            self.mates.put(written)
            return
        self._leases[written.id] = written
        if written.state is LeaseState.QUEUED:
            self.queued[written.id] = written
        else:
            self.queued.pop(written.id, None)

    def of_job(self, job_id: str) -> JobRecord | None:
        """Return a job with all that belongs to it; None unless all of that is kept."""
        job = self._jobs.get(job_id)
        lease = self._leases.get(job.lease_id) if job is not None else None
        if job is None or lease is None:
            return None
        own = _of_attempt(self._replicas.get(job_id, {}), job.attempt)
        replicas = tuple(sorted(own.values(), key=lambda replica: replica.rank))
        if lease.kind is not LeaseKind.DEBUG:
            return JobRecord(job, lease, replicas, None, None)
        holder, run = self.mates.of(lease.id)
        return None if holder is None else JobRecord(job, lease, replicas, holder, run)

    def note_usage(self, leases: Mapping[str, Usage], replicas: Mapping[str, Usage]) -> None:
        """Keep what was noted of use, which changes no version."""
        self._live = None
        for lease_id in leases.keys() & self._leases.keys():
            self._leases[lease_id] = _using(self._leases[lease_id], leases[lease_id])
        for own in self._replicas.values():
            for replica_id in replicas.keys() & own.keys():
                own[replica_id] = _using(own[replica_id], replicas[replica_id])

    def live(self) -> Live:
        """Return all that is not over, as of now."""
        if self._live is None:
            for key in self._ended:
                self._leases.pop(key, None)
                self._jobs.pop(key, None)
            self._ended.clear()
            self._live = Live(
                tuple(self._leases.values()), tuple(self._jobs.values()), self._current()
            )
        return self._live

    def _current(self) -> tuple[Replica, ...]:
        """Return the replicas of the current attempts, and forget all others."""
        self._replicas = {
            job_id: own
            for job_id, job in self._jobs.items()
            if (own := _of_attempt(self._replicas.get(job_id, {}), job.attempt))
        }
        return tuple(replica for own in self._replicas.values() for replica in own.values())


def _id(record: Lease | Job) -> str:
    return record.id


def _is_over(record: Lease | Job) -> bool:
    return record.state.is_end


def _using(record: U, used: Usage) -> U:
    return replace(record, cpu_seconds=used.cpu_seconds, gpu_seconds=used.gpu_seconds)


def _of_attempt(replicas: dict[str, Replica], attempt: int) -> dict[str, Replica]:
    if all(each.attempt == attempt for each in replicas.values()):
        return replicas
    return {key: each for key, each in replicas.items() if each.attempt == attempt}


def _newest(known: Mapping[str, L], found: Iterable[L]) -> dict[str, L]:
    """Return by id what was found, or what was written since it was read."""
    newest = {}
    for each in found:
        kept = known.get(each.id, each)
        newest[each.id] = kept if kept.version > each.version else each
    return newest
