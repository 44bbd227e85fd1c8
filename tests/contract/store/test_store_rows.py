"""Rows: whatever the model can hold goes into the tables and comes out the same."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup, Topology
from nimbus_hub.model.wishes import HIGHEST_PRIORITY, DataUse, Wishes
from nimbus_hub.store.rows import Row, lease_from_row, lease_to_row
from nimbus_hub.store.store import Record, Store

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
NUMBERS = itertools.count()

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
MOMENTS = st.timedeltas(timedelta(0), timedelta(days=36500)).map(lambda past: NOW + past)
MAYBE_MOMENT = st.none() | MOMENTS
COUNTS = st.integers(0, 2**31 - 1)
BYTES = st.integers(1, 2**60)
INDICES = st.lists(st.integers(0, 65535), max_size=3).map(tuple)
ROLES = st.from_regex(r"[a-z][a-z0-9-]{0,29}", fullmatch=True)
URLS = st.lists(
    st.builds(
        DataUse,
        st.from_regex(r"[a-z]+://[^\s\x00]{1,30}", fullmatch=True),
        st.none() | st.integers(0, 2**60),
    ),
    max_size=3,
).map(tuple)
ANY_WISHES = st.builds(
    Wishes,
    datacenter=st.none() | TEXTS,
    inputs=URLS,
    outputs=URLS,
    queue=TEXTS,
    priority=st.integers(-HIGHEST_PRIORITY, HIGHEST_PRIORITY),
    is_preemptible=st.booleans(),
    expected=st.none() | st.timedeltas(timedelta(microseconds=1), timedelta(days=3650)),
    step_bytes=st.none() | st.integers(0, 2**60),
)
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
            gpus=COUNTS,
            gpu_models=st.lists(TEXTS, max_size=3).map(tuple),
            topology=st.none() | st.sampled_from(Topology),
        )
        | st.builds(SlotGroup, ROLES, gpus=st.just(1), gpu_milli=st.integers(1, 1000)),
        max_size=3,
    ).map(tuple),
    length=st.timedeltas(timedelta(microseconds=1), timedelta(days=3650)),
    created_at=MOMENTS,
    environment=TEXTS,
    wishes=ANY_WISHES,
    state=st.sampled_from(LeaseState),
    target=st.none() | st.sampled_from(LeaseState),
    reason=TEXTS,
    reason_code=TEXTS,
    note=TEXTS,
    placement=TEXTS,
    slots=st.lists(
        st.builds(
            Slot, ROLES, COUNTS, TEXTS, TEXTS, BYTES, BYTES, INDICES, INDICES, st.integers(1, 1000)
        ),
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
    cpu_seconds=st.floats(0, 1e12),
    gpu_seconds=st.floats(0, 1e12),
)
ANY_JOB = st.builds(
    Job,
    id=st.just("j-1"),
    name=TEXTS,
    owner=TEXTS,
    lease_id=st.just("l-1"),
    launch=st.builds(
        Launch,
        st.lists(TEXTS, max_size=3).map(tuple),
        TEXTS,
        st.dictionaries(TEXTS, TEXTS, max_size=3),
        st.none() | TEXTS,
        TEXTS,
        COUNTS,
    ),
    created_at=MOMENTS,
    state=st.sampled_from(JobState),
    target=st.none() | st.sampled_from(JobState),
    reason=TEXTS,
    attempt=COUNTS,
    preemptions=COUNTS,
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
    cpu_seconds=st.floats(0, 1e12),
    gpu_seconds=st.floats(0, 1e12),
)


def read(store: Store, lease_id: str, job_id: str) -> tuple[Record, ...]:
    return (store.lease(lease_id), store.job(job_id), *store.replicas(job_id))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lease=ANY_LEASE, job=ANY_JOB, replica=ANY_REPLICA)
def test_anything_goes_in_and_comes_out(
    lasting_store: Store, lease: Lease, job: Job, replica: Replica
) -> None:
    number = next(NUMBERS)
    lease_id, job_id, replica_id = (f"{letter}-{number}" for letter in "ljr")
    lease = replace(lease, id=lease_id)
    job = replace(job, id=job_id, lease_id=lease_id)
    replica = replace(replica, id=replica_id, job_id=job_id)
    records: tuple[Record, ...] = (lease, job, replica)
    lasting_store.add(*records, now=NOW)
    assert (
        lasting_store.lease(lease_id),
        lasting_store.job(job_id),
        *lasting_store.replicas(job_id),
    ) == records
    saved = lasting_store.save(*records, now=NOW)
    assert saved == (replace(lease, version=2), replace(job, version=2), replica)
    assert (
        lasting_store.lease(lease_id),
        lasting_store.job(job_id),
        *lasting_store.replicas(job_id),
    ) == saved
    assert [event.state for event in lasting_store.history(lease_id)] == [lease.public_state]


def older_row(**group: object) -> Row:
    """Return a lease's row as the first version wrote it."""
    row = lease_to_row(OLD)
    row["groups"] = [
        {"role": "worker", "count": 1, "cpus_milli": 1000, "memory_bytes": 2**31, **group}
    ]
    row["slots"] = [{"role": "worker", "index": 0, "host": "h", "address": "127.0.0.1"}]
    row["slots"][0] |= {"cpus_milli": 1, "memory_bytes": 1, "gpus": [1], "ports": []}
    return row | {"wishes": None, "reason_code": "", "note": "", "placement": ""}


OLD = Lease("l-1", LeaseKind.JOB, "ann", "", (SlotGroup("worker"),), NOW - NOW, NOW)


@pytest.mark.parametrize(("model", "models"), [(None, ()), ("A100", ("A100",))])
def test_an_older_group_named_one_model_or_none(model: str | None, models: tuple[str, ...]) -> None:
    lease = lease_from_row(older_row(gpus=1, gpu_model=model))
    assert lease.groups == (SlotGroup("worker", gpus=1, gpu_models=models),)
    assert lease.slots == (Slot("worker", 0, "h", "127.0.0.1", 1, 1, (1,)),)
    assert lease.wishes == Wishes()


def test_an_older_row_reads_with_what_the_model_has_by_default() -> None:
    assert lease_from_row(older_row()).groups == OLD.groups
    row = older_row() | {"wishes": {"queue": "night", "inputs": [{"url": "s3://b/x"}]}}
    wishes = Wishes(queue="night", inputs=(DataUse("s3://b/x"),))
    assert lease_from_row(row).wishes == wishes
