"""Renewals that move a start somebody was promised: who may, and who is told what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from nimbus_hub.control.promises import Broken
from nimbus_hub.errors import Conflict
from nimbus_hub.model.cluster import Cluster, Renewals, Rules
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.slot import SlotGroup
from tests.unit.control_harness import HandClock, World

NOW = HandClock().now()
HOUR = timedelta(hours=1)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path, cluster=Cluster(rules=Rules(renewals=Renewals.PATIENCE)))
    await world.control.inventory.refresh()
    yield world
    world.control.close()


async def promised(world: World, wait: timedelta | None = None) -> tuple[Lease, Lease]:
    """Return a session's lease until 14:00, and one that was promised its GPU then."""
    lease = await world.session(gpus=1)
    await world.control.leases.activate(lease.id)
    draft = world.control.leases.draft(
        LeaseKind.SESSION, "bob", [SlotGroup("notebook", gpus=1)], wait=wait
    )
    waiting = await world.control.leases.request(draft)
    await world.passes(2)
    waiting = world.lease(waiting)
    assert waiting.starts_by == NOW + 2 * HOUR
    return lease, waiting


async def test_a_renewal_moves_a_promise_and_both_are_told(world: World) -> None:
    lease, waiting = await promised(world)
    world.skip(minutes=30)
    renewed = await world.control.leases.renew(lease.id)
    assert renewed.expires_at == NOW + 2.5 * HOUR
    assert renewed.note == (
        "renewed although another request, which was promised a start by 14:00 UTC, "
        "may now start at the latest 14:30 UTC"
    )
    told = world.lease(waiting)
    assert told.starts_by == NOW + 2.5 * HOUR
    assert told.note == (
        "its start moved from 14:00 to 14:30 UTC: a lease it waits for was renewed"
    )


async def test_a_note_stays_until_its_lease_is_granted(world: World) -> None:
    lease, waiting = await promised(world)
    world.skip(minutes=30)
    await world.control.leases.renew(lease.id)
    note = world.lease(waiting).note
    world.skip(minutes=5)
    await world.passes(3)
    seen = world.lease(waiting)
    assert (seen.note, seen.state) == (note, LeaseState.QUEUED)
    assert seen.reason != note
    await world.control.leases.stopped(lease.id, "gone")
    await world.passes(1)
    granted = world.lease(waiting)
    assert (granted.state, granted.note) == (LeaseState.GRANTED, "")


async def test_a_renewal_over_the_patience_of_who_was_promised_is_refused(world: World) -> None:
    lease, waiting = await promised(world, wait=timedelta(hours=2, minutes=10))
    world.skip(minutes=30)
    before = world.lease(lease), world.lease(waiting)
    with pytest.raises(Conflict) as refused:
        await world.control.leases.renew(lease.id)
    assert refused.value.message == (
        f"lease {lease.id} cannot be renewed until 14:30 UTC: another request, which waits for "
        "what it holds, was promised a start by 14:00 UTC; save your work, and start again after it"
    )
    assert (world.lease(lease), world.lease(waiting)) == before
    assert world.control.leases.can_renew(lease, world.clock.now())


async def test_a_renewal_within_that_patience_is_allowed(world: World) -> None:
    lease, _ = await promised(world, wait=timedelta(hours=2, minutes=30))
    world.skip(minutes=30)
    renewed = await world.control.leases.renew(lease.id)
    assert renewed.renewals == 1


@pytest.mark.parametrize(
    ("rule", "is_allowed"), [(Renewals.ALLOWED, True), (Renewals.REFUSED, False)]
)
async def test_the_rule_decides_whatever_the_patience(
    world: World, rule: Renewals, is_allowed: bool
) -> None:
    world.file.cluster = Cluster(rules=Rules(renewals=rule))
    wait = timedelta(hours=2, minutes=10) if is_allowed else None
    lease, _ = await promised(world, wait=wait)
    world.skip(minutes=30)
    if is_allowed:
        assert (await world.control.leases.renew(lease.id)).renewals == 1
    else:
        with pytest.raises(Conflict, match="another request"):
            await world.control.leases.renew(lease.id)


async def test_a_renewal_that_breaks_nothing_says_nothing(world: World) -> None:
    other = await world.session("cpu-only")
    await world.control.leases.activate(other.id)
    await promised(world)
    world.skip(minutes=30)
    renewed = await world.control.leases.renew(other.id)
    assert (renewed.renewals, renewed.note) == (1, "")


async def test_a_renewal_that_lost_a_race_is_weighed_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, waiting = await promised(world)
    world.skip(minutes=30)
    write_each, losing = world.store.write_each, iter([True])

    def loses_once(writes: object) -> object:
        if next(losing, False):
            told = world.lease(waiting)
            world.store.save(told, now=world.clock.now())
        return write_each(writes)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store, "write_each", loses_once)
    await world.control.leases.renew(lease.id)
    assert world.lease(lease).renewals == 1
    assert world.lease(waiting).note


def broken(then: datetime | None, until: datetime | None) -> Broken:
    wish = (SlotGroup("worker"),)
    lease = Lease("l-1", LeaseKind.JOB, "ada", "", wish, HOUR, NOW, wait_until=until)
    return Broken(lease, NOW, then)


@pytest.mark.parametrize(
    ("make", "is_within"),
    [
        (lambda: broken(NOW + HOUR, None), True),
        (lambda: broken(None, None), True),
        (lambda: broken(NOW + HOUR, NOW + HOUR), True),
        (lambda: broken(NOW + 2 * HOUR, NOW + HOUR), False),
        (lambda: broken(None, NOW + HOUR), False),
    ],
)
def test_patience_holds_to_its_end_and_for_ever_without_one(
    make: Callable[[], Broken], is_within: bool
) -> None:
    assert make().is_within_patience == is_within
