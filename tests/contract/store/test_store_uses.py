"""Use: noted apart from all else of a lease, and read for a period."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.replica import Replica, ReplicaState, Usage
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.model.usage import LeaseUse

if TYPE_CHECKING:
    from nimbus_hub.store.store import Store

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SLOT = Slot("worker", 0, "gpu-1", "10.0.0.1", 2000, 2**30, (0, 1), (20000,), 500)
QUEUED = Lease("l-1", LeaseKind.JOB, "ada", "", (SlotGroup("worker"),), HOUR, NOON)


def held(lease_id: str, start: int, end: int | None = None, owner: str = "ada") -> Lease:
    """Return a lease granted and perhaps ended so many hours after noon."""
    lease = replace(QUEUED, id=lease_id, owner=owner)
    lease = lease.granted((SLOT,), NOON + start * HOUR, 24 * HOUR)
    if end is None:
        return lease
    return lease.ended(LeaseState.RELEASED, "", NOON + end * HOUR)


def test_a_note_is_kept_and_changes_no_version(store: Store) -> None:
    lease = held("l-1", 0)
    job = Job("j-1", "", "ada", "l-1", Launch(("x",)), NOON)
    replica = Replica("j-1.1.worker-0", "j-1", 1, "worker", 0, 0, "gpu-1")
    store.add(lease, job, replica, now=NOON)
    store.note_usage({"l-1": Usage(3.5, gpu_seconds=1.25)}, {replica.id: Usage(2.5)})
    assert store.lease("l-1") == replace(lease, cpu_seconds=3.5, gpu_seconds=1.25)
    assert store.replicas("j-1") == (replace(replica, cpu_seconds=2.5),)
    assert len(store.history("l-1")) == 1


def test_who_saves_at_the_same_time_undoes_no_note(store: Store) -> None:
    lease = held("l-1", 0)
    job = Job("j-1", "", "ada", "l-1", Launch(("x",)), NOON)
    replica = Replica("r-1", "j-1", 1, "worker", 0, 0, "gpu-1")
    store.add(lease, job, replica, now=NOON)
    store.note_usage({"l-1": Usage(9.0)}, {"r-1": Usage(8.0)})
    # As read before the note, so with figures of then.
    ending = lease.ending(LeaseState.RELEASED, "given back", NOON)
    store.save(ending, replace(replica, state=ReplicaState.RUNNING), now=NOON)
    assert store.lease("l-1").cpu_seconds == 9.0
    assert store.replicas("j-1")[0].cpu_seconds == 8.0


def test_a_note_of_what_is_gone_or_over_harms_nobody(store: Store) -> None:
    store.add(held("l-1", 0, 1), now=NOON)
    store.note_usage({"l-1": Usage(2.0), "l-9": Usage(1.0)}, {"r-9": Usage(1.0)})
    store.note_usage({}, {})
    assert store.lease("l-1").cpu_seconds == 2.0


def test_all_of_a_use_is_read(store: Store) -> None:
    store.add(held("l-1", 0, 1), now=NOON)
    store.note_usage({"l-1": Usage(2.0, gpu_seconds=3.0)}, {})
    assert store.uses(NOON, NOON + HOUR) == (
        LeaseUse("l-1", "ada", LeaseKind.JOB, (SLOT,), NOON, NOON + HOUR, 2.0, 3.0),
    )


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        (0, 9, ["l-1", "l-2", "l-3"]),
        (3, 9, ["l-2", "l-3"]),  # l-1 ended at that moment
        (2, 4, ["l-1", "l-2"]),  # l-3 was granted at that moment
        (6, 9, ["l-3"]),
        (-9, 1, []),
    ],
)
def test_a_period_has_what_held_anything_in_it(
    store: Store, since: int, until: int, found: list[str]
) -> None:
    leases = [held("l-1", 1, 3), held("l-2", 2, 5), held("l-3", 4)]
    cancelled = replace(QUEUED, id="l-4").ended(LeaseState.CANCELLED, "", NOON + 2 * HOUR)
    store.add(*leases, replace(QUEUED, id="l-5"), cancelled, now=NOON)
    uses = store.uses(NOON + since * HOUR, NOON + until * HOUR)
    assert [use.lease_id for use in uses] == found


def test_one_owner_is_picked(store: Store) -> None:
    store.add(held("l-1", 0), held("l-2", 0, 1, owner="bob"), now=NOON)
    assert [use.lease_id for use in store.uses(NOON, NOON + HOUR, "bob")] == ["l-2"]
