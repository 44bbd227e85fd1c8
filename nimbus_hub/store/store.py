"""The store: keeps leases, jobs, replicas and the events that tell what became of them.

One public method is one transaction; what ends in ``_each`` does for many callers what
another method does for one, and has an answer for each. Writes are guarded by what the
caller has seen: a lease or job by its version, a replica by the table of moves. Who comes
too late gets a Conflict, and nothing of the call was written. Every change of a public
state or reason is an event, written in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Self, TypeVar, overload

from sqlalchemy import delete, exc, func, insert, select

from nimbus_hub.errors import InvalidRequest, NotFound, Unavailable
from nimbus_hub.model.event import Event
from nimbus_hub.model.heartbeat import Heartbeat
from nimbus_hub.model.host import HostMark
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.replica import Replica, Usage, last_of_each
from nimbus_hub.model.usage import LeaseUse
from nimbus_hub.store.database import Database
from nimbus_hub.store.heartbeats import read_beat, write_beat
from nimbus_hub.store.reads import (
    given_up,
    live,
    newest,
    of_attempt,
    portions,
    read_current,
    read_events,
    read_gang_jobs,
    read_jobs,
    read_leases,
    read_needed_snapshots,
    read_replicas,
)
from nimbus_hub.store.rows import host_mark_from_row, host_mark_to_row
from nimbus_hub.store.schema import upgrade
from nimbus_hub.store.tables import EVENTS, HOST_MARKS, JOBS, LEASES, REPLICAS
from nimbus_hub.store.uses import note_use, read_uses
from nimbus_hub.store.writes import Outcome, Record, Write, refusal, write_each

__all__ = ["GangRecord", "JobRecord", "Known", "Live", "Outcome", "Record", "Store", "Write"]

A = TypeVar("A", bound=Record)
B = TypeVar("B", bound=Record)
C = TypeVar("C")
D = TypeVar("D", Lease, Job)


class Live(NamedTuple):
    """All that is not over, as of one moment, oldest first.

    ``replicas`` are those of the live jobs' current attempts, by job and rank.
    """

    leases: tuple[Lease, ...]
    jobs: tuple[Job, ...]
    replicas: tuple[Replica, ...]


class GangRecord(NamedTuple):
    """A debug gang as of one moment: its lease, the job that holds it, and its newest run.

    Runs are one at a time, so an older one is over. ``version`` grows with each of them.
    """

    lease: Lease
    holder: Job
    run: Job | None
    version: int


class JobRecord(NamedTuple):
    """A job as of one moment, its lease, and the replicas of its current attempt.

    If its lease is a debug gang's, ``holder`` is the job that holds that and ``run`` the newest
    run on it.
    """

    job: Job
    lease: Lease
    replicas: tuple[Replica, ...]
    holder: Job | None
    run: Job | None


class Known(NamedTuple):
    """Leases and jobs by id, as a caller has read or written them.

    A version is written once, so one whose version is still the same need not be read again.
    """

    leases: Mapping[str, Lease]
    jobs: Mapping[str, Job]


_NOTHING = Known({}, {})


class Store:
    """Keeps everything that must outlive the service. Methods block; threads may share it."""

    def __init__(self, database: Database) -> None:
        """Keep in a database whose schema is up to date; see :meth:`open`."""
        self._database = database

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a database by its URL and bring its schema up to date.

        Raises InvalidRequest for a URL or a database that cannot be used, Unavailable if
        the database does not answer.
        """
        database = Database(url)
        try:
            upgrade(database)
        except exc.DatabaseError as error:
            database.close()
            raise InvalidRequest(f"{database} cannot be used: {error.orig}") from error
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    # Writing

    def add(self, *new: Record, now: datetime) -> None:
        """Add what is new, all or nothing; raise Conflict if an id is taken."""
        _result(self.write_each([Write((), new, now)]))

    @overload
    def save(self, one: A, /, *, new: Iterable[Record] = (), now: datetime) -> tuple[A]: ...
    @overload
    def save(
        self, one: A, other: B, /, *, new: Iterable[Record] = (), now: datetime
    ) -> tuple[A, B]: ...
    @overload
    def save(self, *changed: A, new: Iterable[Record] = (), now: datetime) -> tuple[A, ...]: ...
    def save(
        self, *changed: Record, new: Iterable[Record] = (), now: datetime
    ) -> tuple[Record, ...]:
        """Save what changed and add what is new, all or nothing.

        What was asked for, like a lease's groups and wishes or a job's launch, is written
        once, when it is added: saving leaves it as it is.

        Returns what changed, in order, with the version it has now. Raises Conflict if one
        of them is not as the caller has seen it or an id is taken, NotFound if one is absent.
        """
        return _result(self.write_each([Write(changed, tuple(new), now)]))

    def write_each(self, writes: Sequence[Write]) -> list[Outcome]:
        """Do writes of several callers in one transaction, each all or nothing on its own.

        Returns what became of each, in order: what :meth:`save` would return or raise.
        """
        try:
            with self._database.writing() as connection:
                return write_each(connection, writes)
        except Unavailable as error:
            return [error] * len(writes)
        except (exc.SQLAlchemyError, ValueError) as error:
            if len(writes) == 1:
                return [refusal(error)]
        # One of them was refused by the database: who it is shows when each is alone.
        return [outcome for write in writes for outcome in self.write_each([write])]

    # Reading

    def lease(self, lease_id: str, owner: str | None = None) -> Lease:
        """Return a lease; raise NotFound if there is none, or not of this owner."""
        return _result(self.lease_each([(lease_id, owner)]))

    def lease_each(
        self, wanted: Sequence[tuple[str, str | None]], known: Known = _NOTHING
    ) -> list[Lease | Exception]:
        """Return for each id and owner what :meth:`lease` would return or raise."""
        found: dict[str, Lease] = {}
        with self._database.reading() as connection:
            for some in portions(sorted({lease_id for lease_id, _ in wanted})):
                query = select(LEASES).where(LEASES.c.id.in_(some))
                leases = read_current(connection, query, LEASES, read_leases, known.leases)
                found.update((lease.id, lease) for lease in leases)
        return [_lease_of(owner, found.get(lease_id), lease_id) for lease_id, owner in wanted]

    def session_each(self, wanted: Sequence[tuple[str, str]]) -> list[Lease | None]:
        """Return for each owner and name the live lease of that session, if there is one."""
        is_live_session = (LEASES.c.kind == LeaseKind.SESSION.value) & LEASES.c.is_live.is_(True)
        found: dict[tuple[str, str], Lease] = {}
        for some in portions(sorted({owner for owner, _ in wanted})):
            query = select(LEASES).where(is_live_session, LEASES.c.owner.in_(some))
            with self._database.reading() as connection:
                leases = read_leases(connection, query)
            found.update(((lease.owner, lease.name), lease) for lease in leases)
        return [found.get(session) for session in wanted]

    def job(self, job_id: str, owner: str | None = None) -> Job:
        """Return a job; raise NotFound if there is none, or not of this owner."""
        query = newest(JOBS, owner, None, 1).where(JOBS.c.id == job_id)
        with self._database.reading() as connection:
            found = read_jobs(connection, query)
        if not found:
            raise NotFound(f"there is no job {job_id} of yours; see: nimbus ps -a")
        return found[0]

    def gang(self, lease_id: str, owner: str | None = None) -> GangRecord:
        """Return a debug gang; raise NotFound if there is none, or not of this owner."""
        versions = select(func.sum(JOBS.c.version)).where(JOBS.c.lease_id == lease_id)
        with self._database.reading() as connection:
            leases = read_leases(connection, select(LEASES).where(LEASES.c.id == lease_id))
            holder, run = read_gang_jobs(connection, lease_id)
            version = int(connection.scalar(versions) or 0)
        if not leases or holder is None or owner not in (None, leases[0].owner):
            raise NotFound(f"there is no gang {lease_id} of yours; see: nimbus debug list")
        if not holder.is_holder:
            raise NotFound(f"lease {lease_id} is no debug gang; see: nimbus debug list")
        return GangRecord(leases[0], holder, run, leases[0].version + version)

    def leases(
        self,
        owner: str | None = None,
        kind: LeaseKind | None = None,
        name: str | None = None,
        is_live: bool | None = None,
        limit: int = 100,
        parent: str | None = None,
    ) -> tuple[Lease, ...]:
        """Return the newest leases that are as asked, newest first."""
        query = newest(LEASES, owner, is_live, limit)
        if kind is not None:
            query = query.where(LEASES.c.kind == kind.value)
        if name is not None:
            query = query.where(LEASES.c.name == name)
        if parent is not None:
            query = query.where(LEASES.c.parent == parent)
        with self._database.reading() as connection:
            return read_leases(connection, query)

    def job_record(self, job_id: str) -> JobRecord:
        """Return a job with all that belongs to it; raise NotFound if there is none."""
        with self._database.reading() as connection:
            found = read_jobs(connection, select(JOBS).where(JOBS.c.id == job_id))
            if not found:
                raise NotFound(f"there is no job {job_id}")
            (job,) = found
            (lease,) = read_leases(connection, select(LEASES).where(LEASES.c.id == job.lease_id))
            is_gang = lease.kind is LeaseKind.DEBUG
            holder, run = read_gang_jobs(connection, lease.id) if is_gang else (None, None)
            replicas = read_replicas(connection, of_attempt(job_id, job.attempt))
            return JobRecord(job, lease, last_of_each(replicas), holder, run)

    def jobs(
        self,
        owner: str | None = None,
        is_live: bool | None = None,
        limit: int = 100,
        lease_id: str | None = None,
        is_holder: bool | None = None,
    ) -> tuple[Job, ...]:
        """Return the newest jobs that are as asked, newest first."""
        query = newest(JOBS, owner, is_live, limit)
        if lease_id is not None:
            query = query.where(JOBS.c.lease_id == lease_id)
        if is_holder is not None:
            query = query.where(JOBS.c.is_holder.is_(is_holder))
        with self._database.reading() as connection:
            return read_jobs(connection, query)

    def jobs_given_up(self, ended_before: datetime | None, limit: int) -> tuple[Job, ...]:
        """Return jobs whose files and output are to be deleted: by wish, or for their age."""
        with self._database.reading() as connection:
            return read_jobs(connection, given_up(ended_before, limit))

    def needed_snapshots(self) -> dict[str, set[str]]:
        """Return by owner the digests of snapshots that jobs have which are not deleted."""
        with self._database.reading() as connection:
            return read_needed_snapshots(connection)

    def replicas(self, job_id: str, attempt: int | None = None) -> tuple[Replica, ...]:
        """Return a job's replicas by attempt and rank, of one attempt or of all."""
        with self._database.reading() as connection:
            return read_replicas(connection, of_attempt(job_id, attempt))

    def live(self, known: Known = _NOTHING) -> Live:
        """Return all that is not over, as of one moment."""
        current = (JOBS.c.id == REPLICAS.c.job_id) & (JOBS.c.attempt == REPLICAS.c.attempt)
        replicas = select(REPLICAS).join(JOBS, current).where(JOBS.c.is_live.is_(True))
        with self._database.reading() as connection:
            return Live(
                read_current(connection, live(LEASES), LEASES, read_leases, known.leases),
                read_current(connection, live(JOBS), JOBS, read_jobs, known.jobs),
                read_replicas(connection, replicas.order_by(REPLICAS.c.job_id, REPLICAS.c.rank)),
            )

    def ended_since(self, moment: datetime) -> tuple[Lease, ...]:
        """Return the leases that had been granted and ended after a moment, by their end."""
        query = select(LEASES).where(LEASES.c.ended_at > moment, LEASES.c.granted_at.is_not(None))
        with self._database.reading() as connection:
            return read_leases(connection, query.order_by(LEASES.c.ended_at, LEASES.c.id))

    # Use

    def note_usage(self, leases: Mapping[str, Usage], replicas: Mapping[str, Usage]) -> None:
        """Note the CPU and GPU time used by leases, and by replicas of them, by id.

        It changes no version: who waits for news of a lease is not told of it.
        """
        with self._database.writing() as connection:
            note_use(connection, LEASES, leases)
            note_use(connection, REPLICAS, replicas)

    def uses(
        self, since: datetime, until: datetime, owner: str | None = None
    ) -> tuple[LeaseUse, ...]:
        """Return what leases held at any time between two moments, by their grant."""
        with self._database.reading() as connection:
            return read_uses(connection, since, until, owner)

    def beat(self, beat: Heartbeat) -> None:
        """Keep the service's sign of life, in the place of the last."""
        with self._database.writing() as connection:
            write_beat(connection, beat)

    def last_beat(self) -> Heartbeat | None:
        """Return the service's last sign of life, if there ever was one."""
        with self._database.reading() as connection:
            return read_beat(connection)

    # Hosts

    def mark_host(self, name: str, reason: str, by: str, now: datetime) -> HostMark:
        """Mark a host as draining until it is unmarked; return the mark.

        A host that is marked already gets the new reason.
        """
        mark = HostMark(name, reason, by, now)
        with self._database.writing() as connection:
            connection.execute(delete(HOST_MARKS).where(HOST_MARKS.c.name == name))
            connection.execute(insert(HOST_MARKS), [host_mark_to_row(mark)])
        return mark

    def unmark_host(self, name: str) -> None:
        """Take back the mark of a host, if it has one."""
        with self._database.writing() as connection:
            connection.execute(delete(HOST_MARKS).where(HOST_MARKS.c.name == name))

    def host_marks(self) -> tuple[HostMark, ...]:
        """Return the marks of hosts, by name."""
        query = select(HOST_MARKS).order_by(HOST_MARKS.c.name)
        with self._database.reading() as connection:
            return tuple(map(host_mark_from_row, connection.execute(query).mappings()))

    # Events

    def events(
        self, owner: str | None = None, after: int = 0, limit: int = 1000
    ) -> tuple[Event, ...]:
        """Return the first events with an id over ``after``, oldest first."""
        query = select(EVENTS).where(EVENTS.c.id > after).order_by(EVENTS.c.id).limit(limit)
        if owner is not None:
            query = query.where(EVENTS.c.owner == owner)
        with self._database.reading() as connection:
            return read_events(connection, query)

    def history(self, object_id: str) -> tuple[Event, ...]:
        """Return all events of a lease or job, oldest first."""
        query = select(EVENTS).where(EVENTS.c.object_id == object_id).order_by(EVENTS.c.id)
        with self._database.reading() as connection:
            return read_events(connection, query)

    def last_event_id(self) -> int:
        """Return the id of the newest event, 0 if there is none."""
        with self._database.reading() as connection:
            return connection.scalar(select(func.max(EVENTS.c.id))) or 0


def _result(outcomes: Sequence[C | Exception]) -> C:
    """Return the one outcome; raise it if it is an error."""
    (outcome,) = outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _lease_of(owner: str | None, lease: Lease | None, lease_id: str) -> Lease | NotFound:
    if lease is None or owner not in (None, lease.owner):
        return NotFound(f"there is no lease {lease_id} of yours; see: nimbus lease list")
    return lease
