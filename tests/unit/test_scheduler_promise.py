"""Reservations, the promises they are, and back-fill that does not break them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from nimbus_hub.model.cluster import Cluster, Datacenter
from nimbus_hub.model.host import HostState
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import SlotGroup, Topology
from nimbus_hub.model.wishes import DataUse
from nimbus_hub.scheduler.decisions import Plan, ReasonCode, Wait
from nimbus_hub.scheduler.snapshot import Holding
from tests.unit.scheduler_samples import (
    GIB,
    HOUR,
    MINUTE,
    NOW,
    URGENT,
    decide,
    group,
    held,
    host,
    places,
    request,
)

HOST = host("h", 64, 4)
ALL = group(count=4, gpus=1)


def promises(decided: Plan) -> dict[str, float | None]:
    """Return in how many hours each that waits is promised to start."""
    return {
        wait.lease_id: None if wait.starts_by is None else (wait.starts_by - NOW) / HOUR
        for wait in decided.waits
    }


def ends(*hours: float | None) -> list[Holding]:
    """Return leases of one GPU each that end so."""
    return [
        held(f"x{at}", HOST, None if each is None else NOW + each * HOUR, gpus=(at,))
        for at, each in enumerate(hours)
    ]


# The promise


@pytest.mark.parametrize(("gpus", "hours"), [(1, 1), (2, 2), (3, 3), (4, 5)])
def test_the_promise_is_the_first_end_after_which_the_gang_fits(gpus: int, hours: float) -> None:
    asked = request("a", group(count=gpus, gpus=1))
    assert promises(decide((HOST,), asked, holdings=ends(3, 1, 5, 2))) == {"a": hours}


def test_only_the_first_that_cannot_start_is_promised_a_time() -> None:
    asked = [request(f"a{n}", ALL, ago=9 - n) for n in range(3)]
    found = promises(decide((HOST,), *asked, holdings=ends(1, 2)))
    assert found == {"a0": 2, "a1": None, "a2": None}


def test_what_can_start_now_counts_until_its_own_end() -> None:
    first = request("first", group(count=2, gpus=1), ago=9, length=3 * HOUR)
    decided = decide((HOST,), first, request("a", ALL), holdings=ends(1, 2))
    assert (list(places(decided)), promises(decided)) == (["first"], {"a": 3})


def test_a_session_of_unknown_end_promises_nothing_to_who_needs_its_seat() -> None:
    decided = decide((HOST,), request("a", ALL), holdings=ends(1, None))
    assert promises(decided) == {"a": None}


def test_a_session_of_unknown_end_does_not_hinder_promises_beside_it() -> None:
    asked = request("a", group(count=3, gpus=1))
    assert promises(decide((HOST,), asked, holdings=ends(1, None, 2))) == {"a": 2}


def test_who_can_never_start_holds_up_nobody() -> None:
    asked = (request("never", ALL, ago=9), request("next", group(count=3, gpus=1)))
    decided = decide((HOST,), *asked, holdings=ends(None, 1, 2))
    assert promises(decided) == {"never": None, "next": 2}


def test_overdue_leases_promise_no_time_but_keep_the_place() -> None:
    asked = (request("a", ALL, ago=9), request("b", group(gpus=1), length=9 * HOUR))
    decided = decide((HOST,), *asked, holdings=ends(-1))
    assert (decided.grants, promises(decided)) == ((), {"a": None, "b": None})


def test_an_expected_end_is_no_promise() -> None:
    holding = held("x", HOST, NOW + 5 * HOUR, gpus=(0,), expected_end=NOW + HOUR)
    assert promises(decide((HOST,), request("a", ALL), holdings=(holding,))) == {"a": 5}


def test_leases_on_draining_hosts_promise_nothing() -> None:
    away = host("away", 64, 4, state=HostState.DRAINING)
    holding = held("x", away, NOW + HOUR, gpus=(0,))
    decided = decide((HOST, away), request("a", ALL), holdings=(holding, *ends(2)))
    assert promises(decided) == {"a": 2}


def test_of_several_datacenters_the_soonest_counts_and_the_others_stay_open() -> None:
    east, west = (host(name, 64, 4, datacenter=name) for name in ("east", "west"))
    holdings = (
        held("e", east, NOW + 3 * HOUR, gpus=(0,)),
        held("w", west, NOW + 2 * HOUR, gpus=(0,)),
    )
    asked = (request("a", ALL, ago=9), request("b", group(count=3, gpus=1), length=9 * HOUR))
    decided = decide((east, west), *asked, holdings=holdings)
    assert promises(decided) == {"a": 2}
    assert places(decided) == {"b": ["east"] * 3}


def test_a_wished_datacenter_alone_counts() -> None:
    east, west = (host(name, 64, 4, datacenter=name) for name in ("east", "west"))
    holdings = (
        held("e", east, NOW + 3 * HOUR, gpus=(0,)),
        held("w", west, NOW + 2 * HOUR, gpus=(0,)),
    )
    asked = request("a", ALL, datacenter="east")
    assert promises(decide((east, west), asked, holdings=holdings)) == {"a": 3}


@pytest.mark.parametrize(
    ("wish", "hours"),
    [
        (group(count=2, gpus=1, topology=Topology.PACK_HOST), 4),
        (group(count=2, gpus=1, topology=Topology.PACK_RACK), 2),
        (group(count=2, gpus=1, topology=Topology.SPREAD_HOST), 1),
        (group(count=2, gpus=1), 1),
        (group(gpus=0.5), 1),
    ],
)
def test_a_promise_keeps_the_musts_of_topology(wish: SlotGroup, hours: float) -> None:
    """Two hosts of one GPU in one rack, and one of two GPUs in another."""
    hosts = (host("a", 8, 1), host("b", 8, 1), host("c", 8, 2, rack="r2"))
    holdings = (
        held("xa", hosts[0], NOW + HOUR, gpus=(0,)),
        held("xb", hosts[1], NOW + 2 * HOUR, gpus=(0,)),
        held("xc", hosts[2], NOW + 4 * HOUR, gpus=(0,)),
        held("xd", hosts[2], NOW + HOUR, gpus=(1,)),
    )
    assert promises(decide(hosts, request("a", wish), holdings=holdings)) == {"a": hours}


# Nobody's early end makes a promise worse


def test_a_promise_to_work_without_gpus_survives_the_early_end_of_a_gpu_lease() -> None:
    """A GPU that comes back keeps CPUs for itself; the promise must not count on those."""
    here = host("h", 8, 2)
    early = held("early", here, NOW + 10 * HOUR, cpus=0.5, gpus=(0,))
    stays = (
        held("z", here, NOW + 20 * HOUR, cpus=0.5, gpus=(1,)),
        held("w", here, NOW + 10 * HOUR, cpus=2),
    )
    told = held("y", here, NOW + HOUR, cpus=4)
    asked = request("a", group(cpus=4), length=HOUR)
    before = promises(decide((here,), asked, holdings=(early, *stays, told)))["a"]
    after = promises(decide((here,), asked, holdings=(*stays, told)))["a"]
    assert before is not None
    assert after is not None
    assert after <= before


EAST, WEST = host("e", datacenter="east"), host("w", datacenter="west")
REPLICATED = Cluster(
    datacenters=(Datacenter("east", ("s3://d/",)), Datacenter("west", ("s3://d/",)))
)


def test_an_expectation_that_has_passed_is_no_estimate() -> None:
    holdings = (
        held("e", EAST, NOW + HOUR),
        held("w", WEST, NOW + 100 * HOUR, expected_end=NOW - HOUR),
    )
    asked = request("a", group(cpus=8), inputs=(DataUse("s3://d/x", GIB),))
    decided = decide((EAST, WEST), asked, holdings=holdings, cluster=REPLICATED)
    assert promises(decided) == {"a": 1}


def test_an_early_end_in_another_datacenter_never_makes_a_promise_later() -> None:
    """West would be expected sooner then, but is certain much later than east."""
    asked = request("a", group(cpus=8), inputs=(DataUse("s3://d/x", GIB),))
    early = held("w", WEST, NOW + 10 * HOUR, expected_end=NOW + 3 * HOUR)
    stays = (
        held("e", EAST, NOW + 2 * HOUR),
        held("w2", WEST, NOW + 12 * HOUR, expected_end=NOW + 1.5 * HOUR),
    )
    before = decide((EAST, WEST), asked, holdings=(*stays, early), cluster=REPLICATED)
    assert promises(before) == {"a": 2}
    again = replace(asked, promised=before.waits[0].starts_by)
    after = decide((EAST, WEST), again, holdings=stays, cluster=REPLICATED)
    assert promises(after) == {"a": 2}


# Back-fill


def backfill(wish: SlotGroup, length: timedelta, *holdings: Holding) -> Plan:
    """Return what becomes of a request behind one that waits for all four GPUs."""
    asked = (request("first", ALL, ago=9), request("b", wish, length=length))
    return decide((HOST,), *asked, holdings=holdings)


@pytest.mark.parametrize(("minutes", "starts"), [(59, True), (60, True), (61, False)])
def test_back_fill_ends_before_the_promise(minutes: int, starts: bool) -> None:
    decided = backfill(group(gpus=1), minutes * MINUTE, *ends(1))
    assert (list(places(decided)), promises(decided)["first"]) == (["b"] if starts else [], 1)


def test_back_fill_may_run_on_beside_the_reservation() -> None:
    decided = backfill(group(cpus=4), 100 * HOUR, *ends(1))
    assert (list(places(decided)), promises(decided)) == (["b"], {"first": 1})


def test_who_is_held_back_is_told_so() -> None:
    decided = backfill(group(gpus=1), 2 * HOUR, *ends(1))
    assert decided.waits[1] == Wait(
        "b",
        2,
        "behind 1 earlier request, which starting now would delay",
        None,
        ReasonCode.RESERVATION,
    )


def test_several_that_would_delay_only_together_start_one_by_one() -> None:
    """At the promised time one GPU is left over: one long request may have it, no second."""
    first = request("first", group(count=3, gpus=1), ago=9)
    asked = [request(f"b{n}", group(gpus=1), length=9 * HOUR) for n in range(2)]
    decided = decide((HOST,), first, *asked, holdings=ends(1, 1))
    assert (list(places(decided)), promises(decided)) == (["b0"], {"first": 1, "b1": None})


def test_back_fill_goes_around_the_promised_seats() -> None:
    other = host("other", 64, 4)
    asked = (
        request("first", group(count=4, gpus=1, topology=Topology.PACK_HOST), ago=9),
        request("b", group(gpus=1), length=9 * HOUR),
    )
    holdings = (
        *ends(1),
        held("y", other, None, gpus=(0,), kind=LeaseKind.SESSION),
    )
    decided = decide((HOST, other), *asked, holdings=holdings)
    assert (places(decided), promises(decided)) == ({"b": ["other"]}, {"first": 1})


# What is being given back


def ending(*gpus: int) -> Holding:
    return replace(held("end", HOST, NOW + 9 * HOUR, gpus=gpus), is_ending=True)


def test_what_is_being_given_back_is_kept_for_the_first_that_fits_then() -> None:
    asked = (request("first", ALL, ago=9), request("b", group(gpus=1), length=MINUTE))
    decided = decide((HOST,), *asked, holdings=(ending(0, 1),))
    assert decided.grants == ()
    assert [(wait.lease_id, wait.code, wait.starts_by) for wait in decided.waits] == [
        ("first", ReasonCode.ENDING, None),
        ("b", ReasonCode.RESOURCES, decided.waits[1].starts_by),
    ]
    assert decided.waits[0].reason == "starts when what is being given back now is free"


def test_a_promise_stands_while_its_seats_are_being_given_back() -> None:
    asked = replace(request("a", ALL), promised=NOW + HOUR)
    assert promises(decide((HOST,), asked, holdings=(ending(0, 1),))) == {"a": 1}


def test_a_renewal_is_seen_in_the_promise() -> None:
    asked = replace(request("a", ALL), promised=NOW + HOUR)
    assert promises(decide((HOST,), asked, holdings=ends(5))) == {"a": 5}


def test_what_is_being_given_back_may_serve_several() -> None:
    asked = [request(f"b{n}", group(gpus=1), ago=9 - n) for n in range(3)]
    full = held("x", HOST, NOW + HOUR, gpus=(2, 3))
    decided = decide((HOST,), *asked, holdings=(ending(0, 1), full))
    assert [wait.code for wait in decided.waits] == [
        ReasonCode.ENDING,
        ReasonCode.ENDING,
        ReasonCode.RESOURCES,
    ]


def test_what_fits_beside_what_is_kept_starts() -> None:
    asked = (request("first", group(count=3, gpus=1), ago=9), request("b", group(gpus=1)))
    decided = decide((HOST,), *asked, holdings=(ending(0, 1),))
    assert (list(places(decided)), [wait.code for wait in decided.waits]) == (
        ["b"],
        [ReasonCode.ENDING],
    )


def test_nobody_is_promised_the_end_of_what_has_not_started() -> None:
    """How long others take to stop is not known: what starts after them has no end yet."""
    spare = held("x", HOST, NOW + 9 * HOUR, gpus=(0, 1, 2, 3), is_preemptible=True)
    asked = (request("urgent", ALL, queue="urgent"), request("b", ALL, ago=9))
    for holding in (spare, replace(spare, is_ending=True)):
        decided = decide((HOST,), *asked, holdings=(holding,), cluster=URGENT)
        assert promises(decided) == {"urgent": None, "b": None}
