"""Rows: what the model's values look like in the tables, and back. Pure functions.

A field is stored under its own name, but for ``length``. JSON is read by name, so that a
field added to the model with a default reads old rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any

from sqlalchemy import RowMapping

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.event import Event, EventKind
from nimbus_hub.model.heartbeat import Heartbeat
from nimbus_hub.model.host import HostMark, HostState
from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup, Topology
from nimbus_hub.model.wishes import DataUse, Wishes

__all__ = [
    "Row",
    "Stored",
    "event_from_row",
    "heartbeat_from_row",
    "heartbeat_to_row",
    "host_mark_from_row",
    "host_mark_to_row",
    "job_from_row",
    "job_to_changes",
    "job_to_row",
    "lease_from_row",
    "lease_to_changes",
    "lease_to_row",
    "replica_from_row",
    "replica_to_changes",
    "replica_to_row",
    "slots_from_json",
]

Row = dict[str, Any]
Stored = Mapping[str, Any] | RowMapping

_MICROSECOND = timedelta(microseconds=1)
_TEXTS = frozenset({str, tuple})
_NO_WISHES = Wishes()


def _names(cls: type, *without: str) -> tuple[str, ...]:
    """Return the fields of a dataclass that need no conversion."""
    return tuple(field.name for field in fields(cls) if field.name not in without)


_LEASE = _names(Lease, "kind", "groups", "length", "wishes", "state", "target", "slots", "opened")
_JOB = _names(Job, "launch", "state", "target")
_REPLICA = _names(Replica, "state")
# What is noted of use has a write of its own (see uses.py), which no other may undo.
_USED = ("cpu_seconds", "gpu_seconds")
# What is asked for is written once; an update leaves it out.
_LEASE_ASKED = ("id", "owner", "name", "created_at", "environment", "parent", "size")
_LEASE_CHANGES = tuple(name for name in _LEASE if name not in (*_LEASE_ASKED, *_USED))
_JOB_ASKED = ("id", "owner", "name", "created_at", "is_holder", "run", "earlier_turns")
_JOB_CHANGES = tuple(name for name in _JOB if name not in _JOB_ASKED)
_REPLICA_ASKED = ("id", "job_id", "attempt", "role", "role_rank", "rank", "host", "restarts")
_REPLICA_CHANGES = tuple(name for name in _REPLICA if name not in (*_REPLICA_ASKED, *_USED))
_EVENT = _names(Event, "kind")
_HEARTBEAT = _names(Heartbeat)
_HOST_MARK = _names(HostMark, "state")
_GROUP = _names(SlotGroup, "topology")
_WISHES = _names(Wishes, "inputs", "outputs", "expected")
_DATA_USE = _names(DataUse)
_SLOT = _names(Slot)
_LAUNCH = _names(Launch)


def lease_to_row(lease: Lease) -> Row:
    """Return the row of a lease."""
    row = _plain(lease, (*_LEASE_ASKED, *_USED))
    row["kind"] = lease.kind.value
    row["groups"] = [_group_to_json(group) for group in lease.groups]
    row["length_microseconds"] = lease.length // _MICROSECOND
    row["wishes"] = _wishes_to_json(lease.wishes)
    return row | lease_to_changes(lease)


def lease_to_changes(lease: Lease) -> Row:
    """Return what of a lease's row may change: all but what was asked for and what was used."""
    row = _plain(lease, _LEASE_CHANGES)
    row["state"] = lease.state.value
    row["target"] = lease.target and lease.target.value
    row["slots"] = [_plain(slot, _SLOT) for slot in lease.slots]
    row["opened"] = list(lease.opened)
    row["is_live"] = not lease.state.is_end
    return row


def lease_from_row(row: Stored) -> Lease:
    """Return the lease of a row."""
    return Lease(
        kind=LeaseKind(row["kind"]),
        groups=tuple(_group(group) for group in row["groups"]),
        length=timedelta(microseconds=row["length_microseconds"]),
        wishes=_wishes(row["wishes"] or {}),
        state=LeaseState(row["state"]),
        target=None if row["target"] is None else LeaseState(row["target"]),
        slots=slots_from_json(row["slots"]),
        opened=tuple(row["opened"] or ()),
        **{name: row[name] for name in _LEASE},
    )


def slots_from_json(slots: Iterable[Mapping[str, Any]]) -> tuple[Slot, ...]:
    """Return the slots of a lease's row."""
    return tuple(map(_slot, slots))


def job_to_row(job: Job) -> Row:
    """Return the row of a job."""
    row = _plain(job, _JOB_ASKED)
    row["launch"] = _plain(job.launch, _LAUNCH)
    return row | job_to_changes(job)


def job_to_changes(job: Job) -> Row:
    """Return what of a job's row may change: all but what was asked for."""
    row = _plain(job, _JOB_CHANGES)
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
    return _plain(replica, (*_REPLICA_ASKED, *_USED)) | replica_to_changes(replica)


def replica_to_changes(replica: Replica) -> Row:
    """Return what of a replica's row may change: all but what and where it is, and its use."""
    row = _plain(replica, _REPLICA_CHANGES)
    row["state"] = replica.state.value
    return row


def replica_from_row(row: Stored) -> Replica:
    """Return the replica of a row."""
    return Replica(state=ReplicaState(row["state"]), **{name: row[name] for name in _REPLICA})


def event_from_row(row: Stored) -> Event:
    """Return the event of a row."""
    return Event(kind=EventKind(row["kind"]), **{name: row[name] for name in _EVENT})


def heartbeat_to_row(beat: Heartbeat) -> Row:
    """Return the row of a sign of life."""
    return _plain(beat, _HEARTBEAT)


def heartbeat_from_row(row: Stored) -> Heartbeat:
    """Return the sign of life of a row."""
    return Heartbeat(**{name: row[name] for name in _HEARTBEAT})


def host_mark_to_row(mark: HostMark) -> Row:
    """Return the row of a host's mark."""
    row = _plain(mark, _HOST_MARK)
    row["state"] = mark.state.value
    return row


def host_mark_from_row(row: Stored) -> HostMark:
    """Return the mark of a row."""
    return HostMark(state=HostState(row["state"]), **{name: row[name] for name in _HOST_MARK})


def _plain(value: object, names: tuple[str, ...]) -> Row:
    """Return named fields as they are; raise InvalidRequest for text no database keeps.

    PostgreSQL keeps no NUL, and neither it nor SQLite keeps half of a surrogate pair.
    """
    row = {name: getattr(value, name) for name in names}
    for name, found in row.items():
        # By exact class, since this runs for every value that is written.
        if found.__class__ in _TEXTS and not _is_storable(found):
            raise InvalidRequest(f"{name} must be text without NUL characters, got {found!r}")
    return row


def _is_storable(text: object) -> bool:
    if isinstance(text, tuple):
        return all(map(_is_storable, text))
    if not isinstance(text, str):
        return True
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _slot(found: Mapping[str, Any]) -> Slot:
    return Slot(**{**found, "gpus": tuple(found["gpus"]), "ports": tuple(found["ports"])})


def _group_to_json(group: SlotGroup) -> Row:
    found = _plain(group, _GROUP)
    found["topology"] = group.topology and group.topology.value
    return found


def _group(found: Mapping[str, Any]) -> SlotGroup:
    values = dict(found)
    # Until 0002 a group named one model, or none for any.
    older = values.pop("gpu_model", None)
    models = values.pop("gpu_models", () if older is None else (older,))
    topology = values.pop("topology", None)
    return SlotGroup(
        gpu_models=tuple(models),
        topology=None if topology is None else Topology(topology),
        **values,
    )


def _wishes_to_json(wishes: Wishes) -> Row:
    if wishes == _NO_WISHES:
        return {}
    found = _plain(wishes, _WISHES)
    found["inputs"] = [_plain(use, _DATA_USE) for use in wishes.inputs]
    found["outputs"] = [_plain(use, _DATA_USE) for use in wishes.outputs]
    found["expected"] = None if wishes.expected is None else wishes.expected // _MICROSECOND
    return found


def _wishes(found: Mapping[str, Any]) -> Wishes:
    if not found:
        return _NO_WISHES
    values = dict(found)
    expected = values.pop("expected", None)
    return Wishes(
        inputs=tuple(DataUse(**use) for use in values.pop("inputs", ())),
        outputs=tuple(DataUse(**use) for use in values.pop("outputs", ())),
        expected=None if expected is None else timedelta(microseconds=expected),
        **values,
    )
