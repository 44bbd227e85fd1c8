"""Shares of devices, and what the placement leaves free."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.host import Host
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.scheduler.plan import plan
from nimbus_hub.scheduler.prices import prices
from nimbus_hub.scheduler.shape import Shape
from nimbus_hub.scheduler.snapshot import Holding, Snapshot
from tests.unit.scheduler_samples import GIB, NOW, decide, devices, group, held, host, request

HOST = host("h", 64, 4)
HALF = group(gpus=0.5)


def share(name: str, device: int, milli: int, at: Host = HOST) -> Holding:
    return held(name, at, gpus=(device,), milli=milli)


def seat(
    *groups: SlotGroup, holdings: tuple[Holding, ...] = (), hosts: tuple[Host, ...] = (HOST,)
) -> list[tuple[str, tuple[int, ...]]]:
    return devices(decide(hosts, request("a", *groups), holdings=holdings)).get("a", [])


# Shares


def test_a_share_fills_a_device_that_is_in_part_use() -> None:
    assert seat(HALF, holdings=(share("x", 2, 500),)) == [("h", (2,))]


def test_a_share_goes_to_the_fullest_device_that_takes_it() -> None:
    holdings = (share("x", 0, 700), share("y", 1, 400), share("z", 2, 500))
    assert seat(HALF, holdings=holdings) == [("h", (2,))]
    assert seat(group(gpus=0.3), holdings=holdings) == [("h", (0,))]


def test_a_share_goes_to_the_host_with_a_device_in_part_use() -> None:
    other = host("other", 64, 4)
    holdings = (share("x", 3, 500, other),)
    assert seat(HALF, holdings=holdings, hosts=(HOST, other)) == [("other", (3,))]


def test_shares_of_one_gang_share_devices() -> None:
    found = seat(group(count=4, gpus=0.5))
    assert found == [("h", (0,)), ("h", (0,)), ("h", (1,)), ("h", (1,))]


@pytest.mark.parametrize(("count", "does_fit"), [(12, True), (13, False)])
def test_thirds_fit_three_to_a_device_and_never_more(count: int, does_fit: bool) -> None:
    found = seat(SlotGroup("worker", count, 1000, GIB, 1, 333))
    assert len(found) == (count if does_fit else 0)
    assert all(found.count(each) == 3 for each in found)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 4)), min_size=1, max_size=12))
def test_no_device_is_ever_shared_out_more_than_whole(asked: list[tuple[int, int]]) -> None:
    requests = [
        request(f"l{at:02}", SlotGroup("worker", count, 100, GIB, 1, milli), ago=60 - at)
        for at, (milli, count) in enumerate(asked)
    ]
    used = dict.fromkeys(range(4), 0)
    for grant in decide((HOST,), *requests).grants:
        for slot in grant.slots:
            used[slot.gpus[0]] += slot.gpu_milli
    assert max(used.values()) <= 1000


def test_a_whole_gpu_is_never_given_where_a_share_is_held() -> None:
    holdings = tuple(share(f"x{at}", at, 1) for at in range(3))
    assert seat(group(gpus=1), holdings=holdings) == [("h", (3,))]
    assert seat(group(gpus=2), holdings=holdings) == []


def test_a_share_of_all_of_a_device_is_a_whole_device() -> None:
    assert SlotGroup("worker", gpus=1, gpu_milli=1000) == SlotGroup("worker", gpus=1)
    assert seat(SlotGroup("worker", 1, 1000, GIB, 1, 999), holdings=(share("x", 0, 1),)) == [
        ("h", (0,))
    ]


def test_more_held_of_a_device_than_there_is_leaves_nothing_of_it() -> None:
    holdings = (share("x", 0, 700), share("y", 0, 700))
    assert seat(group(gpus=0.1), holdings=holdings) == [("h", (1,))]


def test_shares_keep_to_the_models_that_are_allowed() -> None:
    mixed = host("m", 64, models=("T4", "A100", "V100"))
    wish = group(gpus=0.5, models=("V100", "A100"))
    holdings = (share("x", 0, 500, mixed),)
    assert seat(wish, holdings=holdings, hosts=(mixed,)) == [("m", (1,))]


# Ties, and what stays whole


def test_ties_go_to_the_first_rack_and_then_the_first_name() -> None:
    hosts = (host("c", 64, 4, rack="r1"), host("a", 64, 4, rack="r2"), host("b", 64, 4, rack="r1"))
    assert seat(group(gpus=1), hosts=hosts) == [("b", (0,))]
    assert seat(group(gpus=1), hosts=hosts[::-1]) == [("b", (0,))]


def test_small_work_leaves_hosts_free_for_large_work() -> None:
    hosts = tuple(host(f"h{at}", 64, 4) for at in range(3))
    asked = [request(f"l{at}", group(gpus=1), ago=9 - at) for at in range(4)]
    found = devices(decide(hosts, *asked, request("big", group(count=2, gpus=4))))
    assert {name: at for at, _ in found["big"] for name in [at]} == {"h1": "h1", "h2": "h2"}
    assert [found[f"l{at}"][0][0] for at in range(4)] == ["h0"] * 4


def test_a_model_that_others_insist_on_is_given_last() -> None:
    hosts = (host("a", 64, models=("A100",) * 4), host("b", 64, models=("T4",) * 4))
    mix = {Shape(1000, GIB, 1, 1000, ("A100",)): 9.0, Shape(1000, GIB, 1): 1.0}
    snapshot = Snapshot(hosts, (), (request("x", group(gpus=1)),), Cluster(), {}, mix)
    assert devices(plan(snapshot, NOW)) == {"x": [("b", (0,))]}


# Prices


def worth(mix: dict[int, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the worth of gaps for a mix of shares."""
    shapes = {Shape(1000, GIB, 1, share): count for share, count in mix.items()}
    return np.asarray(prices(shapes).gaps, np.float64)


def steps(mix: dict[int, float], *gaps: int) -> list[float]:
    found = worth(mix)
    return [round(float(found[gap]), 6) for gap in gaps]


def test_if_all_ask_for_whole_gpus_a_gap_is_worth_nothing() -> None:
    assert steps({1000: 5.0}, 0, 500, 999, 1000) == [0, 0, 0, 1]


def test_if_nobody_asked_a_gap_is_worth_nothing() -> None:
    assert steps({}, 0, 500, 999, 1000) == [0, 0, 0, 1]


def test_if_all_ask_for_halves_a_gap_is_worth_its_halves() -> None:
    assert steps({500: 5.0}, 499, 500, 999, 1000) == [0, 0.5, 0.5, 1]


def test_if_all_ask_for_thirds_what_three_leave_over_is_worth_nothing() -> None:
    assert steps({333: 1.0}, 332, 333, 666, 998, 999, 1000) == pytest.approx(
        [0, 1 / 3, 2 / 3, 2 / 3, 1, 1], abs=1e-6
    )


def test_if_shares_fill_each_other_up_their_gaps_are_worth_a_device_together() -> None:
    at_300, at_700 = steps({300: 1.0, 700: 1.0}, 300, 700)
    assert at_300 + at_700 == pytest.approx(1)
    assert 0 <= at_300 <= 1 / 3


def test_if_small_shares_are_many_large_ones_waste_what_they_leave() -> None:
    """Three of 300 fill a device at best, and each 700 costs two of them beside its own."""
    assert steps({300: 9.0, 700: 1.0}, 299, 300, 600, 700, 900) == pytest.approx(
        [0, 1 / 3, 2 / 3, 2 / 3, 1], abs=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.integers(1, 1000), st.floats(0.01, 1000), max_size=8))
def test_worth_grows_with_the_gap_from_nothing_to_one(mix: dict[int, float]) -> None:
    found = worth(mix)
    assert (found[0], found[1000]) == (0, 1)
    assert (np.diff(found) >= -1e-9).all()


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.integers(1, 1000), st.floats(0.01, 1000), max_size=6),
    st.integers(0, 1000),
    st.data(),
)
def test_two_gaps_are_never_worth_more_than_one_as_large_as_both(
    mix: dict[int, float], whole: int, data: st.DataObject
) -> None:
    part = data.draw(st.integers(0, whole))
    found = worth(mix)
    assert found[part] + found[whole - part] <= found[whole] + 1e-6


@pytest.mark.timeout(10)
def test_prices_of_a_thousand_different_shares_are_found_in_seconds() -> None:
    """Anybody may ask for any share: that must not stop the service."""
    found = worth({share: 1.0 + share % 7 for share in range(1, 1001)})
    assert (found[0], found[1000]) == (0, 1)
    assert (np.diff(found) >= -1e-9).all()
