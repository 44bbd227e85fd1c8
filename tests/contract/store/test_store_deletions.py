"""Deletions: which jobs have left something that is not wanted, and which snapshots are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.slot import SlotGroup

if TYPE_CHECKING:
    from nimbus_hub.store.store import Store

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def job(number: int, snapshot: str | None, ended: int | None = None, owner: str = "ada") -> Job:
    """Return a job of lease l-1 that ended so many days after noon, or lives."""
    launch = Launch(("x",), snapshot=snapshot)
    made = Job(f"j-{number}", "", owner, "l-1", launch, NOON)
    return made if ended is None else made.ended(JobState.STOPPED, "", NOON + ended * DAY)


def test_what_was_deleted_or_is_old_is_found_until_it_is_gone(store: Store) -> None:
    lease = Lease("l-1", LeaseKind.JOB, "ada", "", (SlotGroup("worker"),), DAY, NOON)
    jobs = [job(1, "a"), job(2, "b", 1), job(3, "b", 2), job(4, None, 9), job(5, "a", 9, "bob")]
    store.add(lease, *jobs, now=NOON)

    def found(days: int | None, limit: int = 9) -> list[str]:
        before = None if days is None else NOON + days * DAY
        return [each.id for each in store.jobs_given_up(before, limit)]

    assert (found(None), found(1), found(3), found(3, 1)) == ([], [], ["j-2", "j-3"], ["j-2"])
    assert store.needed_snapshots() == {"ada": {"a", "b"}, "bob": {"a"}}
    (deleted,) = store.save(jobs[4].deleting("deleted by bob", NOON + 9 * DAY), now=NOON)
    assert store.job("j-5") == deleted
    assert (deleted.deletion, deleted.deleted_at) == ("deleted by bob", NOON + 9 * DAY)
    assert (found(None), found(2)) == (["j-5"], ["j-2", "j-5"])
    store.save(deleted.without_leavings(), now=NOON)
    assert found(None) == []
    assert store.needed_snapshots() == {"ada": {"a", "b"}}
    assert replace(store.job("j-5"), version=0) == replace(deleted, is_kept=False, version=0)
