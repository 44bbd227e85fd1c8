"""GPU first: what work without GPUs may have of hosts with GPUs, and when it has to go."""

from __future__ import annotations

import pytest

from nimbus_hub.errors import Impossible
from nimbus_hub.model.cluster import Cluster, Rules
from nimbus_hub.model.host import Host
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import Slot, Topology
from nimbus_hub.scheduler.decisions import ReasonCode
from nimbus_hub.scheduler.explain import refuse
from nimbus_hub.scheduler.free import Free
from nimbus_hub.scheduler.snapshot import Holding
from tests.unit.scheduler_samples import (
    GIB,
    HOUR,
    NOW,
    decide,
    group,
    held,
    host,
    places,
    request,
    stopped,
)

GPU = host("gpu", 16, 2)
"""Each free GPU keeps 2 of 16 CPUs: 12 are for guests."""


# Where


def test_slots_without_gpus_go_to_the_host_without_however_tight() -> None:
    hosts = (host("a", 64, 8), host("b", 2))
    assert places(decide(hosts, request("a", group(cpus=2)))) == {"a": ["b"]}


def test_slots_without_gpus_go_to_a_gpu_host_only_if_no_other_holds_them() -> None:
    hosts = (host("a", 64, 8), host("b", 2))
    assert places(decide(hosts, request("a", group(cpus=3)))) == {"a": ["a"]}


def test_a_group_that_may_lie_anywhere_fills_the_hosts_without_gpus_first() -> None:
    hosts = (host("a", 64, 8), host("b", 2))
    decided = decide(hosts, request("a", group(count=3, topology=Topology.ANY)))
    assert places(decided) == {"a": ["b", "b", "a"]}


def test_the_groups_of_a_gang_are_judged_one_by_one() -> None:
    hosts = (host("a", 64, 8), host("b", 2))
    decided = decide(hosts, request("a", group("ps", 2), group("worker", 2, gpus=1)))
    assert places(decided) == {"a": ["b", "b", "a", "a"]}


def test_work_with_gpus_is_not_bound_by_the_reserve() -> None:
    assert places(decide((GPU,), request("a", group(cpus=16, gpus=1)))) == {"a": ["gpu"]}


# How much


@pytest.mark.parametrize(
    ("machine", "rules", "kept"),
    [
        (host("a", 16, 2), Rules(), 4000),
        # At most half of a GPU's share of the host.
        (host("a", 4, 2), Rules(), 2000),
        (host("a", 16, 2), Rules(reserve_cpus_milli=100_000), 8000),
        (host("a", 16, 2), Rules(reserve_cpus_milli=0), 0),
        (host("a", 16, 0), Rules(), 0),
    ],
)
def test_each_free_gpu_keeps_cpus_up_to_half_of_its_share(
    machine: Host, rules: Rules, kept: int
) -> None:
    assert Free((machine,), rules).kept_cpus().tolist() == [kept]


def test_memory_is_kept_by_the_same_rule() -> None:
    assert Free((GPU,), Rules()).kept_memory().tolist() == [16 * GIB]
    most = Rules(reserve_memory_bytes=1000 * GIB)
    assert Free((GPU,), most).kept_memory().tolist() == [128 * GIB]


def test_gpus_in_use_keep_nothing_and_shares_keep_their_part() -> None:
    free = Free((GPU,), Rules())
    assert free.kept_cpus().tolist() == [4000]
    free.gpus[0] = [0, 750]
    assert free.kept_cpus().tolist() == [1500]


@pytest.mark.parametrize(("cpus", "does_fit"), [(12, True), (12.5, False)])
def test_guests_get_what_free_gpus_do_not_keep(cpus: float, does_fit: bool) -> None:
    decided = decide((GPU,), request("a", group(cpus=cpus)))
    assert bool(decided.grants) is does_fit


def test_guests_get_more_while_gpus_are_in_use() -> None:
    busy = (held("x", GPU, cpus=1, gpus=(0, 1)),)
    assert decide((GPU,), request("a", group(cpus=15)), holdings=busy).grants


def test_what_the_reserve_never_leaves_is_refused_at_once() -> None:
    with pytest.raises(Impossible) as caught:
        refuse((group(cpus=13),), (GPU,))
    assert caught.value.message == (
        "13 CPUs on one host were asked for, but the largest host has 12 for slots without GPUs; "
        "ask for at most 12 per worker"
    )


def test_the_operator_may_set_the_reserve() -> None:
    cluster = Cluster(rules=Rules(reserve_cpus_milli=0, reserve_memory_bytes=0))
    assert decide((GPU,), request("a", group(cpus=16)), cluster=cluster).grants


# Guests make room


def test_a_guest_is_stopped_for_gpu_work_in_the_pass_that_needs_its_host() -> None:
    decided = decide(
        (GPU,), request("a", group(cpus=8, gpus=1)), holdings=(held("g", GPU, cpus=9),)
    )
    assert decided.grants == ()
    assert [(each.lease_id, each.for_lease_id, each.reason) for each in decided.preemptions] == [
        ("g", "a", "work with GPUs needs the host, on which work without is a guest")
    ]
    assert [(wait.code, wait.reason) for wait in decided.waits] == [
        (ReasonCode.PREEMPTING, "1 lease of others is being stopped for it")
    ]


def test_a_guest_that_leaves_room_is_left_alone() -> None:
    decided = decide(
        (GPU,), request("a", group(cpus=7, gpus=1)), holdings=(held("g", GPU, cpus=9),)
    )
    assert (places(decided), stopped(decided)) == ({"a": ["gpu"]}, [])


def test_the_guests_that_lose_least_are_stopped_and_no_more_than_needed() -> None:
    guests = tuple(held(f"g{hours}", GPU, cpus=4, since=NOW - hours * HOUR) for hours in (3, 1, 2))
    decided = decide((GPU,), request("a", group(cpus=8, gpus=1)), holdings=guests)
    assert stopped(decided) == [("g1", "a")]


def test_a_guest_that_turns_out_not_to_help_is_spared() -> None:
    other = host("other", 16, 1)
    guests = (
        held("useless", other, cpus=2, since=NOW),
        held("useful", GPU, cpus=12, since=NOW - HOUR),
    )
    decided = decide((GPU, other), request("a", group(cpus=8, gpus=2)), holdings=guests)
    assert stopped(decided) == [("useful", "a")]


def test_nobody_is_stopped_if_that_would_not_be_enough() -> None:
    holdings = (held("g", GPU, cpus=8), held("x", GPU, cpus=1, gpus=(0,)))
    decided = decide((GPU,), request("a", group(cpus=12, gpus=2)), holdings=holdings)
    assert stopped(decided) == []


def test_a_guest_is_stopped_as_a_whole_lease() -> None:
    other = host("other", 16, 2)
    slots = tuple(
        Slot("worker", at, each.name, each.address, 12_000, GIB)
        for at, each in enumerate((GPU, other))
    )
    gang = Holding("gang", "bob", slots, NOW + HOUR, since=NOW)
    asked = (
        request("a", group(cpus=10, gpus=1), ago=2),
        request("b", group(cpus=10, gpus=1), ago=1),
    )
    decided = decide((GPU, other), *asked, holdings=(gang,))
    assert stopped(decided) == [("gang", "a")]
    assert [wait.code for wait in decided.waits] == [ReasonCode.PREEMPTING, ReasonCode.ENDING]


def test_sessions_are_no_guests() -> None:
    session = held("s", GPU, cpus=9, kind=LeaseKind.SESSION)
    decided = decide((GPU,), request("a", group(cpus=8, gpus=1)), holdings=(session,))
    assert (decided.grants, stopped(decided)) == ((), [])


def test_jobs_with_gpus_are_no_guests() -> None:
    job = held("x", GPU, cpus=9, gpus=(0,))
    decided = decide((GPU,), request("a", group(cpus=8, gpus=1)), holdings=(job,))
    assert (decided.grants, stopped(decided)) == ((), [])


def test_work_without_gpus_stops_no_guests() -> None:
    decided = decide((GPU,), request("a", group(cpus=8)), holdings=(held("g", GPU, cpus=9),))
    assert (decided.grants, stopped(decided)) == ((), [])


def test_a_job_on_a_host_without_gpus_is_no_guest() -> None:
    plain = host("plain", 16)
    holdings = (held("j", plain, cpus=16), held("g", GPU, cpus=12))
    decided = decide((GPU, plain), request("a", group(cpus=8, gpus=1)), holdings=holdings)
    assert stopped(decided) == [("g", "a")]


def test_what_guests_are_stopped_for_is_kept_for_it() -> None:
    guest = held("g", GPU, cpus=9, is_ending=True)
    asked = (
        request("first", group(cpus=14, gpus=1), ago=2),
        request("late", group(cpus=4, gpus=1), ago=1),
    )
    decided = decide((GPU,), *asked, holdings=(guest,))
    assert decided.grants == ()
    assert [(wait.lease_id, wait.code) for wait in decided.waits] == [
        ("first", ReasonCode.ENDING),
        ("late", ReasonCode.RESOURCES),
    ]
