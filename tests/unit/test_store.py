"""The store: what is written is read again, guards hold, and every change is told."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from nimbus_hub.errors import Conflict, InvalidRequest, NimbusError, NotFound, Unavailable
from nimbus_hub.model.event import Event, EventKind
from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.store.store import Live, Record, Store

NOW = datetime(2026, 5, 4, 12, 30, 0, 123456, UTC)
HOUR = timedelta(hours=1)
GROUPS = (SlotGroup("worker", 2, gpus=1, gpu_model="A100"),)
SLOTS = tuple(
    Slot("worker", index, "host-a", "127.0.0.1", 1000, 2**30, (index,), (20000 + index,))
    for index in range(2)
)
POSTGRESQL = os.environ.get("NIMBUS_TEST_POSTGRESQL", "")


def make_lease(lease_id: str = "l-1", owner: str = "ann", **changes: object) -> Lease:
    lease = Lease(lease_id, LeaseKind.JOB, owner, "digits", GROUPS, HOUR, NOW)
    return replace(lease, **changes)  # type: ignore[arg-type]


def make_job(job_id: str = "j-1", lease_id: str = "l-1", **changes: object) -> Job:
    launch = Launch(("python", "train.py"), "pytorch", {"A": "1"}, "a" * 64, retries=2)
    return replace(Job(job_id, "digits", "ann", lease_id, launch, NOW), **changes)  # type: ignore[arg-type]


def make_replica(rank: int = 0, attempt: int = 1, job_id: str = "j-1") -> Replica:
    replica_id = f"{job_id}-{attempt}-{rank}"
    return Replica(replica_id, job_id, attempt, "worker", rank, rank, "host-a")


def fresh_url(kind: str, directory: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{directory}/state/nimbus.sqlite"
    engine = create_engine(POSTGRESQL.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return POSTGRESQL


@pytest.fixture(params=["sqlite", "postgresql"] if POSTGRESQL else ["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return fresh_url(request.param, tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    found = Store.open(url)
    yield found
    found.close()


# Opening


def test_a_new_database_is_empty(store: Store) -> None:
    assert store.live() == Live((), (), ())
    assert store.leases() == store.jobs() == store.events() == ()
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
    in_thread(lambda: store.add(make_lease(), now=NOW))
    assert store.lease("l-1") == make_lease()
    store.close()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("", "must be a URL"),
        ("nimbus.sqlite", "must be a URL"),
        ("mysql://localhost/nimbus", "must be sqlite:// or postgresql://"),
        ("sqlite:////dev/null/nimbus.sqlite", "cannot be made"),
    ],
)
def test_a_url_that_cannot_work_is_refused_with_the_reason(bad: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Store.open(bad)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes\n" * 100)
    with pytest.raises(InvalidRequest, match=r"notes\.txt cannot be used: .*not a database"):
        Store.open(f"sqlite:///{path}")


def test_a_server_that_does_not_answer_is_unavailable_and_its_password_is_not_shown() -> None:
    with pytest.raises(Unavailable, match="does not answer") as caught:
        Store.open("postgresql://nimbus:secret@127.0.0.1:1/nimbus?connect_timeout=2")
    assert "secret" not in caught.value.message


# Writing and reading


def test_what_is_added_is_read_again(store: Store) -> None:
    lease = make_lease().granted(SLOTS, NOW, 12 * HOUR)
    replicas = (make_replica(0), make_replica(1))
    # The order does not matter: what is referred to goes first.
    store.add(*replicas, make_job(), lease, now=NOW)
    assert store.lease("l-1") == lease
    assert store.job("j-1") == make_job()
    assert store.replicas("j-1") == replicas
    assert store.job_of_lease("l-1") == make_job()
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
    assert store.job_of_lease("l-1") == jobs[2]
    assert store.job_of_lease("l-9") is None


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


def in_thread(call: Callable[[], object]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not failures


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
    conflicts = []

    def renew(store: Store) -> None:
        done = 0
        while done < 20:
            lease = store.lease("l-1")
            try:
                store.save(replace(lease, renewals=lease.renewals + 1), now=NOW)
            except Conflict:
                conflicts.append(lease.version)
            else:
                done += 1

    threads = [threading.Thread(target=renew, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
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


# Anything goes in and comes out

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1), timezones=st.just(UTC))
MAYBE_MOMENT = st.none() | MOMENTS
COUNTS = st.integers(0, 2**31 - 1)
BYTES = st.integers(1, 2**60)
INDICES = st.lists(st.integers(0, 65535), max_size=3).map(tuple)
ROLES = st.from_regex(r"[a-z][a-z0-9-]{0,29}", fullmatch=True)
ANY_LEASE = st.builds(
    Lease,
    id=st.just("l-1"),
    kind=st.sampled_from(LeaseKind),
    owner=TEXTS,
    name=TEXTS,
    groups=st.lists(
        st.builds(
            SlotGroup,
            ROLES,
            st.integers(1, 10_000),
            BYTES,
            BYTES,
            COUNTS,
            st.none() | TEXTS,
        ),
        max_size=3,
    ).map(tuple),
    length=st.timedeltas(timedelta(microseconds=1), timedelta(days=3650)),
    created_at=MOMENTS,
    environment=TEXTS,
    state=st.sampled_from(LeaseState),
    target=st.none() | st.sampled_from(LeaseState),
    reason=TEXTS,
    slots=st.lists(
        st.builds(Slot, ROLES, COUNTS, TEXTS, TEXTS, BYTES, BYTES, INDICES, INDICES),
        max_size=3,
    ).map(tuple),
    position=st.none() | COUNTS,
    starts_by=MAYBE_MOMENT,
    wait_until=MAYBE_MOMENT,
    granted_at=MAYBE_MOMENT,
    active_at=MAYBE_MOMENT,
    expires_at=MAYBE_MOMENT,
    latest_end=MAYBE_MOMENT,
    renewals=COUNTS,
    ending_at=MAYBE_MOMENT,
    saved_at=MAYBE_MOMENT,
    ended_at=MAYBE_MOMENT,
)
ANY_JOB = st.builds(
    Job,
    id=st.just("j-1"),
    name=TEXTS,
    owner=TEXTS,
    lease_id=st.just("l-1"),
    launch=st.builds(
        Launch,
        st.lists(st.text(), max_size=3).map(tuple),
        st.text(),
        st.dictionaries(st.text(), st.text(), max_size=3),
        st.none() | st.text(),
        st.text(),
        COUNTS,
    ),
    created_at=MOMENTS,
    state=st.sampled_from(JobState),
    target=st.none() | st.sampled_from(JobState),
    reason=TEXTS,
    attempt=COUNTS,
    progress=st.none() | st.floats(0, 1),
    progress_message=TEXTS,
    started_at=MAYBE_MOMENT,
    ended_at=MAYBE_MOMENT,
)
ANY_REPLICA = st.builds(
    Replica,
    id=st.just("r-1"),
    job_id=st.just("j-1"),
    attempt=COUNTS,
    role=TEXTS,
    role_rank=COUNTS,
    rank=COUNTS,
    host=TEXTS,
    state=st.sampled_from(ReplicaState),
    exit_code=st.none() | st.integers(-64, 2**32),
    reason=TEXTS,
    directory=TEXTS,
    started_at=MAYBE_MOMENT,
    ended_at=MAYBE_MOMENT,
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"] if POSTGRESQL else ["sqlite"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    store = Store.open(fresh_url(request.param, tmp_path_factory.mktemp("filled")))
    yield store
    store.close()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lease=ANY_LEASE, job=ANY_JOB, replica=ANY_REPLICA, number=st.uuids())
def test_anything_goes_in_and_comes_out(
    filled: Store, lease: Lease, job: Job, replica: Replica, number: object
) -> None:
    lease_id, job_id, replica_id = (f"{letter}-{number}" for letter in "ljr")
    lease = replace(lease, id=lease_id)
    job = replace(job, id=job_id, lease_id=lease_id)
    replica = replace(replica, id=replica_id, job_id=job_id)
    records: tuple[Record, ...] = (lease, job, replica)
    filled.add(*records, now=NOW)
    assert (filled.lease(lease_id), filled.job(job_id), *filled.replicas(job_id)) == records
    saved = filled.save(*records, now=NOW)
    assert saved == (replace(lease, version=2), replace(job, version=2), replica)
    assert (filled.lease(lease_id), filled.job(job_id), *filled.replicas(job_id)) == saved
    assert [event.state for event in filled.history(lease_id)] == [lease.public_state]
