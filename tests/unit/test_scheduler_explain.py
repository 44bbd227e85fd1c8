"""What can never run is refused with what would be possible; a dry run changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.errors import Impossible
from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.scheduler.explain import dry_run, refuse
from nimbus_hub.scheduler.plan import Grant, Wait
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
GIB = 2**30
HOUR = timedelta(hours=1)

CPU = Host("cpu-1", 16_000, 64 * GIB)
GPU = Host("gpu-1", 8_000, 32 * GIB, tuple(Gpu(n, "A100") for n in range(4)), "10.0.0.2")
OLD = Host("gpu-2", 8_000, 32 * GIB, (Gpu(0, "T4"),), "10.0.0.3")
ALL = (CPU, GPU, OLD)

G = SlotGroup


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            (G("worker", gpus=5),),
            "5 GPUs on one host were asked for, but the largest host has 4; "
            "ask for at most 4 per worker",
        ),
        (
            (G("worker", gpus=1, gpu_model="V100"),),
            "no host has a GPU of model V100; ask for one of: A100, T4",
        ),
        (
            (G("worker", gpus=2, gpu_model="T4"),),
            "2 GPUs T4 on one host were asked for, but the largest host has 1; "
            "ask for at most 1 per worker",
        ),
        (
            (G("notebook", cpus_milli=20_000),),
            "20 CPUs on one host were asked for, but the largest host has 16; "
            "ask for at most 16 per notebook",
        ),
        (
            (G("worker", cpus_milli=9_000, gpus=1),),
            "9 CPUs on one host were asked for, but the largest host with 1 GPU has 8; "
            "ask for at most 8 per worker",
        ),
        (
            (G("worker", memory_bytes=100 * GIB),),
            "100G of memory on one host was asked for, but the largest host has 64G; "
            "ask for at most 64G per worker",
        ),
        (
            (G("worker", 8, memory_bytes=GIB, gpus=2),),
            "8 workers with 2 GPUs, 1 CPU and 1G of memory each (16 GPUs in all) were asked for, "
            "but only 2 fit on all hosts together; ask for at most 2 workers of this size",
        ),
        (
            (G("worker", 2, 8_000, 32 * GIB, 0), G("ps", 3, 8_000, 32 * GIB, 0)),
            "2 workers and 3 ps fit alone but not together in one datacenter; "
            "ask for fewer or smaller ones",
        ),
    ],
)
def test_what_no_empty_host_could_run_is_refused_with_what_could(
    groups: tuple[SlotGroup, ...], message: str
) -> None:
    with pytest.raises(Impossible) as caught:
        refuse(groups, ALL)
    assert caught.value.message == message


def test_gpus_are_refused_where_there_are_none() -> None:
    with pytest.raises(Impossible, match=r"2 GPUs per worker asked for, but no host has GPUs"):
        refuse((G("worker", gpus=2),), (CPU,))


def test_everything_is_refused_without_hosts() -> None:
    with pytest.raises(Impossible, match="no hosts"):
        refuse((G("worker"),), ())


def test_a_gang_that_two_datacenters_only_hold_together_is_refused() -> None:
    east = Host("a", 4_000, 8 * GIB, datacenter="east")
    west = Host("b", 4_000, 8 * GIB, datacenter="west")
    with pytest.raises(Impossible, match="only 4 fit in one datacenter; ask for at most 4 workers"):
        refuse((G("worker", 6, memory_bytes=GIB),), (east, west))


def test_what_a_host_that_is_down_could_run_is_not_refused() -> None:
    refuse((G("worker"),), (Host("a", 4_000, 8 * GIB, state=HostState.DOWN),))


def test_a_dry_run_says_where_it_would_start() -> None:
    answer = dry_run(Snapshot(ALL), (G("worker", gpus=1),), HOUR, NOW)
    assert isinstance(answer, Grant)
    assert [(slot.host, slot.gpus) for slot in answer.slots] == [("gpu-2", (0,))]


def test_a_dry_run_stands_behind_all_that_wait() -> None:
    slot = Slot("worker", 0, "cpu-1", CPU.address, 9_000, GIB)
    held = Holding("x", "bob", (slot,), NOW + HOUR)
    first = Waiting("zz", "bob", (G("worker", cpus_milli=16_000),), HOUR, NOW)
    answer = dry_run(
        Snapshot((CPU,), (held,), (first,)), (G("worker", cpus_milli=8_000),), HOUR, NOW
    )
    assert answer == Wait(
        "dry-run",
        2,
        "waiting for 8 CPUs on one host: at most 7 are free; behind 1 earlier request",
    )
