"""Quotas: what users and groups may hold at once."""

from __future__ import annotations

import pytest

from nimbus_hub.model.cluster import Cluster, Quota, UserGroup
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.scheduler.decisions import ReasonCode, Wait
from tests.unit.scheduler_samples import NOW, decide, group, held, host, places, request

HOST = host("h", 32, 8)
TWO_GPUS = Cluster(quota=Quota(gpus_milli=2000))


def waits(
    cluster: Cluster, wish: SlotGroup, *, gpus: int = 0, cpus: float = 1, owner: str = "ada"
) -> list[tuple[ReasonCode, str]]:
    """Return why ada's request waits while somebody holds so much."""
    holding = held("x", HOST, owner=owner, gpus=tuple(range(gpus)), cpus=cpus)
    decided = decide((HOST,), request("a", wish), holdings=(holding,), cluster=cluster)
    return [(wait.code, wait.reason) for wait in decided.waits]


@pytest.mark.parametrize(
    ("quota", "wish", "reason"),
    [
        (Quota(gpus_milli=2000), group(gpus=2), "ada holds 1 of the 2 GPUs"),
        (Quota(gpus_milli=1500), group(gpus=0.6), "ada holds 1 of the 1.5 GPUs"),
        (Quota(cpus_milli=4000), group(cpus=3.5), "ada holds 1 of the 4 CPUs"),
        (Quota(leases=1), group(), "ada holds 1 of the 1 leases"),
    ],
)
def test_what_would_be_over_a_quota_waits_and_is_told_so(
    quota: Quota, wish: SlotGroup, reason: str
) -> None:
    assert waits(Cluster(quota=quota), wish, gpus=1) == [
        (ReasonCode.QUOTA, f"{reason} allowed at once; it waits until enough is given back")
    ]


@pytest.mark.parametrize("wish", [group(gpus=1), group(gpus=0.5), group(cpus=16)])
def test_what_just_fits_a_quota_starts(wish: SlotGroup) -> None:
    assert waits(TWO_GPUS, wish, gpus=1) == []


def test_a_quota_of_gpus_does_not_bind_work_without() -> None:
    assert waits(TWO_GPUS, group(), gpus=4) == []


def test_what_others_hold_does_not_count() -> None:
    assert waits(TWO_GPUS, group(gpus=2), gpus=4, owner="bob") == []


def test_a_users_own_quota_replaces_that_of_all() -> None:
    cluster = Cluster(quota=Quota(gpus_milli=1000), quotas={"ada": Quota(gpus_milli=4000)})
    assert waits(cluster, group(gpus=3), gpus=1) == []
    assert waits(cluster, group(gpus=4), gpus=1)[0][0] is ReasonCode.QUOTA


def test_a_group_shares_its_quota() -> None:
    lab = UserGroup("lab", frozenset({"ada", "bob"}), quota=Quota(gpus_milli=4000))
    cluster = Cluster(groups=(lab,))
    assert waits(cluster, group(gpus=2), gpus=2, owner="bob") == []
    assert waits(cluster, group(gpus=2), gpus=3, owner="bob") == [
        (
            ReasonCode.QUOTA,
            "group lab holds 3 of the 4 GPUs allowed at once; it waits until enough is given back",
        )
    ]
    assert waits(cluster, group(gpus=2), gpus=3, owner="zoe") == []


def test_grants_of_the_same_pass_count() -> None:
    asked = [request(f"a{n}", group(gpus=1), ago=9 - n) for n in range(3)]
    decided = decide((HOST,), *asked, cluster=TWO_GPUS)
    assert list(places(decided)) == ["a0", "a1"]
    assert [(wait.lease_id, wait.code) for wait in decided.waits] == [("a2", ReasonCode.QUOTA)]


def test_a_blocked_request_holds_up_nobody_and_is_promised_nothing() -> None:
    blocked = request("blocked", group(count=8, gpus=1), ago=9, priority=100)
    late = request("late", group(gpus=2), owner="bob")
    decided = decide((HOST,), blocked, late, cluster=TWO_GPUS)
    assert places(decided) == {"late": ["h"]}
    assert decided.waits == (
        Wait(
            "blocked",
            1,
            "ada may hold at most 2 GPUs at once, and 8 are asked for; "
            "an administrator can change that",
            None,
            ReasonCode.QUOTA,
        ),
    )


def test_the_first_that_is_not_blocked_gets_the_reservation() -> None:
    full = held("x", HOST, gpus=tuple(range(8)), owner="zoe")
    mine = held("y", host("other", 4, 2), gpus=(0, 1), owner="ada")
    blocked = request("blocked", group(gpus=1), ago=9)
    first = request("first", group(gpus=2), owner="bob")
    decided = decide((HOST,), blocked, first, holdings=(full, mine), cluster=TWO_GPUS)
    assert [(wait.lease_id, wait.starts_by) for wait in decided.waits] == [
        ("blocked", None),
        ("first", full.ends_at),
    ]


def test_a_smaller_request_of_the_same_user_may_go_ahead_of_a_blocked_one() -> None:
    asked = (request("big", group(gpus=2), ago=5), request("small", group(gpus=1)))
    holdings = (held("x", HOST, gpus=(0,), owner="ada"),)
    decided = decide((HOST,), *asked, holdings=holdings, cluster=TWO_GPUS)
    assert list(places(decided)) == ["small"]


def test_a_holding_over_a_lowered_quota_stays_and_blocks_more() -> None:
    assert waits(TWO_GPUS, group(gpus=1), gpus=4)[0][1].startswith("ada holds 4 of the 2 GPUs")


def test_a_blocked_request_stops_nobody() -> None:
    guest = held("g", HOST, cpus=20, since=NOW)
    blocked = request("a", group(count=3, gpus=1, cpus=8))
    decided = decide((HOST,), blocked, holdings=(guest,), cluster=TWO_GPUS)
    assert decided.preemptions == ()
