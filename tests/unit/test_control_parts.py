"""The small parts of the control layer: tokens, the bus, capacity, the inventory, leases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_hub.control.bus import _BACKLOG, Bus, Warned
from nimbus_hub.control.capacity import gpu_counts, host_uses
from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.tokens import job_of_token, job_token, new_id
from nimbus_hub.errors import Conflict, Ended, Impossible, InvalidRequest, Unavailable
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.model.host import HostState
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.replica import ReplicaSpec
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.store.writes import Write
from tests.unit.control_harness import CPU_1, GIB, GPU_1, HandClock, World

NOW = HandClock().now()
SLOT = Slot("notebook", 0, "gpu-1", "127.0.0.1", 1000, 2 * GIB, (0,), (20000,))
HELD = Lease(
    "l-1",
    LeaseKind.SESSION,
    "ada",
    "",
    (SlotGroup("notebook"),),
    timedelta(hours=2),
    NOW,
    state=LeaseState.ACTIVE,
    slots=(SLOT,),
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.control.inventory.refresh()
    yield world
    world.control.close()


# Tokens


def test_a_token_names_its_job_under_its_own_secret_only() -> None:
    token = job_token(b"secret", "j-7k3fm2xa")
    assert job_of_token(b"secret", token) == "j-7k3fm2xa"
    assert job_of_token(b"another", token) is None
    assert job_of_token(b"secret", token.replace("7k3", "7k4")) is None


@given(st.text() | st.text().map("nimbus-job.{}".format))
def test_no_other_text_is_a_token(text: str) -> None:
    assert job_of_token(b"secret", text.encode(errors="ignore").decode()) is None


def test_ids_are_easy_to_read_aloud_and_differ() -> None:
    ids = {new_id("j") for _ in range(1000)}
    assert len(ids) == 1000
    assert not any(set(each[2:]) & set("01ilo") for each in ids)


# The bus


async def test_a_listener_gets_what_it_wants_in_order() -> None:
    bus = Bus()
    with bus.subscribe(lambda change: not isinstance(change, Warned)) as changes:
        for change in (HELD, Warned(HELD, 60), replace(HELD, version=2)):
            bus.publish(change)
        assert [await changes.get(0), await changes.get(0)] == [HELD, replace(HELD, version=2)]
        assert await changes.get(0) is None


async def test_a_listener_that_is_behind_is_told_so_and_keeps_the_newest() -> None:
    bus = Bus()
    with bus.subscribe(lambda change: True) as changes:
        for version in range(_BACKLOG):
            bus.publish(replace(HELD, version=version))
        assert not changes.is_behind
        bus.publish(replace(HELD, version=_BACKLOG))
        assert changes.is_behind
        assert await changes.get(0) == replace(HELD, version=1)


# Capacity


def test_what_is_held_is_not_free() -> None:
    ended = replace(HELD, id="l-2", state=LeaseState.RELEASED)
    gpu, cpu = host_uses([GPU_1, CPU_1], [HELD, ended])
    assert (gpu.cpus_free_milli, gpu.memory_free_bytes) == (7000, 30 * GIB)
    assert (gpu.gpu_leases(0), gpu.gpu_free_milli(gpu.host.gpus[0]), gpu.free_gpus()) == (
        ["l-1"],
        0,
        [],
    )
    assert (cpu.cpus_free_milli, cpu.memory_free_bytes) == (8000, 32 * GIB)


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        (HostState.READY, {"A100": (1, 1)}),
        (HostState.DRAINING, {"A100": (1, 0)}),
        (HostState.DOWN, {}),
    ],
)
def test_only_hosts_that_take_slots_have_free_gpus(
    state: HostState, counts: dict[str, tuple[int, int]]
) -> None:
    assert gpu_counts(host_uses([replace(GPU_1, state=state)], [])) == counts


# The inventory


async def test_a_name_given_twice_changes_nothing() -> None:
    first, second = FakeExecutor((GPU_1,)), FakeExecutor((CPU_1,))
    inventory = Inventory([first, second])
    await inventory.refresh()
    second._hosts = (GPU_1,)
    with pytest.raises(InvalidRequest, match="two hosts are named 'gpu-1'; names must differ"):
        await inventory.refresh()
    assert inventory.hosts == (CPU_1, GPU_1)
    assert not inventory.has_left("cpu-1")


async def test_a_host_has_left_only_when_all_were_asked() -> None:
    first, second = FakeExecutor((GPU_1,)), FakeExecutor((CPU_1,))
    inventory = Inventory([first, second])
    second.unreachable = True
    await inventory.refresh()
    assert not inventory.has_left("cpu-1")
    with pytest.raises(Unavailable, match="host 'cpu-1' is not in the inventory yet"):
        inventory.executor("cpu-1")
    second.unreachable = False
    await inventory.refresh()
    second.unreachable = True
    await inventory.refresh()
    assert inventory.executor("cpu-1") is second
    assert inventory.has_left("gpu-9")
    with pytest.raises(Unavailable, match="not in the inventory any more"):
        inventory.keeper("gpu-9", "r-1")
    # What has left may have been anybody's; who has a record of the replica keeps it.
    second.unreachable = False
    await second.start(ReplicaSpec("r-1", "j-1", "ada", "gpu-9", ("true",)))
    assert inventory.keeper("gpu-9", "r-1") is second
    assert inventory.keeper("gpu-1", "r-1") is first


# Leases


async def test_nothing_is_called_impossible_before_all_hosts_are_known(tmp_path: Path) -> None:
    world = World(tmp_path)
    wish = [SlotGroup("notebook", gpus=1)]
    with pytest.raises(Unavailable, match="not all hosts have been heard of"):
        world.control.leases.draft(LeaseKind.SESSION, "ada", wish)
    await world.control.inventory.refresh()
    world.control.leases.draft(LeaseKind.SESSION, "ada", wish)
    with pytest.raises(Impossible):
        world.control.leases.draft(LeaseKind.SESSION, "ada", [SlotGroup("notebook", gpus=2)])
    world.control.close()


async def test_the_hub_cannot_end_or_start_the_lease_of_a_job(world: World) -> None:
    job = await world.submit()
    for act in (
        world.control.leases.stopped(job.lease_id, "gone"),
        world.control.leases.activate(job.lease_id),
    ):
        with pytest.raises(Conflict, match="is held by a job; stop the job instead"):
            await act
    await world.passes()
    assert world.store.lease(job.lease_id).state is LeaseState.ACTIVE


async def test_an_activation_that_lost_a_race_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await world.session()
    write_each, losing = world.store.write_each, iter([True])

    def loses_once(writes: Sequence[Write]) -> object:
        if next(losing, False):
            write_each([Write([replace(lease, reason="told meanwhile")], [], NOW)])
        return write_each(writes)

    monkeypatch.setattr(world.store, "write_each", loses_once)
    active = await world.control.leases.activate(lease.id)
    assert (active.state, active.version) == (LeaseState.ACTIVE, lease.version + 2)
    assert await world.control.leases.activate(lease.id) == active


async def test_what_has_ended_cannot_be_activated_renewed_or_saved(world: World) -> None:
    lease = await world.session()
    await world.control.leases.stopped(lease.id, "its server ended")
    before = world.lease(lease)
    for act in (
        world.control.leases.activate,
        world.control.leases.renew,
        world.control.leases.saved,
    ):
        with pytest.raises(Ended, match=r"ended at 2026-03-01 12:00 UTC \(its server ended\)"):
            await act(lease.id)
    assert world.lease(lease) == before
    assert await world.control.leases.stopped(lease.id, "again") == before
