"""The store: what several callers ask for at once is answered as if each had been alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, event

from nimbus_hub.errors import Conflict, InvalidRequest, NotFound, Unavailable
from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.store.database import Database
from nimbus_hub.store.store import Known, Live, Store, Write

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def make_lease(lease_id: str = "l-1", owner: str = "ann", **changes: object) -> Lease:
    groups = (SlotGroup("worker"),)
    lease = Lease(lease_id, LeaseKind.SESSION, owner, lease_id, groups, HOUR, NOW)
    return replace(lease, **changes)  # type: ignore[arg-type]


def make_job(job_id: str = "j-1", lease_id: str = "l-1") -> Job:
    return Job(job_id, "digits", "ann", lease_id, Launch(("python",), "script", {}), NOW)


def granted(lease: Lease) -> Lease:
    slot = Slot("worker", 0, "host-a", "127.0.0.1", 1000, 2**30)
    return lease.granted((slot,), NOW, 12 * HOUR, "host-a is the only one")


def save(*records: Lease | Job | Replica) -> Write:
    return Write(records, (), NOW)


def add(*records: Lease | Job | Replica) -> Write:
    return Write((), records, NOW)


@contextmanager
def counted(what: str, store: Store) -> Iterator[list[str]]:
    """Collect the statements that start so."""
    engine: Engine = store._database._engine
    seen: list[str] = []

    def note(_c: object, _r: object, statement: str, *_: object) -> None:
        if statement.startswith(what):
            seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


# Writing


def test_writes_of_one_moment_are_one_transaction_and_one_statement_a_table(store: Store) -> None:
    leases = [make_lease(f"l-{number}") for number in range(50)]
    commits: list[object] = []
    event.listen(store._database._engine, "commit", commits.append)
    with counted("INSERT", store) as statements:
        assert store.write_each([add(lease) for lease in leases]) == [()] * 50
    assert (len(commits), len(statements)) == (1, 2)
    saved = store.write_each([save(granted(lease)) for lease in leases])
    assert saved == [(replace(granted(lease), version=2),) for lease in leases]
    assert store.live().leases == tuple(saved[at][0] for at in sorted(range(50), key=str))  # type: ignore[index]


def test_who_is_refused_changes_nothing_and_harms_nobody(store: Store) -> None:
    store.add(*(make_lease(f"l-{number}") for number in (1, 2, 3)), make_job(), now=NOW)
    outcomes = store.write_each(
        [
            save(granted(make_lease("l-1"))),
            save(granted(make_lease("l-2")), replace(make_lease("l-3"), version=9)),
            save(granted(make_lease("l-9"))),
            add(make_lease("l-4"), make_lease("l-2")),
            add(make_lease("l-5", reason="a\0b")),
            save(granted(make_lease("l-3"))),
        ]
    )
    kinds = [type(each) for each in outcomes]
    assert kinds == [tuple, Conflict, NotFound, Conflict, InvalidRequest, tuple]
    states = {lease.id: lease.state for lease in store.leases()}
    held, waits = LeaseState.GRANTED, LeaseState.QUEUED
    assert states == {"l-1": held, "l-2": waits, "l-3": held}
    assert [each.object_id for each in store.events(after=4)] == ["l-1", "l-3"]


def test_the_first_of_two_who_change_the_same_wins(store: Store) -> None:
    store.add(make_lease(), now=NOW)
    first, second = granted(make_lease()), make_lease().ending(LeaseState.RELEASED, "", NOW)
    outcomes = store.write_each([save(first), save(second)])
    assert outcomes[0] == (replace(first, version=2),)
    assert isinstance(outcomes[1], Conflict)
    assert store.lease("l-1") == replace(first, version=2)


def test_the_first_of_two_who_add_the_same_wins(store: Store) -> None:
    outcomes = store.write_each([add(make_lease()), add(make_lease(owner="bob"))])
    assert (outcomes[0], type(outcomes[1])) == ((), Conflict)
    assert [lease.owner for lease in store.leases()] == ["ann"]


def test_a_write_sees_those_before_it(store: Store) -> None:
    store.add(make_lease(), make_job(), now=NOW)
    replica = Replica("j-1-1-0", "j-1", 1, "worker", 0, 0, "host-a")
    exited = replace(replica, state=ReplicaState.EXITED, exit_code=1)
    back = replace(replica, state=ReplicaState.RUNNING)
    outcomes = store.write_each([add(replica), save(exited), save(back)])
    assert (outcomes[:2], type(outcomes[2])) == ([(), (exited,)], Conflict)
    assert store.replicas("j-1") == (exited,)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (add(make_job("j-9", "l-9")), "does not fit"),
        (add(make_lease("l-9", created_at=NOW.replace(tzinfo=None))), "must have a time zone"),
    ],
)
def test_what_only_the_database_refuses_harms_nobody_either(
    store: Store, wrong: Write, words: str
) -> None:
    outcomes = store.write_each([add(make_lease("l-1")), wrong, add(make_lease("l-2"))])
    assert (outcomes[0], outcomes[2]) == ((), ())
    assert isinstance(outcomes[1], Exception)
    assert words in str(outcomes[1])
    assert [lease.id for lease in store.live().leases] == ["l-1", "l-2"]
    assert [each.object_id for each in store.events()] == ["l-1", "l-2"]


def test_a_job_moves_to_a_lease_that_is_added_with_the_move(store: Store) -> None:
    store.add(make_lease(), make_job(), now=NOW)
    moved = replace(make_job(), lease_id="l-2", attempt=2)
    (saved,) = store.save(moved, new=[make_lease("l-2")], now=NOW)
    assert store.job("j-1") == saved == replace(moved, version=2)


def test_everyone_hears_that_the_database_does_not_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_self: Database) -> None:
        raise Unavailable("gone")

    monkeypatch.setattr(Database, "writing", fails)
    outcomes = store.write_each([add(make_lease("l-1")), add(make_lease("l-2"))])
    assert [type(each) for each in outcomes] == [Unavailable, Unavailable]


def test_what_was_asked_for_is_written_once(store: Store) -> None:
    store.add(make_lease(), make_job(), now=NOW)
    store.save(make_lease(wishes=Wishes(priority=5), owner="bob", renewals=1), now=NOW)
    store.save(replace(make_job(), name="other", state=JobState.STARTING), now=NOW)
    assert store.lease("l-1") == make_lease(renewals=1, version=2)
    assert store.job("j-1") == replace(make_job(), state=JobState.STARTING, version=2)


# Reading


def test_leases_are_found_by_id_and_owner(store: Store) -> None:
    first, second = make_lease("l-1"), make_lease("l-2", "bob")
    store.add(first, second, now=NOW)
    wanted = [("l-2", None), ("l-1", "bob"), ("l-1", "ann"), ("l-9", None), ("l-2", "bob")]
    found = store.lease_each(wanted)
    assert [found[0], found[2], found[4]] == [second, first, second]
    assert [type(each) for each in (found[1], found[3])] == [NotFound, NotFound]
    assert store.lease_each([]) == []


def test_a_session_is_found_by_owner_and_name_while_it_lives(store: Store) -> None:
    named = make_lease("l-1", name="big")
    job = make_lease("l-2", name="", kind=LeaseKind.JOB)
    over = make_lease("l-3", name="", state=LeaseState.LOST)
    store.add(named, job, over, make_lease("l-4", "bob", name=""), now=NOW)
    wanted = [("ann", "big"), ("ann", ""), ("bob", "big"), ("eve", "")]
    assert store.session_each(wanted) == [named, None, None, None]


Ask = Callable[[Store, Known], tuple[Lease | Exception, ...]]
WAYS: dict[str, Ask] = {
    "live": lambda store, known: store.live(known).leases,
    "lease_each": lambda store, known: tuple(
        store.lease_each([("l-1", None), ("l-2", None)], known)
    ),
}


@pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)
def test_only_versions_that_are_not_known_are_read(store: Store, ask: Ask) -> None:
    first, second = make_lease("l-1"), make_lease("l-2")
    store.add(first, second, now=NOW)
    known = Known({"l-1": first, "l-2": second, "l-9": make_lease("l-9")}, {})
    with counted("SELECT leases.id, leases.kind", store) as reads:
        assert [one is other for one, other in zip(ask(store, known), (first, second), strict=True)]
        assert reads == []
        (second,) = store.save(granted(second), now=NOW)
        assert ask(store, known) == (first, second)
        assert len(reads) == 1


def test_what_is_over_is_not_live_whatever_is_known(store: Store) -> None:
    lease, job = make_lease(), make_job()
    store.add(lease, job, now=NOW)
    known = Known({"l-1": lease}, {"j-1": job})
    assert store.live(known) == Live((lease,), (job,), ())
    store.save(lease.ending(LeaseState.RELEASED, "", NOW), job.moved(JobState.STOPPED), now=NOW)
    assert store.live(known) == Live((), (), ())


# Durability


def test_sqlite_waits_for_the_disk_with_every_commit(tmp_path: object) -> None:
    database = Database(f"sqlite:///{tmp_path}/nimbus.sqlite")
    with database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    database.close()
