"""Reads: the queries that methods of the store share, and what their rows become."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, Table, or_, select

from nimbus_hub.model.event import Event
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.replica import Replica
from nimbus_hub.store.rows import event_from_row, job_from_row, lease_from_row, replica_from_row
from nimbus_hub.store.tables import JOBS, REPLICAS
from nimbus_hub.store.writes import IDS_AT_ONCE

__all__ = [
    "given_up",
    "live",
    "newest",
    "of_attempt",
    "portions",
    "read_current",
    "read_events",
    "read_gang_jobs",
    "read_jobs",
    "read_leases",
    "read_needed_snapshots",
    "read_replicas",
]

D = TypeVar("D", Lease, Job)


def portions(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield as many at a time as a statement takes."""
    return (values[start : start + IDS_AT_ONCE] for start in range(0, len(values), IDS_AT_ONCE))


def newest(
    table: Table, owner: str | None, is_live: bool | None, limit: int
) -> Select[tuple[Any, ...]]:
    """Select the newest rows of an owner, live or ended."""
    query = select(table).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
    if owner is not None:
        query = query.where(table.c.owner == owner)
    if is_live is not None:
        query = query.where(table.c.is_live.is_(is_live))
    return query


def live(table: Table) -> Select[tuple[Any, ...]]:
    """Select what is not over, oldest first."""
    query = select(table).where(table.c.is_live.is_(True))
    return query.order_by(table.c.created_at, table.c.id)


def given_up(ended_before: datetime | None, limit: int) -> Select[tuple[Any, ...]]:
    """Select jobs that have left something which is not wanted any more, those first that ended so.

    What ended before a moment is not, nor what somebody deleted.
    """
    is_unwanted: list[ColumnElement[bool]] = [JOBS.c.deleted_at.is_not(None)]
    if ended_before is not None:
        is_unwanted.append(JOBS.c.ended_at < ended_before)
    query = select(JOBS).where(JOBS.c.is_kept, JOBS.c.is_live.is_(False), or_(*is_unwanted))
    return query.order_by(JOBS.c.ended_at, JOBS.c.id).limit(limit)


def of_attempt(job_id: str, attempt: int | None = None) -> Select[tuple[Any, ...]]:
    """Select the replicas of an attempt of a job, or of all, by attempt, rank and restarts."""
    query = select(REPLICAS).where(REPLICAS.c.job_id == job_id)
    if attempt is not None:
        query = query.where(REPLICAS.c.attempt == attempt)
    return query.order_by(REPLICAS.c.attempt, REPLICAS.c.rank, REPLICAS.c.restarts)


def read_current(
    connection: Connection,
    query: Select[tuple[Any, ...]],
    table: Table,
    read: Callable[[Connection, Select[tuple[Any, ...]]], tuple[D, ...]],
    known: Mapping[str, D],
) -> tuple[D, ...]:
    """Return what a query over a table finds, reading in full only what is not known."""
    if not known:
        return read(connection, query)
    versions = connection.execute(query.with_only_columns(table.c.id, table.c.version)).all()
    found = {key: known[key] for key, version in versions if _has(known, key, version)}
    missing = [key for key, _ in versions if key not in found]
    for some in portions(missing):
        for record in read(connection, select(table).where(table.c.id.in_(some))):
            found[record.id] = record
    return tuple(found[key] for key, _ in versions)


def _has(known: Mapping[str, D], key: str, version: int) -> bool:
    record = known.get(key)
    return record is not None and record.version == version


def read_leases(connection: Connection, query: Select[tuple[Any, ...]]) -> tuple[Lease, ...]:
    """Return the leases that a query over their table finds."""
    return tuple(map(lease_from_row, connection.execute(query).mappings()))


def read_jobs(connection: Connection, query: Select[tuple[Any, ...]]) -> tuple[Job, ...]:
    """Return the jobs that a query over their table finds."""
    return tuple(map(job_from_row, connection.execute(query).mappings()))


def read_needed_snapshots(connection: Connection) -> dict[str, set[str]]:
    """Return by owner the digests of snapshots of jobs whose files are not deleted."""
    digest = JOBS.c.launch["snapshot"].as_string()
    query = select(JOBS.c.owner, digest).where(JOBS.c.is_kept, digest.is_not(None)).distinct()
    found: dict[str, set[str]] = {}
    for owner, snapshot in connection.execute(query):
        found.setdefault(owner, set()).add(snapshot)
    return found


def read_gang_jobs(connection: Connection, lease_id: str) -> tuple[Job | None, Job | None]:
    """Return the job that holds a debug gang, and the newest run on it."""
    query = select(JOBS).where(JOBS.c.lease_id == lease_id)
    query = query.order_by(JOBS.c.is_holder.desc(), JOBS.c.run.desc()).limit(2)
    holder, run, *_ = (*read_jobs(connection, query), None, None)
    return holder, run


def read_replicas(connection: Connection, query: Select[tuple[Any, ...]]) -> tuple[Replica, ...]:
    """Return the replicas that a query over their table finds."""
    return tuple(map(replica_from_row, connection.execute(query).mappings()))


def read_events(connection: Connection, query: Select[tuple[Any, ...]]) -> tuple[Event, ...]:
    """Return the events that a query over their table finds."""
    return tuple(map(event_from_row, connection.execute(query).mappings()))
