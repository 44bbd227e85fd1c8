"""Policies of other packages: found by entry point, used by the plan, never believed blindly."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from nimbus_hub.control.scheduling import ShippedPolicy
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.cluster import Cluster, Rules
from nimbus_hub.scheduler.free import Ints
from nimbus_hub.scheduler.placement import Floats, Tightest
from nimbus_hub.scheduler.plan import plan
from nimbus_hub.scheduler.policies import check_policies, ordering, placement
from nimbus_hub.scheduler.shape import Shape
from nimbus_hub.scheduler.snapshot import Snapshot, Waiting
from tests.unit.scheduler_samples import NOW, decide, devices, group, held, host, places, request

DOCS = Path(__file__).parents[2] / "docs" / "scheduling.md"
EXAMPLE = DOCS.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
"""The placement that the documentation shows."""

PLUGIN = f"""{EXAMPLE}

def newest_first(snapshot, now):
    return sorted(snapshot.waiting, key=lambda each: each.since, reverse=True)


def broken(snapshot, now):
    raise KeyError("a bug of somebody else's")
"""

ENTRY_POINTS = """
[nimbus_hub.placement]
emptiest = sample_policies:Emptiest
lost = sample_policies:NotThere
missing = no_such_module:Policy

[nimbus_hub.ordering]
newest = sample_policies:newest_first
broken = sample_policies:broken
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with two policies, as pip would."""
    (tmp_path / "sample_policies.py").write_text(PLUGIN)
    info = tmp_path / "sample_policies-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sample-policies\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)


def ruled(**rules: str) -> Cluster:
    return Cluster(rules=Rules(**rules))  # type: ignore[arg-type]


# By name


@pytest.mark.usefixtures("installed")
def test_a_placement_of_another_package_decides_where_slots_lie() -> None:
    hosts = (host("a", 64, 4), host("b", 64, 8))
    asked = request("x", group(gpus=1))
    assert places(decide(hosts, asked)) == {"x": ["a"]}
    assert places(decide(hosts, asked, cluster=ruled(placement="emptiest"))) == {"x": ["b"]}


@pytest.mark.usefixtures("installed")
def test_an_ordering_of_another_package_decides_who_is_first() -> None:
    asked = (request("old", group(gpus=1), ago=9), request("new", group(gpus=1)))
    one = (host("a", 8, 1),)
    assert list(places(decide(one, *asked))) == ["old"]
    assert list(places(decide(one, *asked, cluster=ruled(ordering="newest")))) == ["new"]


@pytest.mark.usefixtures("installed")
def test_no_ordering_can_starve_who_has_waited_for_the_aging_time() -> None:
    asked = (request("old", group(gpus=1), ago=24 * 60), request("new", group(gpus=1)))
    decided = decide((host("a", 8, 1),), *asked, cluster=ruled(ordering="newest"))
    assert list(places(decided)) == ["old"]


@pytest.mark.parametrize("name", ["tightest", "fragmentation"])
def test_the_policies_of_this_package_are_found_by_name(name: str) -> None:
    cluster = ruled(placement=name, ordering="arrival")
    decided = decide((host("a", 8, 1),), request("x", group(gpus=1)), cluster=cluster)
    assert places(decided) == {"x": ["a"]}


def test_an_unknown_placement_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InvalidRequest) as caught:
        placement("fastest")
    assert caught.value.message == (
        "there is no placement policy 'fastest'; installed are fragmentation, tightest"
    )


def test_an_unknown_ordering_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InvalidRequest) as caught:
        ordering("lottery")
    assert caught.value.message == (
        "there is no ordering policy 'lottery'; installed are arrival, balanced, fair"
    )


def test_both_names_can_be_checked_before_they_are_used() -> None:
    check_policies("tightest", "arrival")
    with pytest.raises(InvalidRequest, match="there is no ordering policy 'lottery'"):
        check_policies("tightest", "lottery")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["lost", "missing"])
def test_a_policy_that_cannot_be_loaded_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}' cannot be loaded"):
        check_policies(name, "fair")


# What a policy may not do

HOST = host("a", 64, 4)


def test_an_ordering_that_repeats_somebody_gives_him_nothing_twice() -> None:
    asked = request("x", group(gpus=1))

    def twice(snapshot: Snapshot, now: datetime) -> Sequence[Waiting]:
        return [*snapshot.waiting, *snapshot.waiting]

    decided = plan(Snapshot((HOST,), (), (asked,)), NOW, ordering=twice)
    assert [grant.lease_id for grant in decided.grants] == ["x"]


def test_who_is_forgotten_by_an_ordering_is_decided_last() -> None:
    asked = (request("x", group(gpus=1), ago=9), request("y", group(gpus=1)))

    def forgetful(snapshot: Snapshot, now: datetime) -> Sequence[Waiting]:
        return [each for each in snapshot.waiting if each.lease_id == "y"]

    decided = plan(Snapshot((HOST,), (), asked), NOW, ordering=forgetful)
    assert [grant.lease_id for grant in decided.grants] == ["y", "x"]


def test_an_ordering_cannot_add_requests() -> None:
    asked = request("x", group(gpus=1))

    def inventive(snapshot: Snapshot, now: datetime) -> Sequence[Waiting]:
        return [request("ghost", group(gpus=4)), *snapshot.waiting]

    decided = plan(Snapshot((HOST,), (), (asked,)), NOW, ordering=inventive)
    assert [grant.lease_id for grant in decided.grants] == ["x"]
    assert decided.waits == ()


class Greedy(Tightest):
    """Names devices that it was not offered."""

    def devices(self, shape: Shape, host: int, fitting: list[int]) -> tuple[int, ...]:
        return (0,) * shape.gpus


class Lazy(Tightest):
    """Names fewer devices than asked for."""

    def devices(self, shape: Shape, host: int, fitting: list[int]) -> tuple[int, ...]:
        return ()


class Nowhere(Tightest):
    """Has no opinion that could be compared."""

    def costs(self, shape: Shape, hosts: Ints) -> Floats:
        return np.full(len(hosts), np.nan)


@pytest.mark.parametrize("policy", [Greedy, Lazy])
@pytest.mark.parametrize(("count", "gpus"), [(1, 1), (1, 2), (3, 1)])
def test_a_placement_cannot_give_other_devices_than_were_free_and_asked_for(
    policy: type[Tightest], count: int, gpus: int
) -> None:
    asked = request("x", group(count=count, gpus=gpus))
    snapshot = Snapshot((HOST,), (held("y", HOST, gpus=(0,)),), (asked,))
    found = [device for _, own in devices(plan(snapshot, NOW, policy))["x"] for device in own]
    assert len(found) == len(set(found)) == count * gpus
    assert 0 not in found


def test_a_placement_without_an_opinion_still_places_what_fits() -> None:
    hosts = (HOST, host("b", 64, 4))
    holdings = (held("y", HOST, gpus=(0, 1, 2, 3)),)
    snapshot = Snapshot(hosts, holdings, (request("x", group(gpus=1)),))
    assert places(plan(snapshot, NOW, Nowhere)) == {"x": ["b"]}


def test_an_error_in_a_policy_is_not_swallowed_by_the_plan() -> None:
    """Whoever calls it has to tell; a plan that granted nothing would look like a full cluster."""

    def broken(snapshot: Snapshot, now: datetime) -> Sequence[Waiting]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        plan(Snapshot((HOST,), (), (request("x", group()),)), NOW, ordering=broken)


@pytest.mark.usefixtures("installed")
def test_where_a_plug_in_fails_the_shipped_policies_decide_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster(rules=Rules(ordering="broken"))
    snapshot = Snapshot((host("h"),), (), (request("a", group()),), cluster)
    assert places(ShippedPolicy().plan(snapshot, NOW)) == {"a": ["h"]}
    assert "order broken failed" in caplog.text
