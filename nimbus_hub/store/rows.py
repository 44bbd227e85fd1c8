"""Rows: what the model's values look like in the tables, and back. Pure functions.

A field is stored under its own name, but for ``length``. JSON is read by name, so that a
field added to the model with a default reads old rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any

from sqlalchemy import RowMapping

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.event import Event, EventKind
from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = [
    "Row",
    "Stored",
    "event_from_row",
    "job_from_row",
    "job_to_row",
    "lease_from_row",
    "lease_to_row",
    "replica_from_row",
    "replica_to_row",
]

Row = dict[str, Any]
Stored = Mapping[str, Any] | RowMapping

_MICROSECOND = timedelta(microseconds=1)


def _names(cls: type, *without: str) -> tuple[str, ...]:
    """Return the fields of a dataclass that need no conversion."""
    return tuple(field.name for field in fields(cls) if field.name not in without)


_LEASE = _names(Lease, "kind", "groups", "length", "state", "target", "slots")
_JOB = _names(Job, "launch", "state", "target")
_REPLICA = _names(Replica, "state")
_EVENT = _names(Event, "kind")
_GROUP = _names(SlotGroup)
_SLOT = _names(Slot)
_LAUNCH = _names(Launch)


def lease_to_row(lease: Lease) -> Row:
    """Return the row of a lease."""
    row = _plain(lease, _LEASE)
    row["kind"] = lease.kind.value
    row["groups"] = [_plain(group, _GROUP) for group in lease.groups]
    row["length_microseconds"] = lease.length // _MICROSECOND
    row["state"] = lease.state.value
    row["target"] = lease.target and lease.target.value
    row["slots"] = [_plain(slot, _SLOT) for slot in lease.slots]
    row["is_live"] = not lease.state.is_end
    return row


def lease_from_row(row: Stored) -> Lease:
    """Return the lease of a row."""
    return Lease(
        kind=LeaseKind(row["kind"]),
        groups=tuple(SlotGroup(**group) for group in row["groups"]),
        length=timedelta(microseconds=row["length_microseconds"]),
        state=LeaseState(row["state"]),
        target=None if row["target"] is None else LeaseState(row["target"]),
        slots=tuple(_slot(slot) for slot in row["slots"]),
        **{name: row[name] for name in _LEASE},
    )


def job_to_row(job: Job) -> Row:
    """Return the row of a job."""
    row = _plain(job, _JOB)
    row["launch"] = _plain(job.launch, _LAUNCH)
    row["state"] = job.state.value
    row["target"] = job.target and job.target.value
    row["is_live"] = not job.state.is_end
    return row


def job_from_row(row: Stored) -> Job:
    """Return the job of a row."""
    launch = row["launch"]
    return Job(
        launch=Launch(**{**launch, "argv": tuple(launch["argv"])}),
        state=JobState(row["state"]),
        target=None if row["target"] is None else JobState(row["target"]),
        **{name: row[name] for name in _JOB},
    )


def replica_to_row(replica: Replica) -> Row:
    """Return the row of a replica."""
    row = _plain(replica, _REPLICA)
    row["state"] = replica.state.value
    return row


def replica_from_row(row: Stored) -> Replica:
    """Return the replica of a row."""
    return Replica(state=ReplicaState(row["state"]), **{name: row[name] for name in _REPLICA})


def event_from_row(row: Stored) -> Event:
    """Return the event of a row."""
    return Event(kind=EventKind(row["kind"]), **{name: row[name] for name in _EVENT})


def _plain(value: object, names: tuple[str, ...]) -> Row:
    """Return named fields as they are; raise InvalidRequest for text no database keeps.

    PostgreSQL keeps no NUL, and neither it nor SQLite keeps half of a surrogate pair.
    """
    row = {name: getattr(value, name) for name in names}
    for name, found in row.items():
        if isinstance(found, str) and not _is_storable(found):
            raise InvalidRequest(f"{name} must be text without NUL characters, got {found!r}")
    return row


def _is_storable(text: str) -> bool:
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _slot(found: Mapping[str, Any]) -> Slot:
    return Slot(**{**found, "gpus": tuple(found["gpus"]), "ports": tuple(found["ports"])})
