"""Outages: people whom the service was away for have two minutes, once, and are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from nimbus_hub.control.bus import Subscription, Warned
from nimbus_hub.errors import Conflict
from nimbus_hub.model.host import HostState
from nimbus_hub.model.job import JobState
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.store.store import Outcome, Write
from tests.unit.control_harness import World

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.control.inventory.refresh()
    await world.passes(1)
    yield world
    world.control.close()


async def active(world: World, length: timedelta = HOUR, name: str = "") -> Lease:
    lease = await world.session(name, length=length)
    return await world.control.leases.activate(lease.id)


async def restarted(world: World, path: Path, after: timedelta) -> World:
    """Return the world with the service that comes after another one."""
    world.control.close()
    again = World(path)
    again.clock.time = world.clock.time + after
    world.control, world.store, world.reconciler = again.control, again.store, again.reconciler
    world.clock, world.executor = again.clock, again.executor
    await world.control.inventory.refresh()
    return world


def warnings(heard: Subscription) -> list[tuple[str, int, str]]:
    return [
        (each.lease.id, each.seconds, each.reason)
        for each in heard._changes
        if isinstance(each, Warned)
    ]


async def test_an_end_that_came_while_the_service_was_down_leaves_two_minutes(
    world: World, tmp_path: Path
) -> None:
    lease = await active(world)
    await world.passes(1)
    world = await restarted(world, tmp_path, after=HOUR + 29 * MINUTE)
    with world.control.bus.subscribe(lambda _: True) as heard:
        await world.passes(3)
    now = world.clock.now()
    moved = world.lease(lease)
    assert (moved.state, moved.target, moved.expires_at) == (
        LeaseState.ACTIVE,
        None,
        now + 2 * MINUTE,
    )
    assert moved.note == (
        "the service was away from 12:00 UTC to 13:29 UTC, so this ends no sooner than 13:31 UTC"
    )
    assert warnings(heard) == [(lease.id, 120, moved.note)]
    with world.control.bus.subscribe(lambda _: True) as heard:
        world.skip(seconds=61)
        await world.passes(3)
    assert [seconds for _, seconds, _ in warnings(heard)] == [60]
    world.skip(seconds=59)
    await world.passes(2)
    assert world.lease(lease).public_state is LeaseState.EXPIRING


async def test_it_can_be_renewed_meanwhile(world: World, tmp_path: Path) -> None:
    lease = await active(world)
    world = await restarted(world, tmp_path, after=2 * HOUR)
    await world.passes(1)
    renewed = await world.control.leases.renew(lease.id)
    assert renewed.expires_at == world.clock.now() + 2 * HOUR
    assert renewed.note == ""


async def test_the_latest_end_is_passed_by_no_more_than_that(world: World, tmp_path: Path) -> None:
    lease = await active(world, length=12 * HOUR)
    world = await restarted(world, tmp_path, after=12 * HOUR)
    await world.passes(1)
    end = world.clock.now() + 2 * MINUTE
    assert world.lease(lease).expires_at == end
    with pytest.raises(Conflict, match="the latest end its policy allows"):
        await world.control.leases.renew(lease.id)
    assert world.lease(lease).expires_at == end


@pytest.mark.parametrize(
    ("left", "expected"),
    [(timedelta(seconds=119), 2 * MINUTE), (2 * MINUTE, 2 * MINUTE), (3 * MINUTE, 3 * MINUTE)],
)
async def test_what_ends_soon_after_the_return_has_as_much(
    world: World, tmp_path: Path, left: timedelta, expected: timedelta
) -> None:
    lease = await active(world)
    world = await restarted(world, tmp_path, after=HOUR - left)
    await world.passes(2)
    assert world.lease(lease).expires_at == world.clock.now() + expected


async def test_a_quick_restart_is_no_outage(world: World, tmp_path: Path) -> None:
    lease = await active(world)
    world.skip(minutes=59, seconds=50)
    await world.passes(1)
    world = await restarted(world, tmp_path, after=timedelta(seconds=14))
    await world.passes(1)
    assert world.lease(lease).reason == "its lease ran out and was not renewed"
    assert world.lease(lease).public_state is LeaseState.EXPIRING


async def test_a_machine_that_slept_was_away(world: World) -> None:
    lease = await active(world)
    await world.passes(1)
    world.sleep(hours=3)
    await world.passes(2)
    moved = world.lease(lease)
    assert moved.expires_at == world.clock.now() + 2 * MINUTE
    assert moved.note.startswith("the service was away from 12:00 UTC to 15:00 UTC")
    world.skip(minutes=2)
    await world.passes(2)
    assert world.lease(lease).public_state is LeaseState.EXPIRING


async def test_time_that_passes_while_the_service_acts_is_no_outage(world: World) -> None:
    lease = await active(world)
    world.skip(hours=1)
    await world.passes(2)
    assert world.lease(lease).public_state is LeaseState.EXPIRING


async def test_a_crash_before_the_sign_of_life_is_the_same_outage(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await active(world)
    world = await restarted(world, tmp_path, after=2 * HOUR)
    monkeypatch.setattr(world.store, "beat", None)
    with pytest.raises(TypeError):
        await world.passes(1)
    first = world.lease(lease).expires_at
    world = await restarted(world, tmp_path, after=MINUTE)
    await world.passes(2)
    assert world.lease(lease).expires_at == world.clock.now() + 2 * MINUTE == first + MINUTE  # type: ignore[operator]
    assert "away from 12:00 UTC to 14:01 UTC" in world.lease(lease).note


async def test_a_gang_has_the_time_and_a_job_has_not(world: World, tmp_path: Path) -> None:
    group = SlotGroup("worker", 1, 1000)
    gang = await world.control.gangs.request("ada", "script", [group], length=HOUR)
    job = await world.running(length=HOUR)
    await world.passes(3)
    world.sleep(hours=2)
    await world.passes(1)
    found = world.lease(gang.lease)
    assert (found.kind, found.target) == (LeaseKind.DEBUG, None)
    assert found.expires_at == world.clock.now() + 2 * MINUTE
    assert world.lease_of(job).reason == "its lease ran out and was not renewed"


async def test_what_was_asked_to_end_before_still_saves_its_documents(world: World) -> None:
    lease = await active(world)
    world.skip(hours=1)
    await world.passes(1)
    world.sleep(hours=1)
    await world.passes(2)
    assert world.servers.stopped == []
    world.skip(seconds=10)
    await world.passes(2)
    assert world.servers.stopped == [("ada", "")]
    assert world.lease(lease).state is LeaseState.EXPIRED


async def test_what_is_waited_for_is_waited_for_anew(world: World) -> None:
    session = await world.session()
    world.executor.auto_run = False
    job = await world.running()
    world.sleep(hours=1)
    await world.passes(2)
    assert world.lease(session).state is LeaseState.GRANTED
    assert world.job(job).state is JobState.STARTING
    world.skip(minutes=5)
    await world.passes(3)
    assert world.lease(session).reason == "the session did not start within 5m"
    assert "did not start within 5m" in world.job(job).reason


async def test_a_host_that_is_down_is_waited_for_anew(world: World) -> None:
    lease = await active(world, length=12 * HOUR)
    (slot,) = world.lease(lease).slots
    world.executor._hosts = tuple(
        replace(host, state=HostState.DOWN) if host.name == slot.host else host
        for host in world.executor._hosts
    )
    await world.control.inventory.refresh()
    await world.passes(1)
    world.sleep(hours=1)
    await world.passes(1)
    assert world.lease(lease).state is LeaseState.ACTIVE
    world.skip(minutes=2)
    await world.passes(1)
    assert world.lease(lease).state is LeaseState.LOST


async def test_a_renewal_that_comes_at_the_same_moment_wins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await active(world)
    await world.passes(1)
    world.sleep(hours=2)
    later = world.clock.now() + HOUR
    write_each = world.store.write_each

    def renewed_first(writes: Sequence[Write]) -> list[Outcome]:
        monkeypatch.setattr(world.store, "write_each", write_each)
        world.store.save(replace(world.lease(lease), expires_at=later), now=world.clock.now())
        return write_each(writes)

    monkeypatch.setattr(world.store, "write_each", renewed_first)
    await world.passes(1)
    assert (world.lease(lease).expires_at, world.lease(lease).target) == (later, None)
