"""What the scheduler is told: the view, used GPU time, the mix; and how often it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_hub.control.mix import REMEMBERED, Mix
from nimbus_hub.control.usage import Usage
from nimbus_hub.control.view import scheduler_snapshot, waiting_of
from nimbus_hub.model.cluster import Cluster, Queue, Rules
from nimbus_hub.model.job import JobState
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.shape import Shape
from nimbus_hub.scheduler.snapshot import Holding, Waiting
from nimbus_hub.scheduler.usage import decayed, faded
from tests.unit.control_harness import GPU_1, CountedPolicy, HandClock, World

NOW = HandClock().now()
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
GPUS = (SlotGroup("worker", 2, gpus=1),)
SLOT = Slot("worker", 0, "gpu-1", "127.0.0.1", 1000, 2**31, (0, 1), (20000,))
CLUSTER = Cluster(queues=(Queue(), Queue("spare", priority=-10, is_preemptible=True)))


def lease(lease_id: str = "l-1", owner: str = "ada", **changes: Any) -> Lease:
    made = Lease(lease_id, LeaseKind.JOB, owner, "train", GPUS, 2 * HOUR, NOW)
    return replace(made, **changes)


def held(start: datetime, end: datetime | None = None, **changes: Any) -> Lease:
    """Return a lease of two GPUs from a start, to an end if it is over."""
    state = LeaseState.ACTIVE if end is None else LeaseState.RELEASED
    granted = {"granted_at": start, "active_at": start, "ended_at": end}
    return lease(**{"slots": (SLOT,), "state": state, **granted, **changes})


# The view


def test_a_holding_says_what_the_scheduler_may_do_with_it() -> None:
    wishes = Wishes(queue="spare", priority=3, expected=HOUR)
    running = held(NOW, wishes=wishes, expires_at=NOW + 2 * HOUR)
    ending = replace(running, id="l-2", wishes=Wishes(), target=LeaseState.RELEASED)
    late = replace(running, id="l-3", wishes=Wishes(is_preemptible=True, expected=3 * HOUR))
    seen = scheduler_snapshot([GPU_1], [running, ending, late], CLUSTER, {"ada": 1.0}, {})
    end = NOW + 2 * HOUR
    common = (end, LeaseKind.JOB, NOW)
    assert seen.holdings == (
        Holding("l-1", "ada", (SLOT,), *common, -7, True, False, NOW + HOUR),
        Holding("l-2", "ada", (SLOT,), *common, 0, False, True, end),
        Holding("l-3", "ada", (SLOT,), *common, 0, True, False, end),
    )
    old = replace(running, created_at=NOW - CLUSTER.rules.aging)
    assert scheduler_snapshot([GPU_1], [old], CLUSTER, {}, {}).holdings[0].is_of_age
    assert (seen.hosts, seen.cluster, seen.usage) == ((GPU_1,), CLUSTER, {"ada": 1.0})


def test_a_request_says_what_it_wishes_and_how_long_it_waits() -> None:
    wishes = Wishes(datacenter="north")
    queued = lease(wishes=wishes, wait_until=NOW + HOUR)
    asked = Waiting("l-1", "ada", GPUS, 2 * HOUR, NOW, LeaseKind.JOB, wishes, NOW + HOUR)
    asked = replace(asked, waits_since=NOW)
    assert waiting_of(queued) == asked
    over = lease("l-2", state=LeaseState.RELEASED)
    seen = scheduler_snapshot([], [queued, over], CLUSTER, {}, {})
    assert (seen.waiting, seen.holdings) == ((asked,), ())


def test_a_queue_that_was_removed_gives_no_rights() -> None:
    gone = held(NOW, wishes=Wishes(queue="gone", priority=2))
    (holding,) = scheduler_snapshot([], [gone], CLUSTER, {}, {}).holdings
    assert (holding.priority, holding.is_preemptible) == (2, False)


# Used GPU time


def test_gpu_time_counts_half_after_a_half_life() -> None:
    just_now = decayed(1, NOW - HOUR, NOW, NOW, 7 * DAY)
    assert just_now == pytest.approx(3600, rel=0.01)
    assert decayed(1, NOW - HOUR, NOW, NOW + 7 * DAY, 7 * DAY) == pytest.approx(just_now / 2)
    assert decayed(2, NOW - HOUR, NOW, NOW, 7 * DAY) == pytest.approx(2 * just_now)
    assert faded(8.0, NOW, NOW + 21 * DAY, 7 * DAY) == pytest.approx(1.0)


def test_who_holds_one_gpu_for_ever_counts_a_half_life_of_it_over_ln_2() -> None:
    assert decayed(1, NOW - 1000 * DAY, NOW, NOW, DAY) == pytest.approx(86400 / 0.693147, rel=1e-5)


@given(
    st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(60, 1e7), st.floats(0.1, 64)
)
def test_gpu_time_adds_up_however_it_is_cut(
    first: float, second: float, later: float, half_life: float, gpus: float
) -> None:
    life = timedelta(seconds=half_life)
    middle = NOW + timedelta(seconds=first)
    end = middle + timedelta(seconds=second)
    then = end + timedelta(seconds=later)
    whole = decayed(gpus, NOW, end, then, life)
    parts = decayed(gpus, NOW, middle, then, life) + decayed(gpus, middle, end, then, life)
    assert whole == pytest.approx(parts, rel=1e-6, abs=1e-6)
    assert 0 <= whole <= gpus * (end - NOW).total_seconds() * (1 + 1e-9) + 1e-9
    assert faded(decayed(gpus, NOW, end, end, life), end, then, life) == pytest.approx(whole)


def test_what_has_ended_and_what_is_held_counts_for_its_owner() -> None:
    usage = Usage(DAY, NOW)
    ended, running = held(NOW - HOUR, NOW), held(NOW, owner="bob")
    usage.add(ended, NOW)
    usage.add(lease(state=LeaseState.CANCELLED, ended_at=NOW), NOW)
    later = NOW + DAY
    assert usage.at(later, [running]) == pytest.approx(
        {
            "ada": decayed(2, NOW - HOUR, NOW, later, DAY),
            "bob": decayed(2, NOW, later, later, DAY),
        }
    )
    assert usage.at(later, []).keys() == {"ada"}


def test_gpu_time_counted_one_by_one_is_that_counted_at_once() -> None:
    ended = [held(NOW + n * HOUR, NOW + (n + 2) * HOUR) for n in range(10)]
    slowly = Usage(DAY, NOW)
    for each in ended:
        assert each.ended_at
        slowly.add(each, each.ended_at)
    later = NOW + 3 * DAY
    at_once = Usage(HOUR, NOW)
    at_once.begin(ended, DAY, later)
    assert slowly.at(later, []) == pytest.approx(at_once.at(later, []))


def test_gpu_time_of_long_ago_is_nothing_and_breaks_nothing() -> None:
    usage = Usage(HOUR, NOW)
    usage.add(held(NOW - HOUR, NOW), NOW)
    much_later = NOW + 5000 * HOUR
    assert usage.at(much_later, []).get("ada", 0.0) < 1e-20
    usage.add(held(much_later - HOUR, much_later, owner="bob"), much_later)
    assert usage.at(much_later, [])["bob"] == pytest.approx(
        decayed(2, much_later - HOUR, much_later, much_later, HOUR)
    )


# The mix


def test_a_shape_counts_by_its_slots_and_newer_requests_more() -> None:
    mix = Mix()
    mix.add(lease(groups=(SlotGroup("worker", 3, gpus=1), SlotGroup("ps", 1))))
    mix.add(lease(groups=(SlotGroup("worker", 1),)))
    counts = mix.counts()
    gpu, cpu = Shape.of(SlotGroup("worker", gpus=1)), Shape.of(SlotGroup("worker"))
    assert counts == pytest.approx({gpu: 3 * 0.999, cpu: 1 + 0.999}, rel=1e-5)
    assert mix.counts() is counts


def test_the_mix_forgets_and_never_overflows() -> None:
    mix = Mix()
    old, new = lease(groups=(SlotGroup("old"),)), lease(groups=(SlotGroup("new", gpus=2),))
    mix.begin([old] * 2000 + [new] * 300 * REMEMBERED)
    counts = mix.counts()
    assert counts[Shape.of(new.groups[0])] == pytest.approx(REMEMBERED, rel=0.01)
    assert counts.get(Shape.of(old.groups[0]), 0.0) < 1e-9


# In the service


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path, policy=CountedPolicy())
    await world.control.inventory.refresh()
    yield world
    world.control.close()


def told(world: World) -> CountedPolicy:
    policy = world.control.scheduling._policy
    assert isinstance(policy, CountedPolicy)
    return policy


async def test_used_gpu_time_and_the_mix_are_the_same_after_a_restart(
    world: World, tmp_path: Path
) -> None:
    ended = await world.running(gpus=1)
    world.skip(hours=3)
    world.executor.exit(world.replicas(ended)[0].id, 0)
    await world.passes()
    assert world.job(ended).state is JobState.SUCCEEDED
    await world.running(gpus=1, owner="bob")
    world.skip(hours=5)
    live = world.store.live().leases
    before = world.control.scheduling.snapshot(live, world.clock.now())
    assert before.usage["ada"] == pytest.approx(
        decayed(1, NOW, NOW + 3 * HOUR, world.clock.now(), 7 * DAY)
    )
    after = World(tmp_path, world.executor)
    after.clock.time = world.clock.time
    await after.control.inventory.refresh()
    await after.control.scheduling.load()
    again = after.control.scheduling.snapshot(live, after.clock.now())
    after.control.close()
    assert again.usage == pytest.approx(before.usage)
    assert again.mix == pytest.approx(before.mix)


async def test_a_new_half_life_counts_anew_what_was_used(world: World) -> None:
    job = await world.running(gpus=1)
    world.skip(hours=2)
    world.executor.exit(world.replicas(job)[0].id, 0)
    await world.passes()
    world.skip(days=1)
    world.file.cluster = Cluster(rules=Rules(half_life=DAY))
    await world.control.scheduling.refresh()
    usage = world.control.scheduling.snapshot([], world.clock.now()).usage
    assert usage["ada"] == pytest.approx(decayed(1, NOW, NOW + 2 * HOUR, NOW + 2 * HOUR + DAY, DAY))


async def test_the_scheduler_is_asked_only_when_something_changed_for_it(world: World) -> None:
    holding = await world.running(gpus=1)
    waiting = await world.submit(gpus=1)
    await world.passes(5)
    asked = len(told(world).seen)
    await world.control.jobs.report(holding.id, 0.5, "half")
    await world.passes(5)
    assert len(told(world).seen) == asked
    await world.submit(cpus=500)
    await world.passes(5)
    assert len(told(world).seen) > asked
    asked = len(told(world).seen)
    world.skip(seconds=31)
    await world.passes(5)
    assert len(told(world).seen) == asked + 1
    assert world.lease_of(waiting).state is LeaseState.QUEUED


async def test_the_scheduler_is_asked_again_when_a_host_changes(world: World) -> None:
    await world.running(gpus=1)
    waiting = await world.submit(gpus=1)
    await world.passes(4)
    assert world.job(waiting).state is JobState.QUEUED
    world.executor._hosts = (*world.executor._hosts, replace(GPU_1, name="gpu-2"))
    await world.control.inventory.refresh()
    await world.passes(2)
    assert world.lease_of(waiting).slots[0].host == "gpu-2"


async def test_progress_wakes_nobody(world: World) -> None:
    job = await world.running()
    woken = []
    world.control.records.wake = lambda: woken.append(1)
    await world.control.jobs.report(job.id, 0.5, "half")
    assert woken == []
    await world.control.jobs.stop(job.id, "stopped by ada")
    assert woken == [1]


async def test_a_lease_keeps_why_it_waits_and_why_it_is_where_it_is(world: World) -> None:
    first = await world.running(gpus=1)
    second = await world.submit(gpus=1, owner="bob")
    await world.passes(3)
    placed, waiting = world.lease_of(first), world.lease_of(second)
    grants = [grant for _, plan in told(world).seen for grant in plan.grants]
    waits = [wait for _, plan in told(world).seen for wait in plan.waits]
    assert (placed.placement, placed.reason_code) == (grants[0].reason, "")
    assert placed.placement
    last = waits[-1]
    assert (waiting.reason, waiting.reason_code) == (last.reason, last.code.value)
    assert (waiting.position, waiting.starts_by) == (1, last.starts_by)


async def test_how_long_requests_waited_is_told_by_outcome(world: World) -> None:
    holder = await world.session("first", gpus=1)
    world.skip(seconds=1)
    await world.session("second", gpus=1, wait=timedelta(minutes=5))
    world.skip(minutes=6)
    await world.passes(1)
    figures = set(world.control.metrics.text().decode().splitlines())
    assert 'nimbus_queue_seconds_count{outcome="granted"} 1.0' in figures
    assert 'nimbus_queue_seconds_sum{outcome="given up"} 360.0' in figures
    assert world.lease(holder).granted_at == NOW
