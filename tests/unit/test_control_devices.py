"""GPUs whose memory is held after the end of a lease: given to nobody until they are free."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimbus_hub.api.views import host_view
from nimbus_hub.control.capacity import gpu_counts, host_uses
from nimbus_hub.model.host import Gpu, HeldMemory, Host
from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.slot import SlotGroup
from tests.unit.control_harness import CPU_1, GIB, World

HELD = HeldMemory(3 * GIB, (4711,))
FREE = HeldMemory(3 * 2**20)
WORDS = "3G of its memory are held by process 4711, but by no lease"
GPU_2 = Host("gpu-2", 8000, 32 * GIB, (Gpu(0, "A100", uuid="GPU-1"), Gpu(1, "A100", uuid="GPU-2")))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, hosts=(CPU_1, GPU_2))
    yield made
    made.control.close()


async def end(world: World, job: Job) -> None:
    """Let all replicas of a job end well."""
    for replica in world.replicas(job):
        world.executor.exit(replica.id, 0)
    await world.settled()


def faults(world: World) -> list[str]:
    host = next(host for host in world.control.inventory.hosts if host.name == "gpu-2")
    return [gpu.fault for gpu in host.gpus]


async def test_a_device_that_is_still_held_is_given_to_nobody_until_it_is_free(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.reconciler.prepare()
    first = await world.running(gpus=2)
    world.executor.hold("gpu-2", 0, HELD)
    await end(world, first)
    assert world.job(first).state is JobState.SUCCEEDED
    assert faults(world) == [WORDS, ""]
    both, one = await world.submit(gpus=2), await world.submit(gpus=1)
    await world.passes()
    assert world.lease_of(one).slots[0].gpus == (1,)
    reason = world.lease_of(both).reason
    assert "waits for 2 GPUs" in reason
    assert f"GPU 0 of host gpu-2 is out of service: {WORDS}" in reason
    with caplog.at_level(logging.INFO):
        world.skip(seconds=11)
        await world.passes(1)
        world.executor.hold("gpu-2", 0, FREE)
        await end(world, one)
        world.skip(minutes=1)
        await world.passes()
    assert f"GPU 0 of host gpu-2 is out of service: {WORDS}" in caplog.text
    assert "GPU 0 of host gpu-2 is free again" in caplog.text
    assert faults(world) == ["", ""]
    assert world.job(both).state is JobState.RUNNING


async def test_a_device_is_given_on_at_once_if_nothing_holds_it(world: World) -> None:
    await world.reconciler.prepare()
    world.executor.hold("gpu-2", 0, FREE)
    first, second = await world.running(gpus=2), await world.submit(gpus=2)
    await end(world, first)
    await world.passes()
    assert world.job(second).state is JobState.RUNNING


async def test_sessions_that_end_have_their_devices_looked_at_too(world: World) -> None:
    await world.reconciler.prepare()
    lease = await world.session(gpus=1)
    await world.control.leases.activate(lease.id)
    world.executor.hold("gpu-2", lease.slots[0].gpus[0], HELD)
    await world.control.leases.stopped(lease.id, "done")
    await world.passes(1)
    assert WORDS in faults(world)


async def test_a_device_that_another_lease_shares_stays_in_service(world: World) -> None:
    """Its memory is that of whoever is still on it."""
    await world.reconciler.prepare()
    half = SlotGroup("worker", gpus=1, gpu_milli=500)
    jobs = [
        (await world.control.jobs.submit("ada", Launch(("python", "x.py")), [half])).job
        for _ in range(2)
    ]
    await world.passes()
    assert {world.lease_of(job).slots[0].gpus for job in jobs} == {(0,)}
    world.executor.hold("gpu-2", 0, HELD)
    await end(world, jobs[0])
    assert faults(world) == ["", ""]
    await end(world, jobs[1])
    assert faults(world) == [WORDS, ""]


async def test_what_held_a_device_before_the_service_started_is_found_out(world: World) -> None:
    world.executor.hold("gpu-2", 1, HELD)
    await world.reconciler.prepare()
    await world.passes(1)
    assert faults(world) == ["", WORDS]


async def test_a_device_that_cannot_be_looked_at_waits_until_its_host_answers(
    world: World,
) -> None:
    await world.reconciler.prepare()
    first = await world.running(gpus=2)
    for replica in world.replicas(first):
        world.executor.exit(replica.id, 0)
    await world.passes(1)
    world.executor.unreachable = True
    await world.passes(3)
    world.executor.unreachable = False
    world.skip(minutes=1)
    await world.passes(3)
    assert faults(world) == ["", ""]


async def test_a_device_out_of_service_is_told_where_devices_are_told(world: World) -> None:
    world.executor.hold("gpu-2", 0, HELD)
    await world.reconciler.prepare()
    await world.passes(2)
    uses = host_uses(world.control.inventory.hosts, ())
    assert gpu_counts(uses) == {"A100": (2, 1)}
    (view,) = [host_view(use, None) for use in uses if use.host.name == "gpu-2"]
    assert [(gpu.free_milli, gpu.fault) for gpu in view.gpus] == [(0, WORDS), (1000, "")]
    assert view.state_reason == f"GPU 0 is out of service: {WORDS}"
    assert b'nimbus_gpus_out_of_service{model="A100"} 1.0' in world.control.metrics.text()
