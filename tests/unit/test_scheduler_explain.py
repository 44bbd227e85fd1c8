"""What can never run is refused with what would be possible; a dry run changes nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.errors import Impossible
from nimbus_hub.model.cluster import Cluster, Datacenter
from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.slot import Slot, SlotGroup, Topology
from nimbus_hub.model.wishes import DataUse, Wishes
from nimbus_hub.scheduler.decisions import Grant, Wait
from nimbus_hub.scheduler.explain import preview, refuse
from nimbus_hub.scheduler.plan import plan
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
            (G("worker", gpus=1, gpu_models=("V100",)),),
            "no host has a GPU of model V100; ask for one of: A100, T4",
        ),
        (
            (G("worker", gpus=2, gpu_models=("T4",)),),
            "2 GPUs T4 on one host were asked for, but the largest host has 1; "
            "ask for at most 1 per worker",
        ),
        (
            (G("notebook", cpus_milli=20_000),),
            "20 CPUs on one host were asked for, but the largest host has 16 for slots without "
            "GPUs; "
            "ask for at most 16 per notebook",
        ),
        (
            (G("worker", cpus_milli=9_000, gpus=1),),
            "9 CPUs on one host were asked for, but the largest host with 1 GPU has 8; "
            "ask for at most 8 per worker",
        ),
        (
            (G("worker", memory_bytes=100 * GIB),),
            "100G of memory on one host was asked for, but the largest host has 64G for slots "
            "without GPUs; "
            "ask for at most 64G per worker",
        ),
        (
            (G("worker", 8, memory_bytes=GIB, gpus=2),),
            "8 workers with 2 GPUs, 1 CPU and 1G of memory each (16 GPUs in all) were asked for, "
            "but only 2 fit on all hosts together; ask for at most 2 workers of this size",
        ),
        (
            (G("worker", 2, 8_000, 32 * GIB, 0), G("ps", 2, 8_000, 32 * GIB, 0)),
            "2 workers and 2 ps fit alone but not together in one datacenter; "
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


def request(*groups: SlotGroup, wishes: Wishes | None = None) -> Waiting:
    return Waiting("dry-run", "ada", groups, HOUR, NOW, wishes=wishes or Wishes())


def test_a_preview_says_where_it_would_start() -> None:
    answer = preview(Snapshot(ALL), request(G("worker", gpus=1, gpu_models=("T4",))), NOW).answer
    assert isinstance(answer, Grant)
    assert [(slot.host, slot.gpus) for slot in answer.slots] == [("gpu-2", (0,))]
    assert answer.reason == "1 worker on 1 host in 1 rack of default"


def test_a_preview_stands_behind_all_that_wait() -> None:
    slot = Slot("worker", 0, "cpu-1", CPU.address, 9_000, GIB)
    held = Holding("x", "bob", (slot,), NOW + HOUR)
    first = Waiting("zz", "bob", (G("worker", cpus_milli=16_000),), HOUR, NOW)
    found = preview(
        Snapshot((CPU,), (held,), (first,)), request(G("worker", cpus_milli=8_000)), NOW
    )
    assert found.answer == Wait(
        "dry-run", 2, "waits for 8 CPUs on one host: at most 7 are free; behind 1 earlier request"
    )


def test_a_preview_weighs_the_datacenters() -> None:
    hosts = (
        Host("e", 4_000, 8 * GIB, datacenter="east"),
        Host("w", 4_000, 8 * GIB, datacenter="west", address="10.0.0.2"),
    )
    cluster = Cluster(
        datacenters=(Datacenter("east", ("s3://east/",)), Datacenter("west", ("s3://west/",))),
        bytes_per_second=GIB,
    )
    data = (DataUse("s3://west/train", 100 * GIB), DataUse("s3://east/labels", GIB))
    wishes = Wishes(inputs=data)
    found = preview(Snapshot(hosts, cluster=cluster), request(G("worker"), wishes=wishes), NOW)
    assert [(s.datacenter, s.bytes_to_move, s.is_chosen) for s in found.sites] == [
        ("east", 100 * GIB, False),
        ("west", GIB, True),
    ]
    assert isinstance(found.answer, Grant)
    assert found.answer.reason == (
        "1 worker on 1 host in 1 rack of west; west: 1G to move (1s), no wait; "
        "east: 100G to move (1m40s), no wait"
    )


def test_a_datacenter_without_hosts_is_refused() -> None:
    with pytest.raises(Impossible, match="no host is in datacenter 'mars'; there are default"):
        refuse((G("worker"),), ALL, Wishes(datacenter="mars"))


@pytest.mark.parametrize(
    ("topology", "count", "message"),
    [
        (Topology.PACK_HOST, 5, "5 workers on one host .* at most 4"),
        (Topology.SPREAD_HOST, 3, "3 workers on hosts of their own .* at most 2"),
        (Topology.PACK_RACK, 5, "5 workers in one rack .* at most 4"),
    ],
)
def test_a_topology_that_no_cluster_state_allows_is_refused(
    topology: Topology, count: int, message: str
) -> None:
    hosts = (GPU, replace(OLD, rack="r2"))
    with pytest.raises(Impossible, match=message):
        refuse((G("worker", count, 1000, GIB, 1, topology=topology),), hosts)


def test_a_gang_of_more_slots_than_a_part_of_the_network_has_is_told_to_ask_for_a_larger_one() -> (
    None
):
    hosts = tuple(Host(name, 64_000, 256 * GIB, network="10.64.0.0/20") for name in ("a", "b"))
    refuse((G("worker", 13), G("ps", 1)), hosts)
    decided = plan(Snapshot(hosts, (), (request(G("worker", 14)),)), NOW)
    assert len(decided.grants[0].slots) == 14
    with pytest.raises(Impossible) as caught:
        refuse((G("worker", 14), G("ps", 1)), hosts)
    assert str(caught.value) == (
        "15 slots at once were asked for, but the network of the hosts in default has addresses "
        "for at most 14 of one gang; ask for fewer, or have an administrator give it a larger "
        "subnet in the cluster file"
    )
    elsewhere = Host("c", 64_000, 256 * GIB, datacenter="east")
    refuse((G("worker", 15),), (*hosts, elsewhere))


def test_ports_that_run_out_are_named_and_not_asked_for_in_vain() -> None:
    hosts = tuple(
        Host(name, 8_000, 64 * GIB, first_port=20000, last_port=20007) for name in ("a", "b")
    )
    with pytest.raises(Impossible, match="too few ports"):
        refuse((G("worker", 4),), hosts)
    decided = plan(Snapshot(hosts, (), (request(G("worker", 4)),)), NOW)
    assert "port" in decided.waits[0].reason
