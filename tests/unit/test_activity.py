"""Who is idle: the decision, and what the control layer makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nimbus_hub.control.bus import Warned, WarningKind
from nimbus_hub.errors import Conflict
from nimbus_hub.model.activity import (
    FRESH,
    Idleness,
    Report,
    gang_idleness,
    idle_sentence,
    session_idleness,
)
from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.policy import LeasePolicy, LeaseRule, Signal
from tests.unit.control_harness import World

NOW = datetime(2026, 11, 23, 18, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LONG_AGO = NOW - 200 * MINUTE
POLICY = LeasePolicy(idle=120 * MINUTE, idle_warning=10 * MINUTE)
MEASURED = tuple(signal for signal in Signal if signal is not Signal.JOBS)
QUIET = Report(NOW, dict.fromkeys(MEASURED, LONG_AGO))


def decided(
    policy: LeasePolicy = POLICY,
    report: Report | None = QUIET,
    jobs_at: datetime | None = None,
    floor: datetime = LONG_AGO,
) -> Idleness | None:
    return session_idleness(policy, report, jobs_at, floor, NOW)


def seen(signal: Signal, at: datetime | None) -> Report:
    """Return a quiet report with one signal at another time, or not measured."""
    found = {**QUIET.active_at, signal: at or NOW}
    if at is None:
        del found[signal]
    return replace(QUIET, active_at=found)


def without(signal: Signal) -> LeasePolicy:
    return replace(POLICY, activity=frozenset(Signal) - {signal})


def test_nothing_for_so_long_is_idle() -> None:
    since = LONG_AGO
    assert decided() == Idleness(since, since + 110 * MINUTE, since + 120 * MINUTE, tuple(Signal))


@pytest.mark.parametrize("signal", MEASURED)
def test_a_signal_counts_if_it_is_switched_on(signal: Signal) -> None:
    lately = NOW - 5 * MINUTE
    on, off = decided(report=seen(signal, lately)), decided(without(signal), seen(signal, lately))
    assert on is not None
    assert off is not None
    assert (on.since, off.since) == (lately, LONG_AGO)
    assert signal not in off.signals


def test_a_job_counts_if_it_is_switched_on() -> None:
    lately = NOW - 5 * MINUTE
    on, off = decided(jobs_at=lately), decided(without(Signal.JOBS), jobs_at=lately)
    assert on is not None
    assert off is not None
    assert (on.since, off.since) == (lately, LONG_AGO)


@pytest.mark.parametrize("signal", [s for s in MEASURED if s is not Signal.GPU])
def test_what_should_count_and_was_not_measured_leaves_it_open(signal: Signal) -> None:
    assert decided(report=seen(signal, None)) is None
    assert decided(without(signal), seen(signal, None)) is not None


def test_a_session_without_gpus_is_judged_by_the_rest() -> None:
    idle = decided(report=seen(Signal.GPU, None))
    assert idle is not None
    assert Signal.GPU not in idle.signals


def test_a_busy_kernel_is_work_whatever_counts() -> None:
    busy = replace(QUIET, busy_kernels=1)
    assert decided(report=busy) is None
    assert decided(without(Signal.KERNELS), busy) is None


def test_who_does_not_report_is_not_idle() -> None:
    assert decided(report=None) is None
    assert decided(report=replace(QUIET, received_at=NOW - FRESH)) is not None
    assert decided(report=replace(QUIET, received_at=NOW - FRESH - MINUTE)) is None


def test_idleness_counts_from_when_the_session_was_wanted() -> None:
    idle = decided(floor=NOW - MINUTE)
    assert idle is not None
    assert idle.since == NOW - MINUTE


def test_never_is_never() -> None:
    assert decided(replace(POLICY, idle=None)) is None


def test_a_gang_is_idle_without_runs_and_use() -> None:
    policy = replace(POLICY, idle=20 * MINUTE, idle_ends=False)
    idle = gang_idleness(policy, {}, LONG_AGO)
    signals = (Signal.CPU, Signal.GPU, Signal.JOBS)
    assert idle is not None
    assert (idle.warns_at, idle.ends_at) == (LONG_AGO + 20 * MINUTE, None)
    assert sorted(idle.signals) == sorted(signals)
    for signal in signals:
        used = gang_idleness(policy, {signal: NOW}, LONG_AGO)
        assert used is not None
        assert used.since == NOW


@pytest.mark.parametrize(
    ("signals", "sentence"),
    [
        (
            tuple(Signal),
            "no kernel, terminal, other process, job or input, CPU and GPU at rest",
        ),
        ((Signal.JOBS, Signal.CPU), "no job, CPU at rest"),
        ((Signal.KERNELS, Signal.JOBS), "no kernel or job"),
        ((Signal.GPU,), "GPU at rest"),
        ((), ""),
    ],
)
def test_what_was_idle_is_a_sentence(signals: tuple[Signal, ...], sentence: str) -> None:
    assert idle_sentence(signals) == sentence


# In the control layer

IDLE = Cluster(
    leases=(
        LeaseRule(LeaseKind.SESSION, sets={"idle": 30 * MINUTE, "idle_warning": 5 * MINUTE}),
        LeaseRule(LeaseKind.DEBUG, sets={"idle": 20 * MINUTE}),
    )
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path, cluster=IDLE)
    await world.control.inventory.refresh()
    yield world
    world.control.close()


async def active(world: World) -> Lease:
    lease = await world.session()
    return await world.control.leases.activate(lease.id)


async def report(
    world: World, lease: Lease, minutes_ago: int = 10**6, busy_kernels: int = 0
) -> timedelta:
    """Have a session say that all its signals showed so long ago; let the service act."""
    now = world.clock.now()
    at = max(now - minutes_ago * MINUTE, datetime(2026, 1, 1, tzinfo=UTC))
    due = world.control.activity.put(lease, Report(now, dict.fromkeys(MEASURED, at), busy_kernels))
    await world.passes(1)
    return due


def warned(world: World) -> list[Warned]:
    found: list[Warned] = []
    publish = world.control.bus.publish

    def keep(change: object) -> None:
        if isinstance(change, Warned):
            found.append(change)
        publish(change)  # type: ignore[arg-type]

    world.control.bus.publish = keep  # type: ignore[method-assign, assignment]
    return found


async def test_an_idle_session_is_warned_and_then_ended(world: World) -> None:
    warnings = warned(world)
    lease = await active(world)
    world.skip(minutes=24, seconds=50)
    assert await report(world, lease) == timedelta(seconds=10)
    assert warnings == []
    world.skip(seconds=10)
    await report(world, lease)
    await report(world, lease)
    (warning,) = warnings
    assert (warning.kind, warning.seconds) == (WarningKind.IDLE, 300)
    assert warning.reason.startswith("idle for 25m: no kernel, terminal, other process, job")
    world.skip(minutes=4, seconds=59)
    await report(world, lease)
    assert world.lease(lease).target is None
    world.skip(seconds=1)
    await report(world, lease)
    over = world.lease(lease)
    assert over.target is LeaseState.EXPIRED
    assert over.reason == (
        "idle for 30m: no kernel, terminal, other process, job or input, CPU and GPU at rest"
    )


async def test_an_end_needs_a_report_of_its_moment(world: World) -> None:
    lease = await active(world)
    world.skip(minutes=29)
    await report(world, lease)
    world.skip(minutes=2, seconds=50)
    await world.passes(1)
    assert world.lease(lease).target is None
    world.skip(minutes=2, seconds=30)
    await report(world, lease, busy_kernels=1)
    assert world.lease(lease).target is None
    await report(world, lease)
    assert world.lease(lease).target is None, "it is warned anew, since it was busy"


async def test_who_is_idle_again_is_warned_again(world: World) -> None:
    warnings = warned(world)
    lease = await active(world)
    world.skip(minutes=26)
    await report(world, lease)
    await report(world, lease, minutes_ago=0)
    world.skip(minutes=26)
    await report(world, lease, minutes_ago=26)
    assert [warning.seconds for warning in warnings] == [300, 300]


async def test_a_warning_that_came_late_leaves_its_whole_time(world: World) -> None:
    lease = await active(world)
    world.skip(hours=1)
    await report(world, lease)
    idle = world.control.activity.idleness(world.lease(lease), world.clock.now())
    assert idle is not None
    assert idle.ends_at == world.clock.now() + 5 * MINUTE
    world.skip(minutes=5)
    await report(world, lease)
    assert world.lease(lease).target is LeaseState.EXPIRED


@pytest.mark.parametrize("word", ["keep", "renew"])
async def test_somebody_who_says_so_is_activity(world: World, word: str) -> None:
    lease = await active(world)
    world.skip(minutes=28)
    await report(world, lease)
    before = world.lease(lease).expires_at
    await getattr(world.control.leases, word)(lease.id)
    world.skip(minutes=10)
    await report(world, lease)
    now = world.lease(lease)
    assert now.target is None
    assert (now.expires_at == before) == (word == "keep")
    assert world.control.activity.note(now, world.clock.now()) == ""


async def test_what_cannot_be_idle_need_not_be_kept(world: World) -> None:
    job = await world.running()
    with pytest.raises(Conflict, match="is never idle; it need not be kept"):
        await world.control.leases.keep(job.lease_id)


async def test_a_followed_job_is_attached_to_its_owners_sessions(world: World) -> None:
    lease = await active(world)
    world.skip(minutes=40)
    with world.control.activity.following("bob"):
        await report(world, lease)
    now = world.clock.now()
    assert world.control.activity.note(lease, now)
    with world.control.activity.following("ada"):
        await report(world, lease)
    assert world.control.activity.note(lease, now) == ""


async def test_a_restart_makes_nobody_idle_early(world: World, tmp_path: Path) -> None:
    world.skip(minutes=-40)
    lease = await active(world)
    again = World(tmp_path, cluster=IDLE)
    await again.control.inventory.refresh()
    await report(again, again.lease(lease))
    idle = again.control.activity.idleness(again.lease(lease), again.clock.now())
    assert idle is not None
    assert idle.since == again.clock.now()
    again.control.close()


async def test_a_policy_that_becomes_never_ends_nobody(world: World) -> None:
    lease = await active(world)
    world.skip(minutes=40)
    await report(world, lease)
    world.file.cluster = Cluster()
    world.skip(minutes=6)
    assert await report(world, lease) == timedelta(minutes=1)
    assert world.lease(lease).target is None


async def gang(world: World, session: Lease) -> Lease:
    lease = await world.session("gang")
    active = await world.control.leases.activate(lease.id)
    held = replace(active, id="l-gang", kind=LeaseKind.DEBUG, parent=session.id)
    # As it would be with a gang of the session; what runs on it is told by hand here.
    world.control.activity.look([session, held], [], world.clock.now())
    return held


async def test_a_gang_that_does_nothing_is_told_of_and_not_ended(world: World) -> None:
    session = await active(world)
    held = await gang(world, session)
    activity = world.control.activity
    world.skip(minutes=19)
    assert activity.idle_gangs(session, world.clock.now()) == []
    world.skip(minutes=1)
    now = world.clock.now()
    activity.tell(held, now)
    assert activity.idle_gangs(session, now) == [held]
    assert activity.note(held, now) == (
        "idle for 20m: no job, CPU and GPU at rest; keep it, or give it back"
    )
    idle = activity.idleness(held, now)
    assert idle is not None
    assert not activity.is_over(held, idle, now + 600 * MINUTE)
    activity.keep(held)
    assert activity.idle_gangs(session, now) == []


async def test_what_a_gang_uses_is_activity(world: World) -> None:
    session = await active(world)
    held = await gang(world, session)
    activity = world.control.activity
    activity.note_use(held, 0.0, 0.0)
    world.skip(minutes=30)
    activity.tell(held, world.clock.now())
    activity.note_use(held, 10.0, 0.0)  # far below 5 % of a core
    assert activity.idle_gangs(session, world.clock.now()) == [held]
    world.skip(minutes=1)
    activity.note_use(held, 20.0, 0.0)
    assert activity.idle_gangs(session, world.clock.now()) == []


async def test_what_is_over_is_forgotten(world: World) -> None:
    lease = await active(world)
    await report(world, lease)
    await world.control.leases.stopped(lease.id, "gone")
    assert world.control.activity.report(lease.id) is None
    assert world.control.activity._seen == {}
