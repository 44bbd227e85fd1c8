"""Where a gang goes by its data and by how long it would wait there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nimbus_hub.errors import Impossible
from nimbus_hub.model.cluster import Cluster, Datacenter, Link
from nimbus_hub.model.host import Host, HostState
from nimbus_hub.model.wishes import DataUse, Wishes
from nimbus_hub.scheduler.decisions import Grant, ReasonCode, Site, Wait
from nimbus_hub.scheduler.explain import preview, refuse
from nimbus_hub.scheduler.site import Transfer, chosen, homes, site_text, transfer
from nimbus_hub.scheduler.snapshot import Holding, Snapshot
from tests.unit.scheduler_samples import GIB, HOUR, MINUTE, NOW, decide, group, held, host, request

EAST, WEST = host("e", datacenter="east"), host("w", datacenter="west")
BOTH = (EAST, WEST)
CLUSTER = Cluster(
    datacenters=(
        Datacenter("east", ("s3://data/", "s3://both/")),
        Datacenter("west", ("s3://data/west/", "s3://both/")),
    ),
    links=(Link(frozenset(("east", "west")), GIB),),
    bytes_per_second=GIB // 8,
)
IN_WEST = DataUse("s3://data/west/train", 100 * GIB)


def weighed(
    *data: DataUse, holdings: tuple[Holding, ...] = (), hosts: tuple[Host, ...] = BOTH
) -> tuple[Site, ...]:
    asked = request("a", group(cpus=8), inputs=data)
    return preview(Snapshot(hosts, holdings, cluster=CLUSTER), asked, NOW).sites


# Where data lives


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://data/train", {"east"}),
        ("s3://data/west/train", {"west"}),
        ("s3://both/train", {"east", "west"}),
        ("gs://data/train", set()),
    ],
)
def test_the_longest_prefix_says_where_data_lives(url: str, expected: set[str]) -> None:
    assert homes(DataUse(url), CLUSTER) == expected


def test_data_in_several_datacenters_comes_over_the_fastest_link() -> None:
    links = (
        Link(frozenset(("north", "east")), GIB),
        Link(frozenset(("north", "west")), 4 * GIB),
    )
    cluster = Cluster(datacenters=CLUSTER.datacenters, links=links)
    moved = transfer(Wishes(inputs=(DataUse("s3://both/x", 8 * GIB),)), "north", cluster)
    assert moved == Transfer(0, 8 * GIB, 2.0, 0)


def test_datacenters_without_a_link_have_the_bandwidth_of_all() -> None:
    moved = transfer(Wishes(inputs=(IN_WEST,)), "north", CLUSTER)
    assert moved == Transfer(0, 100 * GIB, 800.0, 0)


def test_a_link_is_the_same_both_ways() -> None:
    assert CLUSTER.bandwidth("east", "west") == CLUSTER.bandwidth("west", "east") == GIB


def test_outputs_count_like_inputs_and_unknown_sizes_are_counted_apart() -> None:
    wishes = Wishes(
        inputs=(IN_WEST, DataUse("s3://data/west/labels")),
        outputs=(DataUse("s3://data/out", 10 * GIB), DataUse("gs://elsewhere/x", 7 * GIB)),
    )
    assert transfer(wishes, "east", CLUSTER) == Transfer(10 * GIB, 100 * GIB, 100.0, 1)
    assert transfer(wishes, "west", CLUSTER) == Transfer(100 * GIB, 10 * GIB, 10.0, 0)


def test_data_that_lives_nowhere_known_speaks_for_no_datacenter() -> None:
    assert transfer(Wishes(inputs=(DataUse("gs://x/y", GIB),)), "east", CLUSTER) is None
    assert weighed(DataUse("gs://x/y", GIB)) == ()


# The choice


def test_the_data_decides_where_nothing_waits() -> None:
    assert weighed(IN_WEST) == (
        Site("east", 100 * GIB, 100.0, 0.0),
        Site("west", 0, 0.0, 0.0, is_chosen=True),
    )


def test_replicated_data_leaves_the_choice_to_the_wait() -> None:
    assert weighed(DataUse("s3://both/x", GIB), holdings=(held("x", EAST),)) == (
        Site("east", 0, 0.0, 3600.0),
        Site("west", 0, 0.0, 0.0, is_chosen=True),
    )


@pytest.mark.parametrize(("minutes", "winner"), [(1, "west"), (2, "east")])
def test_a_short_wait_beats_a_long_transfer_and_the_other_way_round(
    minutes: int, winner: str
) -> None:
    sites = weighed(IN_WEST, holdings=(held("x", WEST, NOW + minutes * MINUTE),))
    assert [site.datacenter for site in sites if site.is_chosen] == [winner]


def test_the_wait_is_estimated_by_the_expected_end_and_promised_by_the_latest() -> None:
    holding = held("x", WEST, NOW + HOUR, expected_end=NOW + MINUTE)
    assert weighed(IN_WEST, holdings=(holding,))[1] == Site("west", 0, 0.0, 60.0, is_chosen=True)
    asked = request("a", group(cpus=8), inputs=(IN_WEST,))
    decided = decide(BOTH, asked, holdings=(holding,), cluster=CLUSTER)
    assert [(wait.lease_id, wait.starts_by) for wait in decided.waits] == [("a", NOW + HOUR)]


def test_a_wait_of_which_nobody_knows_the_end_loses_against_any_transfer() -> None:
    assert weighed(IN_WEST, holdings=(held("x", WEST, None),)) == (
        Site("east", 100 * GIB, 100.0, 0.0, is_chosen=True),
        Site("west", 0, 0.0, None),
    )


def test_a_datacenter_that_never_holds_the_gang_loses() -> None:
    small = host("w", cpus=4, datacenter="west")
    assert weighed(IN_WEST, hosts=(EAST, small))[1].wait_seconds is None
    assert [site.is_chosen for site in weighed(IN_WEST, hosts=(EAST, small))] == [True, False]


def test_where_all_is_equal_less_data_of_unknown_size_is_moved() -> None:
    unknown = DataUse("s3://data/west/x")
    assert [site.is_chosen for site in weighed(unknown)] == [False, True]


def test_where_all_is_equal_the_first_name_is_chosen() -> None:
    sites = [(Site(name, 0, 0.0, 0.0), Transfer()) for name in ("west", "east")]
    assert [site.is_chosen for site in chosen(sites)] == [False, True]
    assert chosen([]) == []


def test_a_users_choice_wins_over_data_and_wait() -> None:
    asked = request("a", group(cpus=8), inputs=(IN_WEST,), datacenter="east")
    decided = decide(BOTH, asked, cluster=CLUSTER)
    assert [grant.reason for grant in decided.grants] == [
        "1 worker on 1 host in 1 rack of east; the datacenter was asked for"
    ]


def test_a_users_choice_waits_rather_than_goes_elsewhere() -> None:
    asked = request("a", group(cpus=8), datacenter="east")
    decided = decide(BOTH, asked, holdings=(held("x", EAST),))
    assert decided.grants == ()
    assert decided.waits == (
        Wait("a", 1, "waits for 8 CPUs on one host in east: at most 7 are free", NOW + HOUR),
    )


def test_a_gang_without_data_starts_where_it_fits_first() -> None:
    asked = request("a", group(cpus=8))
    assert decide(BOTH, asked, holdings=(held("x", EAST),)).grants[0].slots[0].host == "w"


def test_of_several_datacenters_the_soonest_is_promised() -> None:
    holdings = (held("x", EAST, NOW + 3 * HOUR), held("y", WEST, NOW + 2 * HOUR))
    decided = decide(BOTH, request("a", group(cpus=8)), holdings=holdings)
    assert decided.waits[0].starts_by == NOW + 2 * HOUR


# Words


def test_the_explanation_prints_the_numbers_of_all_the_chosen_first() -> None:
    holding = held("x", WEST, NOW + 2 * MINUTE)
    asked = request("a", group(cpus=8), inputs=(IN_WEST,))
    answer = preview(Snapshot(BOTH, (holding,), cluster=CLUSTER), asked, NOW).answer
    assert isinstance(answer, Grant)
    assert answer.reason == (
        "1 worker on 1 host in 1 rack of east; east: 100G to move (1m40s), no wait; "
        "west: nothing to move, about 2m to wait"
    )


def test_an_unknown_wait_is_said_to_be_unknown() -> None:
    sites = [Site("west", GIB, 0.2, None), Site("east", 0, 0.0, 90.0, is_chosen=True)]
    assert site_text(sites) == (
        "east: nothing to move, about 1m30s to wait; "
        "west: 1G to move (under 1s), no end of the wait known"
    )


# What cannot be


def test_what_the_chosen_datacenter_cannot_hold_is_refused_at_once_with_what_could() -> None:
    with pytest.raises(Impossible) as caught:
        refuse((group(gpus=1),), BOTH, Wishes(datacenter="west"))
    assert caught.value.message == (
        "1 GPU per worker asked for, but no host in west has GPUs; ask for 0"
    )


def test_a_gang_that_only_all_datacenters_together_hold_is_refused() -> None:
    with pytest.raises(Impossible) as caught:
        refuse((group(count=12),), BOTH)
    assert caught.value.message == (
        "12 workers with 1 CPU and 1G of memory each were asked for, but only 8 fit in one "
        "datacenter; ask for at most 8 workers of this size"
    )


def test_a_request_for_a_datacenter_that_vanished_waits_and_harms_nobody() -> None:
    gone = request("gone", group(), ago=2, datacenter="mars")
    decided = decide(BOTH, gone, request("a", group()))
    assert [grant.lease_id for grant in decided.grants] == ["a"]
    assert [(wait.lease_id, wait.starts_by) for wait in decided.waits] == [("gone", None)]


def test_a_preview_names_no_sites_where_there_is_no_choice() -> None:
    asked = request("a", group(), inputs=(IN_WEST,), length=timedelta(minutes=5))
    found = preview(Snapshot((EAST,), cluster=CLUSTER), asked, NOW)
    assert isinstance(found.answer, Grant)
    assert found.sites == ()


def test_data_of_unknown_size_is_told_apart_from_nothing() -> None:
    asked = request("a", group(), inputs=(DataUse("s3://data/west/x"),))
    reason = decide(BOTH, asked, cluster=CLUSTER).grants[0].reason
    assert "unknown size" in reason


def test_a_datacenter_that_vanished_is_named() -> None:
    decided = decide(BOTH, request("a", group(), datacenter="mars"))
    assert "mars" in decided.waits[0].reason


def test_a_host_that_is_down_in_the_wished_datacenter_is_named() -> None:
    hosts = (
        host("e", 8, 1, datacenter="east"),
        host("w", 8, 1, datacenter="west", state=HostState.DOWN),
        host("c", 8, datacenter="west"),
    )
    decided = decide(hosts, request("a", group(gpus=1), datacenter="west"))
    assert [(wait.code, wait.reason) for wait in decided.waits] == [
        (ReasonCode.HOSTS_AWAY, "waits for host w, which is down")
    ]
