"""The store: keeps leases, jobs, replicas and the events that tell what became of them.

One public method is one transaction. Writes are guarded by what the caller has seen: a
lease or job by its version, a replica by the table of moves. Who comes too late gets a
Conflict, and nothing of the call was written. Every change of a public state or reason is
an event, written in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Self, TypeVar, overload

from sqlalchemy import Connection, Select, Table, exc, func, select

from nimbus_hub.errors import Conflict, InvalidRequest, NotFound
from nimbus_hub.model.event import Event
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.replica import Replica
from nimbus_hub.store.database import Database
from nimbus_hub.store.rows import event_from_row, job_from_row, lease_from_row, replica_from_row
from nimbus_hub.store.schema import upgrade
from nimbus_hub.store.tables import EVENTS, JOBS, LEASES, REPLICAS
from nimbus_hub.store.writes import Record, insert_records, update_records

__all__ = ["Live", "Record", "Store"]

A = TypeVar("A", bound=Record)
B = TypeVar("B", bound=Record)


class Live(NamedTuple):
    """All that is not over, as of one moment, oldest first.

    ``replicas`` are those of the live jobs' current attempts, by job and rank.
    """

    leases: tuple[Lease, ...]
    jobs: tuple[Job, ...]
    replicas: tuple[Replica, ...]


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
        self._write((), new, now)

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

        Returns what changed, in order, with the version it has now. Raises Conflict if one
        of them is not as the caller has seen it or an id is taken, NotFound if one is absent.
        """
        return self._write(changed, tuple(new), now)

    def _write(
        self, changed: Sequence[Record], new: Sequence[Record], now: datetime
    ) -> tuple[Record, ...]:
        try:
            with self._database.writing() as connection:
                saved = update_records(connection, changed, now)
                insert_records(connection, new, now)
        except exc.IntegrityError as error:
            raise Conflict(
                f"what was to be added does not fit what is kept: {error.orig}"
            ) from error
        return saved

    # Reading

    def lease(self, lease_id: str, owner: str | None = None) -> Lease:
        """Return a lease; raise NotFound if there is none, or not of this owner."""
        query = _newest(LEASES, owner, None, 1).where(LEASES.c.id == lease_id)
        with self._database.reading() as connection:
            found = _leases(connection, query)
        if not found:
            raise NotFound(f"there is no lease {lease_id} of yours; see: nimbus lease list")
        return found[0]

    def job(self, job_id: str, owner: str | None = None) -> Job:
        """Return a job; raise NotFound if there is none, or not of this owner."""
        query = _newest(JOBS, owner, None, 1).where(JOBS.c.id == job_id)
        with self._database.reading() as connection:
            found = _jobs(connection, query)
        if not found:
            raise NotFound(f"there is no job {job_id} of yours; see: nimbus ps -a")
        return found[0]

    def leases(
        self,
        owner: str | None = None,
        kind: LeaseKind | None = None,
        name: str | None = None,
        is_live: bool | None = None,
        limit: int = 100,
    ) -> tuple[Lease, ...]:
        """Return the newest leases that are as asked, newest first."""
        query = _newest(LEASES, owner, is_live, limit)
        if kind is not None:
            query = query.where(LEASES.c.kind == kind.value)
        if name is not None:
            query = query.where(LEASES.c.name == name)
        with self._database.reading() as connection:
            return _leases(connection, query)

    def jobs(
        self, owner: str | None = None, is_live: bool | None = None, limit: int = 100
    ) -> tuple[Job, ...]:
        """Return the newest jobs that are as asked, newest first."""
        with self._database.reading() as connection:
            return _jobs(connection, _newest(JOBS, owner, is_live, limit))

    def replicas(self, job_id: str, attempt: int | None = None) -> tuple[Replica, ...]:
        """Return a job's replicas by attempt and rank, of one attempt or of all."""
        query = select(REPLICAS).where(REPLICAS.c.job_id == job_id)
        if attempt is not None:
            query = query.where(REPLICAS.c.attempt == attempt)
        with self._database.reading() as connection:
            return _replicas(connection, query.order_by(REPLICAS.c.attempt, REPLICAS.c.rank))

    def live(self) -> Live:
        """Return all that is not over, as of one moment."""
        current = (JOBS.c.id == REPLICAS.c.job_id) & (JOBS.c.attempt == REPLICAS.c.attempt)
        replicas = select(REPLICAS).join(JOBS, current).where(JOBS.c.is_live.is_(True))
        with self._database.reading() as connection:
            return Live(
                _leases(connection, _live(LEASES)),
                _jobs(connection, _live(JOBS)),
                _replicas(connection, replicas.order_by(REPLICAS.c.job_id, REPLICAS.c.rank)),
            )

    # Events

    def events(
        self, owner: str | None = None, after: int = 0, limit: int = 1000
    ) -> tuple[Event, ...]:
        """Return the first events with an id over ``after``, oldest first."""
        query = select(EVENTS).where(EVENTS.c.id > after).order_by(EVENTS.c.id).limit(limit)
        if owner is not None:
            query = query.where(EVENTS.c.owner == owner)
        with self._database.reading() as connection:
            return _events(connection, query)

    def history(self, object_id: str) -> tuple[Event, ...]:
        """Return all events of a lease or job, oldest first."""
        query = select(EVENTS).where(EVENTS.c.object_id == object_id).order_by(EVENTS.c.id)
        with self._database.reading() as connection:
            return _events(connection, query)

    def last_event_id(self) -> int:
        """Return the id of the newest event, 0 if there is none."""
        with self._database.reading() as connection:
            return connection.scalar(select(func.max(EVENTS.c.id))) or 0


def _newest(
    table: Table, owner: str | None, is_live: bool | None, limit: int
) -> Select[tuple[Any, ...]]:
    query = select(table).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
    if owner is not None:
        query = query.where(table.c.owner == owner)
    if is_live is not None:
        query = query.where(table.c.is_live.is_(is_live))
    return query


def _live(table: Table) -> Select[tuple[Any, ...]]:
    query = select(table).where(table.c.is_live.is_(True))
    return query.order_by(table.c.created_at, table.c.id)


def _leases(connection: Connection, query: Select[tuple[Any, ...]]) -> tuple[Lease, ...]:
    return tuple(map(lease_from_row, connection.execute(query).mappings()))


def _jobs(connection: Connection, query: Select[tuple[Any, ...]]) -> tuple[Job, ...]:
    return tuple(map(job_from_row, connection.execute(query).mappings()))


def _replicas(connection: Connection, query: Select[tuple[Any, ...]]) -> tuple[Replica, ...]:
    return tuple(map(replica_from_row, connection.execute(query).mappings()))


def _events(connection: Connection, query: Select[tuple[Any, ...]]) -> tuple[Event, ...]:
    return tuple(map(event_from_row, connection.execute(query).mappings()))
