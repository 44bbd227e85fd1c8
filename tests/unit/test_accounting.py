from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbus_hub.control.accounting import By, Period, Report, accounts
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import Slot
from nimbus_hub.model.usage import LeaseUse

MIDNIGHT = datetime(2026, 5, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEEK = Period(MIDNIGHT - timedelta(days=3), MIDNIGHT + timedelta(days=4))
NOW = MIDNIGHT + timedelta(days=2)
MODELS = {("gpu-1", 0): "A100", ("gpu-1", 1): "A100", ("gpu-2", 0): "T4"}
GROUPS = {"ada": "vision", "bob": "vision", "eve": "speech"}


def slot(cpus: int = 1, gpus: tuple[int, ...] = (), milli: int = 1000, host: str = "gpu-1") -> Slot:
    return Slot("worker", 0, host, "10.0.0.1", 1000 * cpus, cpus * 2**30, gpus, (), milli)


def use(
    start: float, end: float | None, *slots: Slot, cpu: float = 0.0, gpu: float = 0.0, **named: str
) -> LeaseUse:
    """Return what was held between so many hours after midnight."""
    return LeaseUse(
        named.get("lease_id", "l-1"),
        named.get("owner", "ada"),
        LeaseKind(named.get("kind", "job")),
        slots or (slot(),),
        MIDNIGHT + start * HOUR,
        None if end is None else MIDNIGHT + end * HOUR,
        cpu,
        gpu,
    )


def report(*uses: LeaseUse, by: By = By.USER, period: Period = WEEK, now: datetime = NOW) -> Report:
    return accounts(uses, period, now, by, groups=GROUPS, models=MODELS)


def gpu_hours(found: Report) -> dict[str, float]:
    return {key: account.gpu_hours_held for key, account in found.items.items()}


def test_held_is_what_the_slots_have_times_how_long() -> None:
    held = report(use(1, 4, slot(2, (0, 1)), slot(1, (0,), 500, "gpu-2"))).items["ada"]
    assert held.gpu_hours_held == 3 * 2.5
    assert held.cpu_hours_held == 3 * 3.0
    assert held.gib_hours_held == 3 * 3.0
    assert held.model_hours_held == {"A100": 6.0, "T4": 1.5}
    assert held.lease_ids == {"l-1"}


def test_a_device_of_a_host_that_is_gone_has_an_unknown_model() -> None:
    held = report(use(0, 1, slot(1, (0, 1)), slot(1, (7,)))).items["ada"]
    assert held.model_hours_held == {"A100": 2.0, "unknown": 1.0}


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [
        (-5, -2, 0),
        (-5, 0, 0),  # ends as the period begins
        (-5, 2, 2),
        (1, 2, 1),
        (2, 9, 1),
        (-5, 9, 3),
        (3, 9, 0),  # begins as the period ends
        (-5, None, 3),
        (2, None, 1),
    ],
)
def test_a_period_cuts_exactly_at_its_bounds(start: int, end: int | None, hours: int) -> None:
    period = Period(MIDNIGHT, MIDNIGHT + 3 * HOUR)
    found = report(use(start, end, slot(gpus=(0,))), period=period)
    assert gpu_hours(found) == ({"ada": hours} if hours else {})
    assert found.total.gpu_hours_held == hours


def test_what_is_held_now_counts_until_now() -> None:
    found = report(use(0, None, slot(gpus=(0,))), now=MIDNIGHT + 5 * HOUR)
    assert gpu_hours(found) == {"ada": 5.0}


def test_a_period_must_begin_before_it_ends() -> None:
    with pytest.raises(InvalidRequest, match="since must be before until, got 2026-05-04 00:00"):
        Period(MIDNIGHT, MIDNIGHT)


def test_days_are_cut_at_midnight_in_utc_whatever_the_zone_of_the_request() -> None:
    zone = datetime.fromisoformat("2026-05-01T00:00+09:00")
    found = report(use(-1, 26, slot(gpus=(0,))), by=By.DAY, period=Period(zone, WEEK.until))
    assert gpu_hours(found) == {"2026-05-03": 1.0, "2026-05-04": 24.0, "2026-05-05": 2.0}
    assert {key: len(account.lease_ids) for key, account in found.items.items()} == {
        "2026-05-03": 1,
        "2026-05-04": 1,
        "2026-05-05": 1,
    }
    assert len(found.total.lease_ids) == 1


def test_groups_and_kinds_are_told_apart() -> None:
    uses = (
        use(0, 1, slot(gpus=(0,)), owner="ada", kind="session"),
        use(0, 2, slot(gpus=(0,)), owner="bob", lease_id="l-2"),
        use(0, 4, slot(gpus=(0,)), owner="eve", lease_id="l-3"),
        use(0, 8, slot(gpus=(0,)), owner="dan", lease_id="l-4"),
    )
    assert gpu_hours(report(*uses, by=By.GROUP)) == {"": 8.0, "speech": 4.0, "vision": 3.0}
    assert gpu_hours(report(*uses, by=By.KIND)) == {"job": 14.0, "session": 1.0}


def test_what_was_busy_counts_in_proportion_to_the_time_within_the_period() -> None:
    lease = use(-2, 2, slot(gpus=(0,)), cpu=4000.0, gpu=8000.0)
    held = report(lease, period=Period(MIDNIGHT, WEEK.until)).items["ada"]
    assert (held.cpu_seconds, held.gpu_seconds) == (2000.0, 4000.0)
    by_day = report(lease, by=By.DAY).items
    assert [account.gpu_seconds for account in by_day.values()] == [4000.0, 4000.0]


MOMENTS = st.integers(-6 * 10**11, 6 * 10**11).map(
    lambda microseconds: MIDNIGHT + timedelta(microseconds=microseconds)
)
SLOTS = st.builds(
    Slot,
    st.just("worker"),
    st.integers(0, 3),
    st.sampled_from(["gpu-1", "gpu-2", "gone"]),
    st.just("10.0.0.1"),
    st.integers(1, 64_000),
    st.integers(1, 2**40),
    st.sampled_from([(), (0,), (0, 1)]),
    st.just(()),
    st.integers(1, 1000),
)
USES = st.builds(
    LeaseUse,
    st.integers(0, 10**6).map(str),
    st.sampled_from(["ada", "bob", "eve", "dan"]),
    st.sampled_from(LeaseKind),
    st.lists(SLOTS, min_size=1, max_size=3).map(tuple),
    MOMENTS,
    st.none() | MOMENTS,
    st.floats(0, 10**6),
    st.floats(0, 10**6),
).filter(lambda it: it.granted_at <= (it.ended_at or NOW))


def integral(uses: Iterable[LeaseUse], period: Period) -> int:
    """Return GPUs held (thousandths) times microseconds, moment by moment.

    Between two moments at which anything begins or ends, what is held does not change.
    """
    uses = list(uses)
    moments = {period.since, period.until, NOW}
    for each in uses:
        moments |= {each.granted_at, each.ended_at or NOW}
    cuts = sorted(moment for moment in moments if period.since <= moment <= period.until)
    found = 0
    for start, end in pairwise(cuts):
        held = sum(
            slot.all_gpus_milli
            for each in uses
            if each.granted_at <= start and start < (each.ended_at or NOW)
            for slot in each.slots
        )
        found += held * ((end - start) // timedelta(microseconds=1))
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(USES, max_size=8, unique_by=lambda it: it.lease_id), MOMENTS, MOMENTS)
def test_the_accounting_adds_up(uses: list[LeaseUse], one: datetime, other: datetime) -> None:
    period = Period(min(one, other), max(one, other) + timedelta(microseconds=1))
    reports = {by: report(*uses, by=by, period=period) for by in By}
    expected = integral(uses, period)
    for found in reports.values():
        parts = list(found.items.values())
        assert found.total.gpus_milli == expected
        assert sum(part.gpus_milli for part in parts) == expected
        assert sum(sum(part.models.values()) for part in parts) == expected
        assert sum(part.cpus_milli for part in parts) == reports[By.USER].total.cpus_milli
        assert sum(part.memory_bytes for part in parts) == reports[By.USER].total.memory_bytes
        assert set().union(*(part.lease_ids for part in parts)) == found.total.lease_ids
        assert sum(part.gpu_seconds for part in parts) == pytest.approx(found.total.gpu_seconds)
        assert sum(part.cpu_seconds for part in parts) == pytest.approx(
            reports[By.USER].total.cpu_seconds
        )


@settings(max_examples=100, deadline=None)
@given(st.lists(USES, max_size=5, unique_by=lambda it: it.lease_id), MOMENTS)
def test_periods_that_follow_each_other_miss_and_double_nothing(
    uses: list[LeaseUse], cut: datetime
) -> None:
    wide = Period(MIDNIGHT - timedelta(days=30), MIDNIGHT + timedelta(days=30))
    halves = (Period(wide.since, cut), Period(cut, wide.until))
    whole = report(*uses, period=wide).total
    parts = [report(*uses, period=half).total for half in halves]
    assert sum(part.gpus_milli for part in parts) == whole.gpus_milli
    assert sum(part.gpu_seconds for part in parts) == pytest.approx(whole.gpu_seconds)
    # Nothing is forgotten of what was used while something was held.
    held = [each for each in uses if each.granted_at < (each.ended_at or NOW)]
    assert whole.gpu_seconds == pytest.approx(sum(each.gpu_seconds for each in held))
