"""Records: writes of one moment share a transaction; what is known is never older than told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nimbus_hub.errors import Conflict
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.store.store import Known, Live
from nimbus_hub.store.writes import Outcome, Write
from tests.unit.control_harness import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    await found.control.inventory.refresh()
    yield found
    found.control.close()


def draft(world: World, name: str = "", owner: str = "ada") -> Lease:
    return world.control.leases.draft(LeaseKind.SESSION, owner, [SlotGroup("notebook")], name=name)


async def test_requests_of_one_moment_are_one_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    write_each = world.store.write_each

    def counted(writes: Sequence[Write]) -> object:
        batches.append(len(writes))
        return write_each(writes)

    monkeypatch.setattr(world.store, "write_each", counted)
    leases = [draft(world, f"s{number}") for number in range(20)]
    await asyncio.gather(*map(world.control.leases.request, leases))
    assert batches == [20]
    assert {lease.id for lease in world.store.live().leases} == {lease.id for lease in leases}


async def test_of_many_requests_for_one_session_one_is_recorded(world: World) -> None:
    drafts = [draft(world, "same") for _ in range(5)] + [draft(world, "same", "bob")]
    answers = await asyncio.gather(
        *map(world.control.leases.request, drafts), return_exceptions=True
    )
    assert sum(isinstance(answer, Conflict) for answer in answers) == 4
    assert answers[-1] == drafts[-1]
    assert {lease.owner for lease in world.store.live().leases} == {"ada", "bob"}
    assert len(world.store.leases()) == 2


async def test_what_was_written_is_known_until_it_is_over(world: World) -> None:
    records = world.control.records
    lease = await world.session()
    assert records.known(lease.id) is (await records.live()).leases[0]
    ended = await world.control.leases.stopped(lease.id, "its server ended")
    assert records.known(lease.id) == ended
    assert (await records.live()).leases == ()
    assert records.known(lease.id) is None


async def test_an_older_read_does_not_hide_what_was_written_since(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = world.control.records
    lease = await world.session()
    ended = replace(lease, state=LeaseState.RELEASED, version=lease.version + 1)

    def read_before(_known: Known) -> Live:
        records._tell([ended])
        return Live((lease,), (), ())

    monkeypatch.setattr(world.store, "live", read_before)
    await records.refresh()
    assert records.known(lease.id) == ended
    assert (await records.live()).leases == ()


def by_id(live: Live) -> list[dict[str, object]]:
    return [{each.id: each for each in records} for records in live]


async def test_what_is_live_is_read_once_and_then_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, job = await world.session(), await world.running(workers=2, retries=1)
    reads: list[Known] = []
    live = world.store.live

    def counted(known: Known) -> Live:
        reads.append(known)
        return live(known)

    monkeypatch.setattr(world.store, "live", counted)
    records = world.control.records
    await world.control.leases.activate(lease.id)
    world.executor.exit(world.replicas(job)[0].id, 1)
    await world.settled()
    assert world.job(job).attempt == 2
    assert by_id(await records.live()) == by_id(live())
    await world.control.leases.stopped(lease.id, "its server ended")
    await world.control.jobs.stop(job.id, "stopped by its owner")
    await world.passes(4)
    assert await records.live() == live() == ((), (), ())
    assert reads == []


async def test_a_write_whose_caller_was_cancelled_is_told_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = world.control.records
    lease = draft(world)
    told: list[object] = []
    records.listen(told.append)
    loop, is_writing = asyncio.get_running_loop(), asyncio.Event()
    write_each = world.store.write_each

    def seen(writes: Sequence[Write]) -> list[Outcome]:
        loop.call_soon_threadsafe(is_writing.set)
        return write_each(writes)

    monkeypatch.setattr(world.store, "write_each", seen)
    asking = asyncio.create_task(world.control.leases.request(lease))
    async with asyncio.timeout(10):
        await is_writing.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await records.lease(lease.id)
    assert told == [lease]
    assert (await records.live()).leases == (lease,)


async def test_what_another_wrote_is_known_after_the_first_conflict(world: World) -> None:
    lease = await world.session()
    (told,) = world.store.save(replace(lease, reason="told meanwhile"), now=world.clock.now())
    with pytest.raises(Conflict):
        await world.control.records.save(replace(lease, reason="too late"))
    assert (await world.control.records.live()).leases == (told,)


async def test_a_change_of_what_another_wrote_meanwhile_is_decided_again(world: World) -> None:
    lease = await world.session()
    world.store.save(replace(lease, reason="told meanwhile"), now=world.clock.now())
    active = await world.control.leases.activate(lease.id)
    assert (active.state, active.version) == (LeaseState.ACTIVE, lease.version + 2)
    assert active.reason == "told meanwhile"
