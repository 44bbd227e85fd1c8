"""How the slots of a gang lie to each other, and what that means for its network."""

from __future__ import annotations

from collections import Counter

import pytest

from nimbus_hub.errors import Impossible
from nimbus_hub.model.slot import SlotGroup, Topology
from nimbus_hub.scheduler.explain import refuse
from nimbus_hub.scheduler.topology import crossing
from tests.unit.scheduler_samples import GIB, decide, group, held, host, places, request

RACKS = tuple(host(f"h{n}", 16, 4, rack=f"r{n // 2}") for n in range(4))
"""Two racks of two hosts with four GPUs each."""


def seats(*groups: SlotGroup, busy: dict[int, int] | None = None) -> list[str]:
    """Return the hosts of a gang; ``busy`` GPUs are held on some of the hosts."""
    holdings = [
        held(f"x{at}", RACKS[at], gpus=tuple(range(count))) for at, count in (busy or {}).items()
    ]
    return places(decide(RACKS, request("a", *groups), holdings=holdings)).get("a", [])


# Workers


def test_workers_take_the_fewest_hosts() -> None:
    assert seats(group(count=4, gpus=1)) == ["h0"] * 4


def test_workers_take_the_host_they_fill_and_leave_whole_ones_whole() -> None:
    assert seats(group(count=2, gpus=1), busy={2: 2}) == ["h2"] * 2


def test_workers_on_several_hosts_stay_in_one_rack() -> None:
    assert seats(group(count=6, gpus=1), busy={0: 1, 2: 2}) == ["h3"] * 4 + ["h2"] * 2


def test_workers_go_to_the_rack_in_which_they_need_the_fewest_hosts() -> None:
    hosts = (
        *(host(f"a{n}", 16, 2, rack="r1") for n in range(4)),
        *(host(f"b{n}", 16, 4, rack="r2") for n in range(2)),
    )
    decided = decide(hosts, request("a", group(count=8, gpus=1)))
    assert places(decided) == {"a": ["b0"] * 4 + ["b1"] * 4}


def test_workers_span_racks_only_if_no_rack_holds_them() -> None:
    assert Counter(seats(group(count=10, gpus=1), busy={0: 2})) == {"h2": 4, "h3": 4, "h0": 2}


def test_a_chief_lies_with_its_workers() -> None:
    groups = (group("chief", gpus=1), group(count=3, gpus=1))
    assert seats(*groups) == ["h0"] * 4
    assert seats(*groups, busy={0: 1}) == ["h1"] * 4


# Parameter servers and evaluators


def test_parameter_servers_lie_on_as_many_hosts_as_can_be() -> None:
    assert sorted(seats(group("ps", 4))) == ["h0", "h1", "h2", "h3"]
    assert Counter(seats(group("ps", 6))).most_common() == [
        ("h0", 2),
        ("h1", 2),
        ("h2", 1),
        ("h3", 1),
    ]


def test_parameter_servers_lie_in_the_rack_of_their_workers() -> None:
    found = seats(group("ps", 2), group(count=4, gpus=1), busy={0: 4, 1: 4, 2: 1})
    assert (sorted(found[:2]), found[2:]) == (["h2", "h3"], ["h3"] * 4)


def test_parameter_servers_go_to_other_racks_before_they_share_a_host() -> None:
    found = seats(group("ps", 3), group(count=4, gpus=1))
    assert found == ["h0", "h1", "h2", "h0", "h0", "h0", "h0"]


def test_an_evaluator_may_lie_anywhere_even_far_from_the_workers() -> None:
    groups = (group("evaluator", gpus=1), group(count=8, gpus=1))
    assert seats(*groups, busy={2: 3}) == ["h2", *["h0"] * 4, *["h1"] * 4]


# Musts


def test_pack_host_is_a_must() -> None:
    packed = group(count=3, gpus=1, topology=Topology.PACK_HOST)
    assert seats(packed, busy={0: 2, 1: 2, 2: 2}) == ["h3"] * 3
    assert seats(packed, busy=dict.fromkeys(range(4), 2)) == []


def test_pack_rack_is_a_must() -> None:
    packed = group(count=7, gpus=1, topology=Topology.PACK_RACK)
    assert Counter(seats(packed, busy={0: 2})) == {"h2": 4, "h3": 3}
    assert seats(packed, busy={0: 2, 3: 2}) == []


def test_spread_host_is_a_must() -> None:
    apart = group(count=4, gpus=1, topology=Topology.SPREAD_HOST)
    assert sorted(seats(apart)) == ["h0", "h1", "h2", "h3"]
    assert seats(apart, busy={0: 4}) == []


def test_spread_shares_hosts_where_there_are_too_few() -> None:
    apart = group(count=4, gpus=1, topology=Topology.SPREAD)
    assert Counter(seats(apart, busy={0: 4, 1: 4})) == {"h2": 2, "h3": 2}


def test_a_wish_wins_over_the_roles_default() -> None:
    assert seats(group("ps", 4, gpus=1, topology=Topology.PACK)) == ["h0"] * 4
    assert sorted(seats(group("worker", 4, gpus=1, topology=Topology.SPREAD))) == [
        "h0",
        "h1",
        "h2",
        "h3",
    ]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (
            group(count=5, gpus=1, topology=Topology.PACK_HOST),
            "5 workers on one host were asked for (pack:host), but at most 4 can be; "
            "ask for at most 4, or for another topology",
        ),
        (
            group(count=9, gpus=1, topology=Topology.PACK_RACK),
            "9 workers in one rack were asked for (pack:rack), but at most 8 can be; "
            "ask for at most 8, or for another topology",
        ),
        (
            group(count=5, gpus=1, topology=Topology.SPREAD_HOST),
            "5 workers on hosts of their own were asked for (spread:host), but at most 4 can be; "
            "ask for at most 4, or for another topology",
        ),
    ],
)
def test_a_must_that_never_can_be_is_refused_with_what_can(wish: SlotGroup, message: str) -> None:
    with pytest.raises(Impossible) as caught:
        refuse((wish,), RACKS)
    assert caught.value.message == message


# Two groups of one role


def test_two_groups_of_one_role_are_numbered_on_and_each_keeps_its_size() -> None:
    decided = decide(RACKS, request("a", group(gpus=1), group(count=2, cpus=2, gpus=2)))
    slots = decided.grants[0].slots
    assert [(slot.name, slot.cpus_milli, len(slot.gpus)) for slot in slots] == [
        ("worker-0", 1000, 1),
        ("worker-1", 2000, 2),
        ("worker-2", 2000, 2),
    ]


# The network


@pytest.mark.parametrize(
    ("racks", "times"),
    [
        ([0], 0.0),
        ([0, 0, 0], 0.0),
        # Two links between the racks, each with 2 * 1/2 of the size.
        ([0, 1], 2.0),
        # Two links, each with 2 * 3/4 of the size; however the workers are spread.
        ([0, 0, 1, 1], 3.0),
        ([0, 1, 1, 1], 3.0),
        # Three links, each with 2 * 5/6.
        ([0, 0, 1, 1, 2, 2], 5.0),
    ],
)
def test_a_ring_crosses_as_many_links_as_it_has_racks(racks: list[int], times: float) -> None:
    assert crossing(racks, []) == pytest.approx(times)


@pytest.mark.parametrize(
    ("workers", "servers", "times"),
    [
        ([0, 0], [0], 0.0),
        # There and back.
        ([0], [1], 2.0),
        # Each worker sends half of its gradients to the server elsewhere, and gets as much.
        ([0, 0], [0, 1], 2.0),
        # 3 of 6 pairs are apart; each is 1/2 of the size, both ways.
        ([0, 0, 1], [0, 1], 3.0),
    ],
)
def test_each_worker_exchanges_an_equal_part_with_each_parameter_server(
    workers: list[int], servers: list[int], times: float
) -> None:
    assert crossing(workers, servers) == pytest.approx(times)


def said(*groups: SlotGroup, step_bytes: int | None = None) -> str:
    return decide(RACKS, request("a", *groups, step_bytes=step_bytes)).grants[0].reason


def test_the_plan_says_hosts_racks_and_the_bytes_per_step_that_cross_racks() -> None:
    assert said(group(count=12, gpus=1), step_bytes=GIB) == (
        # 2 links with 2 * 11/12 GiB each.
        "12 workers on 3 hosts in 2 racks of default; 3.7G per step cross racks"
    )
    assert said(group("ps", 3), group(count=4, gpus=1), step_bytes=GIB) == (
        # 4 workers with the one of 3 servers in the other rack: 2 * 4/3 GiB.
        "3 ps on 3 hosts in 2 racks, 4 workers on 1 host in 1 rack of default; "
        "2.7G per step cross racks"
    )


def test_without_the_size_of_a_step_the_plan_says_a_factor() -> None:
    assert said(group(count=12, gpus=1)) == (
        "12 workers on 3 hosts in 2 racks of default; "
        "in each step 3.67 times what a worker exchanges crosses racks"
    )


def test_the_plan_says_that_nothing_crosses_racks() -> None:
    assert said(group("chief", gpus=1), group(count=7, gpus=1)) == (
        "1 chief on 1 host in 1 rack, 7 workers on 2 hosts in 1 rack of default; "
        "nothing crosses racks"
    )


def test_a_single_slot_has_no_network_to_speak_of() -> None:
    assert said(group("notebook", gpus=1)) == "1 notebook on 1 host in 1 rack of default"
    assert said(group("evaluator", 2)) == "2 evaluators on 1 host in 1 rack of default"


# Why it waits


def test_a_must_of_topology_is_named_as_what_is_missing() -> None:
    holdings = [held(at.name, at, gpus=(0, 1, 2)) for at in RACKS]
    packed = group(count=2, gpus=1, topology=Topology.PACK_HOST)
    reason = decide(RACKS, request("x", packed), holdings=holdings).waits[0].reason
    assert "on one host" in reason
