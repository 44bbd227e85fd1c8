"""Who is stopped for whom: only where the queue may, the cheapest first, whole leases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nimbus_hub.model.cluster import Cluster, Queue, Quota
from nimbus_hub.model.host import HostState
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import Slot
from nimbus_hub.scheduler.decisions import Plan, ReasonCode
from nimbus_hub.scheduler.explain import preview
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting
from tests.unit.scheduler_samples import (
    GIB,
    HOUR,
    NOW,
    URGENT,
    decide,
    group,
    held,
    host,
    places,
    request,
    stopped,
)

HOST = host("h", 32, 4)
WANTS_ALL = request("a", group(count=4, gpus=1), queue="urgent")


def spare(
    name: str, *gpus: int, hours: int = 1, priority: int = 0, is_preemptible: bool = True
) -> Holding:
    """Return a preemptible lease that has run for some hours."""
    return held(
        name,
        HOST,
        NOW + 9 * HOUR,
        gpus=gpus,
        since=NOW - hours * HOUR,
        priority=priority,
        is_preemptible=is_preemptible,
    )


def after(*holdings: Holding, asked: Waiting = WANTS_ALL, cluster: Cluster = URGENT) -> Plan:
    return decide((HOST,), asked, holdings=holdings, cluster=cluster)


# Whether


def test_a_queue_that_may_preempt_has_preemptible_leases_stopped() -> None:
    decided = after(spare("x", 0))
    assert [(each.lease_id, each.for_lease_id, each.reason) for each in decided.preemptions] == [
        ("x", "a", "a request of higher priority needs what it holds")
    ]
    assert [wait.code for wait in decided.waits] == [ReasonCode.PREEMPTING]


def test_a_queue_that_may_not_preempt_waits() -> None:
    plain = Cluster(queues=(Queue(), Queue("urgent", priority=10)))
    decided = after(spare("x", 0), cluster=plain)
    assert (stopped(decided), decided.waits[0].code) == ([], ReasonCode.RESOURCES)


def test_a_queue_that_was_removed_gives_no_right_to_preempt() -> None:
    asked = replace(WANTS_ALL, wishes=replace(WANTS_ALL.wishes, queue="gone", priority=99))
    assert stopped(after(spare("x", 0), asked=asked)) == []


def test_what_is_not_preemptible_runs_on() -> None:
    assert stopped(after(spare("x", 0, is_preemptible=False))) == []


@pytest.mark.parametrize(("priority", "is_stopped"), [(9, True), (10, False), (11, False)])
def test_only_lower_priority_is_stopped(priority: int, is_stopped: bool) -> None:
    assert bool(stopped(after(spare("x", 0, priority=priority)))) is is_stopped


def test_a_preemptible_session_is_stopped_like_a_job() -> None:
    session = replace(spare("s", 0), kind=LeaseKind.SESSION)
    assert stopped(after(session)) == [("s", "a")]


def test_nobody_is_stopped_for_what_fits_anyway() -> None:
    asked = request("a", group(gpus=2), queue="urgent")
    decided = after(spare("x", 0, 1), asked=asked)
    assert (places(decided), stopped(decided)) == ({"a": ["h"]}, [])


def test_nobody_is_stopped_if_even_all_would_not_be_enough() -> None:
    asked = request("a", group(count=4, gpus=1), queue="urgent")
    decided = after(spare("x", 0), held("y", HOST, gpus=(1,)), asked=asked)
    assert (stopped(decided), [wait.code for wait in decided.waits]) == ([], [ReasonCode.RESOURCES])


def test_nobody_is_stopped_for_a_request_at_its_quota() -> None:
    cluster = replace(URGENT, quota=Quota(gpus_milli=3000))
    decided = after(spare("x", 0), cluster=cluster)
    assert (stopped(decided), [wait.code for wait in decided.waits]) == ([], [ReasonCode.QUOTA])


def test_nobody_is_stopped_on_a_host_that_takes_nothing() -> None:
    draining = replace(HOST, state=HostState.DRAINING)
    decided = decide((draining,), WANTS_ALL, holdings=(spare("x", 0),), cluster=URGENT)
    assert stopped(decided) == []


# Whom


def test_the_lowest_priority_is_stopped_first() -> None:
    asked = request("a", group(gpus=1), queue="urgent")
    holdings = (spare("x", 0, 1, priority=1), spare("y", 2, 3, hours=99))
    assert stopped(after(*holdings, asked=asked)) == [("y", "a")]


def test_at_one_priority_the_least_lost_gpu_time_is_stopped_first() -> None:
    asked = request("a", group(gpus=1), queue="urgent")
    holdings = (spare("long", 0, hours=5), spare("wide", 1, 2, hours=2), spare("short", 3, hours=3))
    assert stopped(after(*holdings, asked=asked)) == [("short", "a")]


def test_no_more_leases_are_stopped_than_needed() -> None:
    asked = request("a", group(count=2, gpus=1), queue="urgent")
    holdings = tuple(spare(f"x{at}", at, hours=at + 1) for at in range(4))
    assert stopped(after(*holdings, asked=asked)) == [("x0", "a"), ("x1", "a")]


def test_a_cheap_lease_that_does_not_help_is_spared() -> None:
    asked = request("a", group(gpus=3), queue="urgent")
    holdings = (spare("cheap", 0, hours=1), spare("dear", 1, 2, 3, hours=9))
    assert stopped(after(*holdings, asked=asked)) == [("dear", "a")]


def test_a_gang_is_stopped_whole() -> None:
    slots = tuple(Slot("worker", at, "h", HOST.address, 1000, GIB, (at,)) for at in range(4))
    gang = Holding("gang", "bob", slots, None, since=NOW, is_preemptible=True)
    asked = request("a", group(gpus=1), queue="urgent")
    decided = after(gang, asked=asked)
    assert stopped(decided) == [("gang", "a")]


def test_one_lease_is_not_stopped_for_two() -> None:
    asked = tuple(request(f"a{n}", group(gpus=2), queue="urgent", ago=9 - n) for n in range(2))
    holdings = (spare("x", 0, 1), spare("y", 2, 3, hours=2))
    decided = decide((HOST,), *asked, holdings=holdings, cluster=URGENT)
    assert stopped(decided) == [("x", "a0"), ("y", "a1")]


def test_what_is_being_stopped_already_is_not_stopped_again() -> None:
    decided = after(replace(spare("x", 0), is_ending=True))
    assert stopped(decided) == []
    assert [wait.code for wait in decided.waits] == [ReasonCode.ENDING]


# Those who wait beside


def test_seats_that_others_leave_are_kept_from_everybody_else() -> None:
    others = [request(f"b{n}", group(gpus=1), owner="bob") for n in range(3)]
    decided = decide((HOST,), WANTS_ALL, *others, holdings=(spare("x", 0),), cluster=URGENT)
    assert decided.grants == ()
    assert stopped(decided) == [("x", "a")]


def test_preemption_never_delays_what_was_promised_before() -> None:
    """The first has the same priority but may not preempt; the second would take its seats."""
    cluster = Cluster(
        queues=(Queue(priority=10), Queue("urgent", priority=10, may_preempt=True)),
    )
    holdings = (
        replace(spare("x", 0), ends_at=NOW + HOUR),
        held("y", HOST, NOW + HOUR, gpus=(1, 2, 3)),
    )
    first = request("first", group(count=4, gpus=1), ago=9)
    second = request("second", group(gpus=1), queue="urgent", length=5 * HOUR)
    decided = decide((HOST,), first, second, holdings=holdings, cluster=cluster)
    assert stopped(decided) == []
    assert [(wait.lease_id, wait.starts_by) for wait in decided.waits] == [
        ("first", NOW + HOUR),
        ("second", None),
    ]


def test_a_preempted_lease_does_not_take_its_seats_back_from_whom_it_was_stopped_for() -> None:
    """Its job has its old place, before the urgent one, but waits only since it was stopped."""
    again = request("again", group(count=4, gpus=1), ago=48 * 60, is_preemptible=True)
    again = replace(again, waits_since=NOW)
    asked = replace(WANTS_ALL, since=NOW - HOUR)
    decided = decide((HOST,), again, asked, cluster=URGENT)
    assert places(decided) == {"a": ["h"] * 4}


def test_a_guest_does_not_take_back_what_it_left_for_gpu_work() -> None:
    again = replace(request("again", group(cpus=20), ago=48 * 60), waits_since=NOW)
    asked = request("a", group(cpus=20, gpus=1), ago=1)
    assert places(decide((HOST,), again, asked)) == {"a": ["h"]}


@pytest.mark.parametrize("change", [{"waits_since": NOW - 25 * HOUR}, {"promised": NOW}])
def test_who_is_of_age_or_was_promised_his_start_yields_to_nobody(change: dict[str, Any]) -> None:
    again = replace(request("again", group(cpus=20), ago=48 * 60, owner="bob"), **change)
    if "promised" in change:
        again = replace(again, waits_since=NOW - HOUR)
    asked = request("a", group(cpus=20, gpus=1), ago=1)
    assert places(decide((HOST,), again, asked)) == {"again": ["h"]}


def test_who_was_of_age_when_he_started_is_not_stopped_any_more() -> None:
    guest = held("x", HOST, cpus=20)
    asked = request("a", group(cpus=20, gpus=1))
    assert stopped(decide((HOST,), asked, holdings=(guest,))) == [("x", "a")]
    assert stopped(decide((HOST,), asked, holdings=(replace(guest, is_of_age=True),))) == []


def test_whom_an_urgent_guest_had_stopped_does_not_have_the_guest_stopped_in_turn() -> None:
    asked = request("a", group(cpus=20), queue="urgent")
    again = request("x", group(cpus=20, gpus=1), ago=60, is_preemptible=True)
    first = decide((HOST,), asked, again, cluster=URGENT)
    assert places(first) == {"a": ["h"]}
    guest = held("a", HOST, cpus=20, priority=10, since=NOW)
    then = decide((HOST,), again, holdings=(guest,), cluster=URGENT)
    assert (stopped(first), stopped(then)) == ([], [])


def test_a_dry_run_names_who_would_be_stopped_and_stops_nobody() -> None:
    snapshot = Snapshot((HOST,), (spare("x", 0),), (), URGENT)
    found = preview(snapshot, WANTS_ALL, NOW)
    assert [(each.lease_id, each.for_lease_id) for each in found.preemptions] == [("x", "a")]


def test_the_cheapest_of_guests_and_preemptible_leases_is_stopped() -> None:
    one, other = host("a", 8, 1), host("b", 8, 1)
    holdings = (
        held("guest", one, cpus=8, priority=9, since=NOW - HOUR),
        held("spare", other, cpus=8, gpus=(0,), priority=-5, is_preemptible=True, since=NOW),
    )
    asked = request("w", group(gpus=1, cpus=2), queue="urgent")
    decided = decide((one, other), asked, holdings=holdings, cluster=URGENT)
    assert stopped(decided) == [("spare", "w")]


# Those who yield keep their place before all others

AWAY = host("away", 8, models=("B",) * 4, state=HostState.DOWN)
ELSEWHERE = group(gpus=1, models=("B",))


@pytest.mark.parametrize(
    "first",
    [
        request("u", group(gpus=1), queue="urgent", owner="blocked"),
        request("u", ELSEWHERE, queue="urgent", owner="u"),
    ],
    ids=["at its quota", "hosts away"],
)
def test_who_yields_comes_right_behind_whom_he_yields_to(first: Waiting) -> None:
    cluster = replace(URGENT, quotas={"blocked": Quota(gpus_milli=0)})
    asked = (
        first,
        request("old", group(gpus=4), ago=48 * 60, is_preemptible=True, owner="old"),
        request("new", group(gpus=4), ago=1, owner="new"),
    )
    assert places(decide((HOST, AWAY), *asked, cluster=cluster)) == {"old": ["h"]}


def test_a_guest_that_yields_comes_right_behind_the_gpu_work() -> None:
    asked = (
        request("old", group(cpus=20), ago=48 * 60, owner="old"),
        request("gpu", ELSEWHERE, ago=5, owner="gpu"),
        request("new", group(cpus=20), ago=1, owner="new"),
    )
    assert places(decide((HOST, AWAY), *asked)) == {"old": ["h"]}
