"""The store: what is written is read again, guards hold, and every change is told."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from nimbus_hub.errors import Conflict, InvalidRequest, NimbusError, NotFound
from nimbus_hub.model.event import Event, EventKind
from nimbus_hub.model.host import HostMark, HostState
from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.store.store import Live, Store

NOW = datetime(2026, 5, 4, 12, 30, 0, 123456, UTC)
HOUR = timedelta(hours=1)
GROUPS = (SlotGroup("worker", 2, gpus=1, gpu_models=("A100",)),)
SLOTS = tuple(
    Slot("worker", index, "host-a", "127.0.0.1", 1000, 2**30, (index,), (20000 + index,))
    for index in range(2)
)


def make_lease(lease_id: str = "l-1", owner: str = "ann", **changes: object) -> Lease:
    lease = Lease(lease_id, LeaseKind.JOB, owner, "digits", GROUPS, HOUR, NOW)
    return replace(lease, **changes)  # type: ignore[arg-type]


def make_job(job_id: str = "j-1", lease_id: str = "l-1", **changes: object) -> Job:
    launch = Launch(("python", "train.py"), "pytorch", {"A": "1"}, "a" * 64, retries=2)
    return replace(Job(job_id, "digits", "ann", lease_id, launch, NOW), **changes)  # type: ignore[arg-type]


def make_replica(rank: int = 0, attempt: int = 1, job_id: str = "j-1") -> Replica:
    replica_id = f"{job_id}-{attempt}-{rank}"
    return Replica(replica_id, job_id, attempt, "worker", rank, rank, "host-a")


# Opening


def test_a_new_database_is_empty(store: Store) -> None:
    assert store.live() == Live((), (), ())
    assert (store.leases(), store.jobs(), store.events()) == ((), (), ())
    assert store.last_event_id() == 0


def test_what_was_written_is_there_when_opened_again(url: str) -> None:
    first = Store.open(url)
    first.add(make_lease(), now=NOW)
    first.close()
    second = Store.open(url)
    assert second.lease("l-1") == make_lease()
    second.close()


def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state" / "nimbus.sqlite"
    store = Store.open(f"sqlite:///{path}")
    store.add(make_lease(), now=NOW)
    modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
    assert set(modes) == {"nimbus.sqlite", "nimbus.sqlite-wal", "nimbus.sqlite-shm"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()


def test_a_database_in_memory_is_shared_by_threads() -> None:
    store = Store.open("sqlite://")
    with ThreadPoolExecutor(2) as threads:
        threads.submit(store.add, make_lease(), now=NOW).result(30)
    assert store.lease("l-1") == make_lease()
    store.close()


# Writing and reading


def test_what_is_added_is_read_again(store: Store) -> None:
    lease = make_lease().granted(SLOTS, NOW, 12 * HOUR)
    replicas = (make_replica(0), make_replica(1))
    # The order does not matter: what is referred to goes first.
    store.add(*replicas, make_job(), lease, now=NOW)
    assert store.lease("l-1") == lease
    assert store.job("j-1") == make_job()
    assert store.replicas("j-1") == replicas
    assert store.live() == Live((lease,), (make_job(),), replicas)


def test_saving_counts_the_version_and_keeps_the_order(store: Store) -> None:
    lease, job, replica = make_lease(), make_job(), make_replica()
    store.add(lease, job, replica, now=NOW)
    running = replace(replica, state=ReplicaState.RUNNING, started_at=NOW, directory="/srv/x")
    saved = store.save(running, job.moved(JobState.STARTING), lease, now=NOW)
    assert saved == (
        running,
        replace(job, state=JobState.STARTING, version=2),
        replace(lease, version=2),
    )
    assert (store.replicas("j-1")[0], store.job("j-1"), store.lease("l-1")) == saved


def test_one_call_saves_and_adds(store: Store) -> None:
    store.add(make_lease(), make_job(), now=NOW)
    starting = make_job().moved(JobState.STARTING)
    (saved,) = store.save(starting, new=[make_replica(0), make_replica(1)], now=NOW)
    assert saved == replace(starting, version=2)
    assert [replica.name for replica in store.replicas("j-1")] == ["worker-0", "worker-1"]


def test_saving_nothing_is_allowed(store: Store) -> None:
    store.add(now=NOW)
    assert store.save(now=NOW) == ()


def test_live_has_the_current_attempts_of_what_is_not_over(store: Store) -> None:
    over = make_lease("l-0").ending(LeaseState.CANCELLED, "no longer needed", NOW)
    job = make_job(attempt=2, state=JobState.STARTING)
    done = make_job("j-2", state=JobState.FAILED)
    store.add(over, make_lease(), job, done, now=NOW)
    store.add(*(make_replica(rank, attempt) for attempt in (1, 2) for rank in (1, 0)), now=NOW)
    store.add(make_replica(job_id="j-2"), now=NOW)
    replicas = (make_replica(0, 2), make_replica(1, 2))
    assert store.live() == Live((make_lease(),), (job,), replicas)
    assert store.replicas("j-1", 2) == replicas
    assert len(store.replicas("j-1")) == 4


def test_lists_are_newest_first_and_filtered(store: Store) -> None:
    leases = [
        make_lease("l-1", "ann", created_at=NOW),
        make_lease("l-2", "bob", created_at=NOW + HOUR),
        make_lease("l-3", "ann", created_at=NOW + 2 * HOUR, kind=LeaseKind.SESSION, name=""),
        make_lease("l-4", "ann", created_at=NOW + 3 * HOUR, state=LeaseState.LOST),
    ]
    store.add(*leases, now=NOW)

    def ids(found: tuple[Lease, ...]) -> list[str]:
        return [lease.id for lease in found]

    assert ids(store.leases()) == ["l-4", "l-3", "l-2", "l-1"]
    assert ids(store.leases(limit=2)) == ["l-4", "l-3"]
    assert ids(store.leases(owner="ann", is_live=True)) == ["l-3", "l-1"]
    assert ids(store.leases(is_live=False)) == ["l-4"]
    assert ids(store.leases(kind=LeaseKind.SESSION)) == ["l-3"]
    assert ids(store.leases(name="")) == ["l-3"]
    assert store.leases(owner="o'; DROP TABLE leases; --") == ()


def test_jobs_are_newest_first_and_filtered(store: Store) -> None:
    jobs = [
        make_job("j-1", created_at=NOW),
        make_job("j-2", created_at=NOW + HOUR, owner="bob"),
        make_job("j-3", created_at=NOW + 2 * HOUR, state=JobState.STOPPED),
    ]
    store.add(make_lease(), *jobs, now=NOW)
    assert store.jobs() == (jobs[2], jobs[1], jobs[0])
    assert store.jobs(owner="ann", is_live=True) == (jobs[0],)
    assert store.jobs(is_live=False, limit=5) == (jobs[2],)


def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="there is no lease l-9"):
        store.lease("l-9")
    with pytest.raises(NotFound, match="there is no job j-9"):
        store.job("j-9")


def test_what_another_owner_has_is_not_found(store: Store) -> None:
    store.add(make_lease(), make_job(), now=NOW)
    assert store.lease("l-1", "ann") == make_lease()
    assert store.job("j-1", "ann") == make_job()
    with pytest.raises(NotFound, match="there is no lease l-1"):
        store.lease("l-1", "bob")
    with pytest.raises(NotFound, match="there is no job j-1"):
        store.job("j-1", "bob")


def test_a_moment_of_any_zone_is_kept_and_read_in_utc(store: Store) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=45)))
    store.add(make_lease(created_at=elsewhere), now=elsewhere)
    found = store.lease("l-1").created_at
    assert (found, found.tzinfo) == (NOW, UTC)
    assert store.events()[0].at.tzinfo is UTC


def test_a_moment_without_a_zone_is_refused(store: Store) -> None:
    with pytest.raises(Exception, match="must have a time zone"):
        store.add(make_lease(created_at=NOW.replace(tzinfo=None)), now=NOW)
    assert store.leases() == ()


@pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
def test_text_that_no_database_keeps_is_refused(store: Store, bad: str) -> None:
    with pytest.raises(InvalidRequest, match="reason must be text"):
        store.add(make_lease(reason=bad), now=NOW)


@pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
def test_a_list_of_texts_that_no_database_keeps_is_refused(store: Store, bad: str) -> None:
    groups = (SlotGroup("worker", gpus=1, gpu_models=("A100", bad)),)
    with pytest.raises(InvalidRequest, match="gpu_models must be text"):
        store.add(make_lease(groups=groups), now=NOW)


# What was used


def test_leases_that_had_something_are_found_by_when_they_ended(store: Store) -> None:
    granted: dict[str, Any] = {"granted_at": NOW, "state": LeaseState.RELEASED}
    leases = [
        make_lease("l-1", ended_at=NOW + 3 * HOUR, **granted),
        make_lease("l-2", ended_at=NOW + 2 * HOUR, **granted),
        make_lease("l-3", ended_at=NOW + HOUR, **granted),
        make_lease("l-4", ended_at=NOW + 2 * HOUR, state=LeaseState.CANCELLED),
        make_lease("l-5", granted_at=NOW, state=LeaseState.ACTIVE),
    ]
    store.add(*leases, now=NOW)
    assert store.ended_since(NOW + HOUR) == (leases[1], leases[0])
    assert store.ended_since(NOW + 3 * HOUR) == ()


# Marks of hosts


def test_a_mark_stays_until_it_is_taken_back(url: str) -> None:
    first = Store.open(url)
    marks = (
        first.mark_host("cpu-1", "", "root", NOW),
        first.mark_host("gpu-1", "new fans", "ann", NOW),
    )
    assert marks[1] == HostMark("gpu-1", "new fans", "ann", NOW, HostState.DRAINING)
    first.close()
    second = Store.open(url)
    assert second.host_marks() == marks
    second.unmark_host("cpu-1")
    second.unmark_host("cpu-1")
    assert second.host_marks() == marks[1:]
    second.close()


def test_a_host_has_one_mark_the_last(store: Store) -> None:
    store.mark_host("gpu-1", "new fans", "ann", NOW)
    last = store.mark_host("gpu-1", "new kernel", "bob", NOW + HOUR)
    assert store.host_marks() == (last,)


def test_a_mark_with_text_that_no_database_keeps_is_refused(store: Store) -> None:
    store.mark_host("gpu-1", "new fans", "ann", NOW)
    with pytest.raises(InvalidRequest, match="reason must be text"):
        store.mark_host("gpu-1", "a\0b", "ann", NOW)
    assert [mark.reason for mark in store.host_marks()] == ["new fans"]


# Guards

Change = Callable[[Store], object]
STALE: list[tuple[str, type[NimbusError], Change]] = [
    (
        "lease l-1 changed meanwhile",
        Conflict,
        lambda store: store.save(replace(make_lease(), version=7), now=NOW),
    ),
    (
        "job j-1 changed meanwhile",
        Conflict,
        lambda store: store.save(make_lease(), replace(make_job(), version=7), now=NOW),
    ),
    (
        "replica j-1-1-0 is exited and cannot become running",
        Conflict,
        lambda store: store.save(
            make_lease(), replace(make_replica(), state=ReplicaState.RUNNING), now=NOW
        ),
    ),
    (
        "lease l-1 was to be saved twice at once",
        Conflict,
        lambda store: store.save(make_lease(), make_lease(), now=NOW),
    ),
    (
        "there is no lease l-9",
        NotFound,
        lambda store: store.save(make_lease(), make_lease("l-9"), now=NOW),
    ),
    (
        "there is no replica j-1-1-5",
        NotFound,
        lambda store: store.save(make_lease(), make_replica(5), now=NOW),
    ),
    (
        "there is a lease l-1 already",
        Conflict,
        lambda store: store.add(make_lease("l-9"), make_lease(), now=NOW),
    ),
    (
        "there is a replica j-1-1-0 already",
        Conflict,
        lambda store: store.save(make_lease(), new=[make_replica()], now=NOW),
    ),
    (
        "does not fit",
        Conflict,
        lambda store: store.save(make_lease(), new=[make_job("j-2", "l-9")], now=NOW),
    ),
    (
        "does not fit",
        Conflict,
        lambda store: store.add(make_replica(1), replace(make_replica(1), id="other"), now=NOW),
    ),
]


@pytest.mark.parametrize(("words", "error", "change"), STALE)
def test_who_comes_too_late_changes_nothing(
    store: Store, words: str, error: type[NimbusError], change: Change
) -> None:
    gone = replace(make_replica(), state=ReplicaState.EXITED, exit_code=1)
    store.add(make_lease(), make_job(), gone, now=NOW)
    with pytest.raises(error, match=words):
        change(store)
    assert store.live() == Live((make_lease(),), (make_job(),), (gone,))
    assert store.leases() == (make_lease(),)
    assert store.last_event_id() == 2


def test_a_replica_may_be_saved_in_the_state_it_has(store: Store) -> None:
    gone = replace(make_replica(), state=ReplicaState.EXITED, exit_code=1)
    store.add(make_lease(), make_job(), gone, now=NOW)
    told = replace(gone, reason="ended by the memory limit")
    assert store.save(told, now=NOW) == (told,)
    assert store.replicas("j-1") == (told,)


# Events


def test_every_public_change_is_an_event(store: Store) -> None:
    store.add(make_lease(), make_job(), now=NOW)
    lease, job = store.save(
        make_lease().granted(SLOTS, NOW, 12 * HOUR),
        make_job().moved(JobState.STARTING),
        now=NOW + HOUR,
    )
    lease, job = store.save(
        lease.ending(LeaseState.EXPIRED, "time is up", NOW), job, now=NOW + 2 * HOUR
    )
    # Saved documents change nothing that people see, and the job did not change at all.
    (lease,) = store.save(replace(lease, saved_at=NOW), now=NOW + 2 * HOUR)
    store.save(lease.ended(LeaseState.RELEASED, "", NOW), now=NOW + 3 * HOUR)
    expected = [
        (0, EventKind.LEASE, "l-1", "queued", ""),
        (0, EventKind.JOB, "j-1", "queued", ""),
        (1, EventKind.LEASE, "l-1", "granted", ""),
        (1, EventKind.JOB, "j-1", "starting", ""),
        (2, EventKind.LEASE, "l-1", "expiring", "time is up"),
        (3, EventKind.LEASE, "l-1", "expired", "time is up"),
    ]
    events = tuple(
        Event(number, NOW + hours * HOUR, "ann", kind, object_id, state, reason)
        for number, (hours, kind, object_id, state, reason) in enumerate(expected, 1)
    )
    assert store.events() == events
    assert store.history("j-1") == (events[1], events[3])
    assert store.last_event_id() == 6


def test_another_reason_is_an_event_even_in_the_same_state(store: Store) -> None:
    store.add(make_lease(reason="3 before you"), now=NOW)
    store.save(make_lease(reason="2 before you"), now=NOW)
    assert [event.reason for event in store.events()] == ["3 before you", "2 before you"]


def test_events_are_read_by_owner_from_where_one_was(store: Store) -> None:
    owners = ["ann", "bob", "ann", "ann"]
    leases = [make_lease(f"l-{index}", owner) for index, owner in enumerate(owners)]
    store.add(*leases, now=NOW)
    assert [event.id for event in store.events("ann")] == [1, 3, 4]
    assert [event.id for event in store.events("ann", after=1, limit=1)] == [3]
    assert [event.id for event in store.events(after=2)] == [3, 4]
    assert store.events(after=4) == ()


# Many at once


def test_a_thousand_leases_are_granted_in_one_call(store: Store) -> None:
    leases = [make_lease(f"l-{number}") for number in range(1001)]
    store.add(*leases, now=NOW)
    granted = [lease.granted(SLOTS, NOW, 12 * HOUR) for lease in leases]
    started = time.perf_counter()
    saved = store.save(*granted, now=NOW)
    seconds = time.perf_counter() - started
    assert saved == tuple(replace(lease, version=2) for lease in granted)
    assert {lease.id: lease for lease in store.live().leases} == {item.id: item for item in saved}
    # It takes a tenth of this; the rest is for machines that do much else.
    assert seconds < 1.5


def test_two_stores_on_one_database_take_turns_and_lose_nothing(url: str) -> None:
    stores = [Store.open(url), Store.open(url)]
    stores[0].add(make_lease(), now=NOW)

    def renew(store: Store) -> None:
        done = 0
        while done < 20:
            lease = store.lease("l-1")
            try:
                store.save(replace(lease, renewals=lease.renewals + 1), now=NOW)
            except Conflict:
                continue
            done += 1

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(renew, stores, timeout=60))
    assert stores[1].lease("l-1") == make_lease(renewals=40, version=41)
    for store in stores:
        store.close()


def test_a_reader_sees_one_moment_and_holds_up_no_writer(url: str) -> None:
    reader, writer = Store.open(url), Store.open(url)
    with reader._database.reading() as connection:
        count = text("SELECT count(*) FROM leases")
        assert connection.scalar(count) == 0
        writer.add(make_lease(), now=NOW)
        assert connection.scalar(count) == 0
    assert reader.leases() == (make_lease(),)
    reader.close()
    writer.close()
