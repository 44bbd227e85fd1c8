"""A debug gang lies near its session: on its host, else in its rack, and always fits."""

from __future__ import annotations

from dataclasses import replace

from nimbus_hub.model.slot import SlotGroup, Topology
from tests.unit.scheduler_samples import decide, group, held, host, places, request

HOSTS = tuple(host(f"h{n}", 16, 4, rack=f"r{n // 2}") for n in range(6))
"""Three racks of two hosts with four GPUs each."""


def seats(*groups: SlotGroup, near: str, busy: dict[int, int] | None = None) -> list[str]:
    """Return the hosts of a gang near a host; ``busy`` GPUs are held on some."""
    holdings = [
        held(f"x{at}", HOSTS[at], gpus=tuple(range(count))) for at, count in (busy or {}).items()
    ]
    asked = replace(request("a", *groups), near=near)
    return places(decide(HOSTS, asked, holdings=holdings)).get("a", [])


def test_a_gang_lies_on_the_host_of_its_session() -> None:
    assert seats(group(count=2, gpus=1), near="h3") == ["h3"] * 2
    assert seats(group(gpus=1), near="h3") == ["h3"]


def test_a_gang_that_does_not_fit_there_lies_in_the_same_rack() -> None:
    assert seats(group(count=2, gpus=1), near="h3", busy={3: 3}) == ["h2"] * 2
    assert seats(group(gpus=1), near="h3", busy={3: 4}) == ["h2"]


def test_a_gang_of_several_hosts_lies_in_the_rack_of_its_session() -> None:
    assert sorted(seats(group(count=6, gpus=1), near="h3")) == ["h2"] * 4 + ["h3"] * 2


def test_a_gang_rather_packs_elsewhere_than_span_hosts_near_its_session() -> None:
    assert len(set(seats(group(count=4, gpus=1), near="h3", busy={2: 2, 3: 2}))) == 1


def test_parameter_servers_spread_in_the_rack_of_the_session() -> None:
    hosts = (*HOSTS, host("c0", rack="r1"), host("c1", rack="r1"), host("c2", rack="r0"))
    asked = replace(request("a", group("ps", 2)), near="h3")
    assert sorted(places(decide(hosts, asked))["a"]) == ["c0", "c1"]


def test_slots_without_gpus_leave_the_gpu_host_of_the_session_alone() -> None:
    hosts = (*HOSTS, host("c0", rack="r0"), host("c1", rack="r1"))
    asked = replace(request("a", group(count=2)), near="h3")
    assert places(decide(hosts, asked))["a"] == ["c1"] * 2


def test_a_topology_that_is_asked_for_goes_before_nearness() -> None:
    spread = group(count=2, gpus=1, topology=Topology.SPREAD_HOST)
    assert sorted(seats(spread, near="h3")) == ["h2", "h3"]
    assert len(set(seats(spread, near="h3", busy={2: 4}))) == 2


def test_a_gang_near_a_host_that_takes_nothing_lies_anywhere() -> None:
    assert len(seats(group(count=2, gpus=1), near="gone")) == 2


def test_the_plan_says_near_which_session() -> None:
    asked = replace(request("a", group(count=2, gpus=1)), near="h3")
    (grant,) = decide(HOSTS, asked).grants
    assert grant.reason == "2 workers on 1 host in 1 rack of default; " + (
        "nothing crosses racks; near your session on h3"
    )
