"""What a write does inside its transaction: check, write, tell.

Writers take turns (see database.py), so what is checked here stays true until the commit.
Rows of one table are written with one statement, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, bindparam, insert, select, update

from nimbus_hub.errors import Conflict, NotFound
from nimbus_hub.model.event import EventKind
from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import Lease, LeaseState
from nimbus_hub.model.replica import REPLICA_MOVES, Replica, ReplicaState
from nimbus_hub.store.rows import Row, job_to_row, lease_to_row, replica_to_row
from nimbus_hub.store.tables import EVENTS, JOBS, LEASES, REPLICAS

__all__ = ["Record", "insert_records", "update_records"]

Record = Lease | Job | Replica

_IDS_AT_ONCE = 1000
"""SQLite takes 32,766 parameters in a statement, PostgreSQL 65,535."""


class _Kind(NamedTuple):
    """How one kind of record is written."""

    noun: str
    table: Table
    to_row: Callable[[Any], Row]


# Parents first: what is inserted may refer to what is inserted before it.
_KINDS: dict[type[Record], _Kind] = {
    Lease: _Kind("lease", LEASES, lease_to_row),
    Job: _Kind("job", JOBS, job_to_row),
    Replica: _Kind("replica", REPLICAS, replica_to_row),
}


def insert_records(connection: Connection, records: Sequence[Record], now: datetime) -> None:
    """Insert records and their first events; raise Conflict if an id is taken."""
    for kind, group in _by_kind(records):
        taken = _stored(connection, kind.table, [record.id for record in group])
        if taken:
            raise Conflict(f"there is a {kind.noun} {min(taken)} already")
        connection.execute(insert(kind.table), [kind.to_row(record) for record in group])
    _tell(connection, [record for record in records if not isinstance(record, Replica)], now)


def update_records(
    connection: Connection, records: Sequence[Record], now: datetime
) -> tuple[Record, ...]:
    """Update records, guarded; return them as stored, in order."""
    saved = tuple(_next(record) for record in records)
    changed: list[Lease | Job] = []
    for (kind, group), (_, after) in zip(_by_kind(records), _by_kind(saved), strict=True):
        stored = _stored(connection, kind.table, [record.id for record in group])
        for record in group:
            row = stored.pop(record.id, None)
            if row is None:
                raise _absent(kind, record, group)
            _check(record, row)
            if not isinstance(record, Replica) and _shown(record) != _shown(_before(record, row)):
                changed.append(record)
        _update(connection, kind, after)
    _tell(connection, changed, now)
    return saved


def _by_kind(records: Sequence[Record]) -> Iterator[tuple[_Kind, list[Record]]]:
    for cls, kind in _KINDS.items():
        group = [record for record in records if isinstance(record, cls)]
        if group:
            yield kind, group


def _stored(connection: Connection, table: Table, ids: Sequence[str]) -> dict[str, Any]:
    """Return what guards and events need of the rows that are there, by id."""
    names = ("id", "state", "version", "target", "reason")
    columns = [table.c[name] for name in names if name in table.c]
    found: dict[str, Any] = {}
    for start in range(0, len(ids), _IDS_AT_ONCE):
        some = ids[start : start + _IDS_AT_ONCE]
        for row in connection.execute(select(*columns).where(table.c.id.in_(some))):
            found[row.id] = row
    return found


def _absent(kind: _Kind, record: Record, group: Iterable[Record]) -> Conflict | NotFound:
    if sum(other.id == record.id for other in group) > 1:
        return Conflict(f"{kind.noun} {record.id} was to be saved twice at once")
    return NotFound(f"there is no {kind.noun} {record.id}")


def _check(record: Record, row: Any) -> None:
    """Raise Conflict unless what is stored may become this record."""
    if isinstance(record, Replica):
        state = ReplicaState(row.state)
        if record.state is not state and record.state not in REPLICA_MOVES[state]:
            raise Conflict(f"replica {record.id} is {state} and cannot become {record.state}")
    elif record.version != row.version:
        noun = "lease" if isinstance(record, Lease) else "job"
        raise Conflict(f"{noun} {record.id} changed meanwhile")


def _update(connection: Connection, kind: _Kind, records: Sequence[Record]) -> None:
    rows = [kind.to_row(record) for record in records]
    for row in rows:
        row["row_id"] = row.pop("id")
    # The other names of the first row are the columns that are set.
    query = update(kind.table).where(kind.table.c.id == bindparam("row_id"))
    connection.execute(query, rows)


def _next(record: Record) -> Record:
    """Return the record as it is stored: one version on, if it has one."""
    if isinstance(record, Replica):
        return record
    return replace(record, version=record.version + 1)


def _before(record: Lease | Job, row: Any) -> Lease | Job:
    """Return the record with what people saw of it before."""
    if isinstance(record, Lease):
        target = None if row.target is None else LeaseState(row.target)
        return replace(record, state=LeaseState(row.state), target=target, reason=row.reason)
    return replace(record, state=JobState(row.state), reason=row.reason)


def _shown(record: Lease | Job) -> tuple[str, str]:
    """Return the state and the reason that people see."""
    state = record.public_state if isinstance(record, Lease) else record.state
    return state.value, record.reason


def _tell(connection: Connection, records: Iterable[Lease | Job], now: datetime) -> None:
    """Append an event for each record."""
    rows = []
    for record in records:
        state, reason = _shown(record)
        kind = EventKind.LEASE if isinstance(record, Lease) else EventKind.JOB
        rows.append(
            {
                "at": now,
                "owner": record.owner,
                "kind": kind.value,
                "object_id": record.id,
                "state": state,
                "reason": reason,
            }
        )
    if rows:
        connection.execute(insert(EVENTS), rows)
