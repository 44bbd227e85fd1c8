"""What writes do inside their transaction: check, write, tell.

Writers take turns (see database.py), so what is checked here stays true until the commit.
Any number of writes share a transaction, each all or nothing on its own: all are checked
here, one after the other, before the first row is touched. Then the rows of one table are
written with one statement, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Dialect,
    Insert,
    RowMapping,
    Table,
    Update,
    bindparam,
    exc,
    insert,
    select,
    update,
)

from nimbus_hub.errors import Conflict, NimbusError, NotFound
from nimbus_hub.model.event import EventKind
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease, LeaseState
from nimbus_hub.model.replica import REPLICA_MOVES, Replica, ReplicaState
from nimbus_hub.store.rows import (
    Row,
    job_to_changes,
    job_to_row,
    lease_to_changes,
    lease_to_row,
    replica_to_changes,
    replica_to_row,
)
from nimbus_hub.store.tables import EVENTS, JOBS, LEASES, REPLICAS

__all__ = ["IDS_AT_ONCE", "Outcome", "Record", "Write", "refusal", "write_each"]

Record = Lease | Job | Replica
Outcome = tuple[Record, ...] | Exception
"""What became of a write: what changed, as it is stored now, or why nothing of it was written."""

IDS_AT_ONCE = 1000
"""SQLite takes 32,766 parameters in a statement, PostgreSQL 65,535."""


class Write(NamedTuple):
    """What one caller wants written at a moment, all or nothing."""

    changed: Sequence[Record]
    new: Sequence[Record]
    now: datetime


class _Kind(NamedTuple):
    """How one kind of record is written."""

    noun: str
    table: Table
    to_row: Callable[[Any], Row]
    to_changes: Callable[[Any], Row]


# Parents first: what is inserted may refer to what is inserted before it.
_KINDS: dict[type[Record], _Kind] = {
    Lease: _Kind("lease", LEASES, lease_to_row, lease_to_changes),
    Job: _Kind("job", JOBS, job_to_row, job_to_changes),
    Replica: _Kind("replica", REPLICAS, replica_to_row, replica_to_changes),
}
_GUARDS = ("id", "state", "version", "target", "reason")
_ROW_ID = "row_id"
_Key = tuple[type[Record], str]
_Stored = Mapping[str, Any] | RowMapping


def write_each(connection: Connection, writes: Sequence[Write]) -> list[Outcome]:
    """Do writes as if each were alone, in order; return what became of each.

    What only the database can refuse raises, and then nothing of any of them was written.
    """
    batch = _Batch(dict(_stored(connection, writes)))
    outcomes = [batch.take(write) for write in writes]
    batch.write(connection)
    return outcomes


class _Batch:
    """What is to be written, out of the writes that were found right so far."""

    def __init__(self, stored: dict[_Key, _Stored]) -> None:
        """Start with what guards and events need of the rows that are there."""
        self._stored = stored
        self._inserts: list[tuple[type[Record], Row]] = []
        self._updates: list[tuple[type[Record], Row]] = []
        self._events: list[Row] = []

    def take(self, write: Write) -> Outcome:
        """Check a write and keep its rows, or say why it cannot be."""
        try:
            told = [record for record in self._changed(write.changed) if self._is_news(record)]
            saved = tuple(map(_next, write.changed))
            updates = [_changed_row(record) for record in saved]
            inserts = [_row(record) for record in self._new(write.new)]
        except NimbusError as error:
            return error
        self._updates += updates
        self._inserts += inserts
        records = (*saved, *write.new)
        for record, (cls, row) in zip(records, (*updates, *inserts), strict=True):
            self._stored[cls, record.id] = row
        self._events += [
            _event(record, write.now)
            for record in (*told, *write.new)
            if not isinstance(record, Replica)
        ]
        return saved

    def write(self, connection: Connection) -> None:
        """Write all that was kept."""
        for kind, rows in _by_kind(self._inserts):
            _execute(connection, kind.table, rows)
        for kind, rows in _by_kind(self._updates):
            _execute(connection, kind.table, rows)
        if self._events:
            _execute(connection, EVENTS, self._events)

    def _changed(self, records: Sequence[Record]) -> Iterator[Record]:
        """Yield each record once it is known that its row may become it."""
        seen: set[_Key] = set()
        for record in records:
            key, noun = (type(record), record.id), _KINDS[type(record)].noun
            if key in seen:
                raise Conflict(f"{noun} {record.id} was to be saved twice at once")
            if key not in self._stored:
                raise NotFound(f"there is no {noun} {record.id}")
            _check(record, self._stored[key])
            seen.add(key)
            yield record

    def _new(self, records: Sequence[Record]) -> Iterator[Record]:
        """Yield each record once it is known that its id is free."""
        seen: set[_Key] = set()
        for record in records:
            key = (type(record), record.id)
            if key in self._stored or key in seen:
                raise Conflict(f"there is a {_KINDS[type(record)].noun} {record.id} already")
            seen.add(key)
            yield record

    def _is_news(self, record: Record) -> bool:
        """Tell whether people see another state or reason than before."""
        if isinstance(record, Replica):
            return False
        return _shown(record) != _shown_before(record, self._stored[type(record), record.id])


def _row(record: Record) -> tuple[type[Record], Row]:
    return type(record), _KINDS[type(record)].to_row(record)


def _changed_row(record: Record) -> tuple[type[Record], Row]:
    row = _KINDS[type(record)].to_changes(record)
    row[_ROW_ID] = record.id
    return type(record), row


def _by_kind(rows: Iterable[tuple[type[Record], Row]]) -> Iterator[tuple[_Kind, list[Row]]]:
    found: dict[type[Record], list[Row]] = {}
    for cls, row in rows:
        found.setdefault(cls, []).append(row)
    return ((kind, found[cls]) for cls, kind in _KINDS.items() if cls in found)


def _stored(connection: Connection, writes: Sequence[Write]) -> Iterator[tuple[_Key, _Stored]]:
    """Yield what guards and events need of the rows that are there."""
    ids: dict[type[Record], list[str]] = {}
    for write in writes:
        for record in (*write.changed, *write.new):
            ids.setdefault(type(record), []).append(record.id)
    for cls, wanted in ids.items():
        table = _KINDS[cls].table
        query = select(*(table.c[name] for name in _GUARDS if name in table.c))
        for start in range(0, len(wanted), IDS_AT_ONCE):
            some = table.c.id.in_(wanted[start : start + IDS_AT_ONCE])
            for row in connection.execute(query.where(some)).mappings():
                yield (cls, row["id"]), row


def _check(record: Record, row: _Stored) -> None:
    """Raise Conflict unless what is stored may become this record."""
    if isinstance(record, Replica):
        state = ReplicaState(row["state"])
        if record.state is not state and record.state not in REPLICA_MOVES[state]:
            raise Conflict(f"replica {record.id} is {state} and cannot become {record.state}")
    elif record.version != row["version"]:
        noun = "lease" if isinstance(record, Lease) else "job"
        raise Conflict(f"{noun} {record.id} changed meanwhile")


class _Prepared(NamedTuple):
    """A statement, and its parameters in order with what makes a value one."""

    text: str
    is_positional: bool
    parameters: tuple[tuple[str, Callable[[Any], Any]], ...]


def _execute(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows, or update those that name a row's id; all have the names of the first.

    SQLAlchemy would do the same, but find out anew for each row what its parameters are.
    """
    statement = _prepared(connection.dialect, table, tuple(rows[0]))
    found: list[Any]
    if statement.is_positional:
        found = [tuple([to(row[name]) for name, to in statement.parameters]) for row in rows]
    else:
        found = [{name: to(row[name]) for name, to in statement.parameters} for row in rows]
    connection.exec_driver_sql(statement.text, found)


@lru_cache(maxsize=64)
def _prepared(dialect: Dialect, table: Table, names: tuple[str, ...]) -> _Prepared:
    statement: Insert | Update = insert(table)
    if _ROW_ID in names:
        row_id = bindparam(_ROW_ID, type_=table.c.id.type)
        statement = update(table).where(table.c.id == row_id)
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    parameters = tuple(
        (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect) or _as_is)
        for name in compiled.positiontup or names
    )
    return _Prepared(str(compiled), compiled.positional, parameters)


def _as_is(value: Any) -> Any:
    return value


def _next(record: Record) -> Record:
    """Return the record as it is stored: one version on, if it has one."""
    if isinstance(record, Replica):
        return record
    return replace(record, version=record.version + 1)


def _shown(record: Lease | Job) -> tuple[str, str]:
    """Return the state and the reason that people see."""
    state = record.public_state if isinstance(record, Lease) else record.state
    return state.value, record.reason


def _shown_before(record: Lease | Job, row: _Stored) -> tuple[str, str]:
    """Return what people saw of a record before."""
    state: str = row["state"]
    if isinstance(record, Lease) and row["target"] is not None and LeaseState(state).is_holding:
        state = LeaseState.EXPIRING.value
    return state, row["reason"]


def _event(record: Lease | Job, now: datetime) -> Row:
    state, reason = _shown(record)
    kind = EventKind.LEASE if isinstance(record, Lease) else EventKind.JOB
    return {
        "at": now,
        "owner": record.owner,
        "kind": kind.value,
        "object_id": record.id,
        "state": state,
        "reason": reason,
    }


def refusal(error: Exception) -> Exception:
    """Return what is told of a write that the database refused."""
    if not isinstance(error, exc.IntegrityError):
        return error
    conflict = Conflict(f"what was to be added does not fit what is kept: {error.orig}")
    conflict.__cause__ = error
    return conflict
