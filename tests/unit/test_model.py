"""What things are: the tables of moves, and what a lease and a job may become."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_hub.errors import Conflict, Ended, InvalidRequest
from nimbus_hub.model.host import Gpu, Host
from nimbus_hub.model.job import JOB_MOVES, Job, JobState, Launch
from nimbus_hub.model.lease import LEASE_MOVES, Lease, LeaseKind, LeaseState
from nimbus_hub.model.policy import LeasePolicy
from nimbus_hub.model.replica import REPLICA_MOVES, Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SLOT = Slot("notebook", 0, "gpu-1", "10.0.0.1", 1000, 2**30, (0,), (20000, 20001))
QUEUED = Lease("l-1", LeaseKind.SESSION, "ada", "", (SlotGroup("notebook"),), 2 * HOUR, NOW)
GRANTED = QUEUED.granted((SLOT,), NOW, 12 * HOUR)
ACTIVE = GRANTED.activated(NOW + MINUTE)
JOB = Job("j-1", "train", "ada", "l-1", Launch(("python", "a.py"), retries=1), NOW)


@pytest.mark.parametrize(
    ("moves", "first"),
    [
        (LEASE_MOVES, LeaseState.QUEUED),
        (JOB_MOVES, JobState.QUEUED),
        (REPLICA_MOVES, ReplicaState.CREATED),
    ],
)
def test_every_state_is_in_the_table_and_can_be_reached(
    moves: dict[StrEnum, frozenset[StrEnum]], first: StrEnum
) -> None:
    reached, pending = {first}, [first]
    while pending:
        for state in moves[pending.pop()] - reached:
            reached.add(state)
            pending.append(state)
    assert reached == set(moves) == set(type(first))


def test_ends_have_no_exit_and_hold_nothing() -> None:
    assert {str(state) for state in LeaseState if state.is_end} == {
        "released",
        "expired",
        "preempted",
        "lost",
        "cancelled",
    }
    assert {str(state) for state in JobState if state.is_end} == {"succeeded", "failed", "stopped"}
    assert {str(state) for state in ReplicaState if state.is_end} == {"exited", "lost"}
    assert not any(state.is_end and state.is_holding for state in LeaseState)


@pytest.mark.parametrize("before", LeaseState)
@pytest.mark.parametrize("after", LeaseState)
def test_a_lease_moves_as_the_table_says(before: LeaseState, after: LeaseState) -> None:
    lease = replace(QUEUED, state=before)
    if after in LEASE_MOVES[before]:
        assert lease.moved(after).state is after
    else:
        with pytest.raises(Conflict, match=f"lease l-1 is {before} and cannot become {after}"):
            lease.moved(after)


@pytest.mark.parametrize("before", JobState)
@pytest.mark.parametrize("after", JobState)
def test_a_job_moves_as_the_table_says(before: JobState, after: JobState) -> None:
    job = replace(JOB, state=before)
    if after in JOB_MOVES[before]:
        assert job.moved(after).state is after
    else:
        with pytest.raises(Conflict, match=f"job j-1 is {before} and cannot become {after}"):
            job.moved(after)


def test_a_grant_sets_slots_and_ends_and_forgets_the_queue() -> None:
    waiting = replace(QUEUED, position=3, starts_by=NOW, reason="behind 2 earlier requests")
    assert waiting.granted((SLOT,), NOW, 12 * HOUR) == replace(
        QUEUED,
        state=LeaseState.GRANTED,
        slots=(SLOT,),
        granted_at=NOW,
        expires_at=NOW + 2 * HOUR,
        latest_end=NOW + 12 * HOUR,
    )


def test_the_time_of_a_lease_counts_from_its_activation() -> None:
    assert (
        replace(
            GRANTED,
            state=LeaseState.ACTIVE,
            active_at=NOW + MINUTE,
            expires_at=NOW + MINUTE + 2 * HOUR,
            latest_end=NOW + MINUTE + 12 * HOUR,
        )
        == ACTIVE
    )
    with pytest.raises(Conflict, match="queued and cannot be activated"):
        QUEUED.activated(NOW)


def test_a_session_that_is_ready_after_its_end_was_asked_for_moves_it_no_more() -> None:
    late = NOW + 5 * HOUR
    ending = GRANTED.ending(LeaseState.EXPIRED, "its lease ran out", late)
    active = ending.activated(late)
    assert active == replace(ending, state=LeaseState.ACTIVE, active_at=late)


def test_the_first_end_asked_for_stays() -> None:
    ending = ACTIVE.ending(LeaseState.EXPIRED, "it ran out", NOW)
    assert (ending.state, ending.public_state) == (LeaseState.ACTIVE, LeaseState.EXPIRING)
    assert ending.ending_at == NOW
    assert ending.ending(LeaseState.RELEASED, "given back", NOW + MINUTE) is ending
    over = ending.ended(LeaseState.RELEASED, "its server ended", NOW + MINUTE)
    assert (over.state, over.reason, over.target) == (LeaseState.EXPIRED, "it ran out", None)
    assert over.ended_at == NOW + MINUTE
    with pytest.raises(Ended, match="lease l-1 ended already: it ran out"):
        over.ending(LeaseState.RELEASED, "given back", NOW)


def test_what_holds_nothing_ends_at_once() -> None:
    over = replace(QUEUED, position=1, starts_by=NOW).ending(LeaseState.RELEASED, "no more", NOW)
    assert (over.state, over.reason, over.ended_at) == (LeaseState.CANCELLED, "no more", NOW)
    assert (over.position, over.starts_by) == (None, None)


def test_a_job_that_is_stopping_ends_so_whatever_comes() -> None:
    stopping = replace(JOB, state=JobState.RUNNING).stopping("stopped by ada")
    assert stopping.stopping("stopped by bob") is stopping
    over = stopping.ended(JobState.SUCCEEDED, "", NOW)
    assert (over.state, over.reason, over.target) == (JobState.STOPPED, "stopped by ada", None)
    with pytest.raises(Ended, match="job j-1 ended already: stopped by ada"):
        over.stopping("again")
    assert JOB.attempts == 2


@given(
    left=st.integers(0, 600),
    until_latest=st.integers(0, 1200),
    asked=st.none() | st.integers(1, 720),
)
def test_a_renewal_never_shortens_nor_passes_the_latest_end(
    left: int, until_latest: int, asked: int | None
) -> None:
    end, latest = NOW + left * MINUTE, NOW + max(left, until_latest) * MINUTE
    step = None if asked is None else asked * MINUTE
    renewed = LeasePolicy().renewed_end(NOW, end, latest, step)
    assert end <= renewed <= latest
    assert renewed == max(end, min(NOW + (step or 2 * HOUR), latest))


def test_a_policy_bounds_lengths() -> None:
    policy = LeasePolicy()
    assert policy.length(None) == 2 * HOUR
    assert policy.length(HOUR) == HOUR
    with pytest.raises(InvalidRequest, match="duration must be at most 12h, got 13h"):
        policy.length(13 * HOUR)
    with pytest.raises(InvalidRequest, match="0 < default <= longest <= latest_end, got 2h, 1h"):
        LeasePolicy(longest=HOUR)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"role": "Worker"}, "role must be lower-case"),
        ({"role": ""}, "role must be lower-case"),
        ({"count": 0}, "workers must be at least 1, got 0"),
        ({"count": 10_001}, "workers must be at most 10000, got 10001"),
        ({"cpus_milli": 0}, "cpus must be more than 0"),
        ({"memory_bytes": -1}, "memory must be more than 0"),
        ({"gpus": -1}, "gpus must be at least 0, got -1"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        SlotGroup(**{"role": "worker", **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        {"cpus_milli": 0},
        {"memory_bytes": 0},
        {"gpus": (Gpu(0, "A100"), Gpu(0, "A100"))},
        {"first_port": 80},
        {"last_port": 70_000},
        {"first_port": 20_001, "last_port": 20_000},
    ],
)
def test_a_host_that_could_hold_nothing_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="host gpu-1"):
        Host(**{"name": "gpu-1", "cpus_milli": 1, "memory_bytes": 1, **values})  # type: ignore[arg-type]


def test_attempts_in_a_row_use_other_ports() -> None:
    assert [SLOT.port(attempt) for attempt in (1, 2, 3)] == [20000, 20001, 20000]
    assert SLOT.name == "notebook-0"


def test_only_exit_code_zero_is_no_failure() -> None:
    replica = Replica("j-1.1.worker-0", "j-1", 1, "worker", 0, 0, "gpu-1")
    ends = [
        (ReplicaState.RUNNING, None, False),
        (ReplicaState.EXITED, 0, False),
        (ReplicaState.EXITED, 1, True),
        (ReplicaState.EXITED, None, True),
        (ReplicaState.LOST, None, True),
    ]
    for state, code, failed in ends:
        assert replace(replica, state=state, exit_code=code).has_failed is failed
