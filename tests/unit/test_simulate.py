"""The simulator: what happens when, and that the benchmark of gangs runs on it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from nimbus_hub.errors import Conflict, InvalidRequest
from nimbus_hub.model.cluster import Cluster, Queue
from nimbus_hub.model.host import Gpu, Host
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.decisions import Grant, Plan, Preemption
from nimbus_hub.scheduler.plan import plan
from nimbus_hub.scheduler.simulate import BATCH, Job, Outcome, Renewing, simulate
from nimbus_hub.scheduler.snapshot import Snapshot
from tests.benchmarks import gangs, workload
from tests.benchmarks.workload import START

HOUR = timedelta(hours=1)
HOST = Host("h", 8000, 32 * 2**30, tuple(Gpu(index, "A100") for index in range(2)))
RENEWING = Renewing(by=2 * HOUR, notice=HOUR / 4, latest_end=5 * HOUR)


def job(name: str, gpus: int = 1, at: float = 0, bound: float = 1, length: float = 1) -> Job:
    """Return a job; times in hours."""
    groups = (SlotGroup("worker", 1, gpus=gpus),)
    return Job(name, "ada", groups, START + at * HOUR, bound * HOUR, length * HOUR)


def times(outcomes: tuple[Outcome, ...]) -> dict[str, tuple[float, float]]:
    """Return start and end of each job in hours."""
    found = {}
    for each in outcomes:
        assert each.started is not None
        assert each.ended is not None
        found[each.job.id] = ((each.started - START) / HOUR, (each.ended - START) / HOUR)
    return found


def test_a_job_holds_for_its_true_length_and_the_next_starts_when_it_gives_back() -> None:
    jobs = [job("a", 2, bound=5, length=2), job("b", 1, at=1)]
    assert times(simulate([HOST], jobs, plan)) == {"a": (0, 2), "b": (2, 3)}


def test_a_lease_ends_at_its_bound_even_if_the_work_is_not_done() -> None:
    assert times(simulate([HOST], [job("a", bound=1, length=3)], plan)) == {"a": (0, 1)}


def test_the_scheduler_sees_bounds_and_never_true_lengths() -> None:
    seen: list[tuple[timedelta | None, ...]] = []

    def watch(snapshot: Snapshot, now: datetime) -> Plan:
        ends = [each.ends_at - now if each.ends_at else None for each in snapshot.holdings]
        seen.append((*ends, *(each.length for each in snapshot.waiting)))
        return plan(snapshot, now)

    simulate([HOST], [job("a", bound=5), job("b", at=0.5, bound=3)], watch)
    assert seen == [(5 * HOUR,), (4.5 * HOUR, 3 * HOUR)]


def test_a_renewed_lease_ends_when_the_work_does_and_at_its_latest_end_at_most() -> None:
    seen: list[list[float]] = []

    def watch(snapshot: Snapshot, now: datetime) -> Plan:
        ends = [each.ends_at for each in snapshot.holdings if each.ends_at]
        seen.append([(end - START) / HOUR for end in ends])
        return plan(snapshot, now)

    short = replace(job("a", bound=2, length=4), kind=LeaseKind.SESSION, renewing=RENEWING)
    long = replace(short, id="b", length=9 * HOUR)
    jobs = [short, long, job("c", at=1), job("d", at=3), job("e", at=4.5)]
    found = times(simulate(workload.hosts(1), jobs, watch))
    assert (found["a"], found["b"]) == ((0, 4), (0, 5))
    # Renewed for 2 hours whenever a quarter of an hour is left, up to 5 hours in all.
    assert seen == [[], [2, 2], [3.75, 3.75], [5]]


def test_what_happens_within_one_batch_is_one_pass() -> None:
    passes: list[int] = []

    def count(snapshot: Snapshot, now: datetime) -> Plan:
        passes.append(len(snapshot.waiting))
        return plan(snapshot, now)

    first = job("a")
    late = replace(first, id="b", arrival=START + BATCH)
    later = replace(first, id="c", arrival=START + 3 * BATCH)
    simulate([HOST], [first, late, later], count)
    assert passes == [2, 1]


def test_a_pass_is_left_out_only_where_nothing_could_start() -> None:
    passes: list[datetime] = []

    def count(snapshot: Snapshot, now: datetime) -> Plan:
        passes.append(now)
        return plan(snapshot, now)

    jobs = [job("a", 2, bound=2, length=2), job("b", 1, at=1), job("c", 2, at=1.5)]
    simulate([HOST], jobs, count)
    assert [(at - START) / HOUR for at in passes] == [0, 2, 3]


def test_it_ends_once_all_that_are_watched_have_started() -> None:
    jobs = [job("a", 2), job("b", 2), job("c", 2)]
    *_, last = simulate([HOST], jobs, plan, watched={"b"})
    assert last == Outcome(jobs[2])


def test_a_device_that_is_granted_twice_is_refused() -> None:
    def twice(snapshot: Snapshot, now: datetime) -> Plan:
        slot = Slot("worker", 0, "h", HOST.address, 1000, 1, gpus=(0,))
        return Plan(tuple(Grant(each.lease_id, (slot,)) for each in snapshot.waiting), ())

    with pytest.raises(Conflict, match="GPU 0 of host h was granted twice"):
        simulate([HOST], [job("a"), job("b")], twice)


def test_a_preempted_job_waits_again_and_begins_from_the_start() -> None:
    def stop(snapshot: Snapshot, now: datetime) -> Plan:
        if now == START + HOUR / 2:
            return Plan((), (), (Preemption("a", "b", "it may"),))
        return plan(snapshot, now)

    cluster = Cluster(queues=(Queue(may_preempt=True),))
    urgent = replace(job("b", 2, at=0.5), wishes=Wishes(priority=1))
    jobs = [job("a", 2, bound=2, length=2), urgent, job("c", 1, at=0.75)]
    first, *_ = simulate([HOST], jobs, stop, cluster=cluster)
    assert first.preemptions == 1
    assert times((first,)) == {"a": (1.75, 3.75)}


def test_renewals_that_get_nowhere_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        Renewing(by=HOUR, notice=HOUR, latest_end=5 * HOUR)


def test_a_week_of_requests_has_the_load_and_the_shares_it_promises() -> None:
    week = workload.generate(seed=1, host_count=32)
    counted = [each for each in week.jobs if each.id in week.counted]
    held = sum(each.gpus * each.held.total_seconds() for each in counted)
    single = [each for each in counted if each.gpus == 1]
    notebooks = [each for each in single if each.kind is LeaseKind.SESSION]
    large = [each for each in counted if each.gpus >= 8]
    assert held / (32 * 8 * 7 * 86400) == pytest.approx(0.9, abs=0.05)
    assert len(notebooks) / len(single) == pytest.approx(0.5, abs=0.05)
    assert len(large) / len(counted) == pytest.approx(0.1, abs=0.03)
    assert all(each.length <= each.bound for each in counted if each.renewing is None)
    assert week == workload.generate(seed=1, host_count=32)


def test_every_policy_brings_every_counted_request_to_its_end() -> None:
    report = gangs.run(seeds=1, host_count=8, length=timedelta(days=1))
    assert set(report.figures) == set(gangs.POLICIES)
    for (figures,) in report.figures.values():
        assert figures.unfinished == 0
        assert 0 < figures.utilisation <= 1
    assert "wait of gangs" in gangs.as_table(report)
