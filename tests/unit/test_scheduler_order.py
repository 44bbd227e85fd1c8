"""Who comes first, and that nobody waits for ever."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

import pytest

from nimbus_hub.model.cluster import Cluster, Queue, Rules, UserGroup
from nimbus_hub.scheduler.order import (
    by_arrival,
    by_balance,
    by_fair_share,
    effective_priority,
    ordered,
)
from nimbus_hub.scheduler.plan import plan
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting
from tests.unit.scheduler_samples import (
    HOUR,
    MINUTE,
    NOW,
    URGENT,
    decide,
    group,
    host,
    places,
    request,
)

DAY = timedelta(days=1)
GPU = group(gpus=1)


def order(
    *waiting: Waiting, usage: dict[str, float] | None = None, cluster: Cluster | None = None
) -> list[str]:
    snapshot = Snapshot((), (), waiting, cluster or Cluster(), usage or {})
    return [each.lease_id for each in ordered(snapshot, NOW, by_fair_share)]


# Priority


def test_the_priorities_of_queue_and_request_add_up() -> None:
    queues = (Queue(), Queue("fast", priority=5), Queue("slow", priority=-5))
    cluster = Cluster(queues=queues)
    waiting = (
        request("a", priority=1),
        request("b", queue="fast", priority=-5),
        request("c", queue="fast", priority=-3),
        request("d", queue="slow", priority=7),
    )
    snapshot = Snapshot((), (), waiting, cluster)
    assert [effective_priority(snapshot, each) for each in waiting] == [1, 0, 2, 2]
    assert order(*waiting, cluster=cluster) == ["c", "d", "a", "b"]


def test_a_request_of_a_queue_that_was_removed_has_its_own_priority_alone() -> None:
    waiting = (request("a", queue="gone", priority=1), request("b"), request("c", priority=2))
    assert order(*waiting) == ["c", "a", "b"]
    decided = decide((host("h", 8, 1),), *waiting[:1], cluster=URGENT)
    assert decided.waits == ()


def test_priority_goes_before_fair_share() -> None:
    usage = {"ada": 1e9}
    assert order(request("a", GPU, priority=1), request("b", GPU, owner="bob"), usage=usage) == [
        "a",
        "b",
    ]


# Fair share


def test_who_has_used_less_comes_first() -> None:
    waiting = (request("a", GPU, ago=9), request("b", GPU, owner="bob"))
    assert order(*waiting, usage={"ada": 10.0, "bob": 9.0}) == ["b", "a"]
    assert order(*waiting, usage={"ada": 9.0, "bob": 10.0}) == ["a", "b"]


def test_at_equal_shares_the_first_to_come_is_first_and_ids_break_ties() -> None:
    waiting = (request("b", GPU), request("a", GPU), request("c", GPU, ago=1, owner="bob"))
    assert order(*waiting) == ["c", "a", "b"]


def test_two_owners_take_turns_within_one_pass() -> None:
    ada = [request(f"a{n}", GPU, ago=60 - n) for n in range(4)]
    bob = [request(f"b{n}", GPU, ago=30 - n, owner="bob") for n in range(4)]
    assert order(*ada, *bob) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]
    granted = list(places(decide((host("h", 16, 4),), *ada, *bob)))
    assert granted == ["a0", "b0", "a1", "b1"]


def test_large_requests_weigh_by_their_gpu_time() -> None:
    ada = [request(f"a{n}", group(gpus=2), ago=60 - n) for n in range(2)]
    bob = [request(f"b{n}", GPU, ago=30 - n, owner="bob") for n in range(4)]
    assert order(*ada, *bob) == ["a0", "b0", "b1", "a1", "b2", "b3"]


def test_the_expected_length_counts_if_it_is_known() -> None:
    ada = [request(f"a{n}", GPU, ago=60 - n, expected=HOUR / 4) for n in range(4)]
    bob = [request(f"b{n}", GPU, ago=30 - n, owner="bob") for n in range(2)]
    assert order(*ada, *bob) == ["a0", "b0", "a1", "a2", "a3", "b1"]


def test_shares_of_gpus_count_in_part() -> None:
    ada = [request(f"a{n}", group(gpus=0.5), ago=60 - n) for n in range(3)]
    bob = [request(f"b{n}", GPU, ago=30 - n, owner="bob") for n in range(2)]
    assert order(*ada, *bob) == ["a0", "b0", "a1", "a2", "b1"]


GROUPS = (
    UserGroup("lab", frozenset({"ada", "eve"}), weight=2.0),
    UserGroup("class", frozenset({"bob"}), weight=1.0),
)


@pytest.mark.parametrize(("ada", "first"), [(199.0, "e"), (201.0, "b")])
def test_groups_share_by_their_weights(ada: float, first: str) -> None:
    """What ada used counts against eve, who is of the same group."""
    waiting = (request("e", GPU, owner="eve"), request("b", GPU, owner="bob", ago=1))
    found = order(*waiting, usage={"ada": ada, "bob": 100.0}, cluster=Cluster(groups=GROUPS))
    assert found[0] == first


def test_within_a_group_who_has_used_less_comes_first() -> None:
    waiting = (request("a", GPU, ago=5), request("e", GPU, owner="eve"))
    cluster = Cluster(groups=GROUPS)
    assert order(*waiting, usage={"ada": 100.0}, cluster=cluster) == ["e", "a"]


def test_who_is_in_no_group_is_one_of_his_own() -> None:
    waiting = (request("z", GPU, owner="zoe"), request("e", GPU, owner="eve", ago=5))
    cluster = Cluster(groups=GROUPS)
    assert order(*waiting, usage={"ada": 100.0, "zoe": 49.0}, cluster=cluster) == ["z", "e"]
    assert order(*waiting, usage={"ada": 100.0, "zoe": 51.0}, cluster=cluster) == ["e", "z"]


def test_a_group_takes_turns_by_its_weight() -> None:
    eve = [request(f"e{n}", GPU, ago=60 - n, owner="eve") for n in range(4)]
    bob = [request(f"b{n}", GPU, ago=30 - n, owner="bob") for n in range(3)]
    found = order(*eve, *bob, cluster=Cluster(groups=GROUPS))
    assert found == ["e0", "b0", "e1", "b1", "e2", "e3", "b2"]


def test_by_arrival_knows_arrival_alone() -> None:
    waiting = (request("a", GPU, priority=9), request("b", GPU, ago=1))
    snapshot = Snapshot((), (), waiting, usage={"bob": 1e9})
    assert [each.lease_id for each in by_arrival(snapshot, NOW)] == ["b", "a"]


# Aging


def test_who_has_waited_for_the_aging_time_comes_first() -> None:
    old = request("old", GPU, ago=24 * 60)
    young = request("young", GPU, ago=24 * 60 - 1)
    urgent = request("urgent", GPU, owner="bob", priority=1000)
    assert order(young, urgent, old, usage={"ada": 1e9}) == ["old", "urgent", "young"]


class Start(NamedTuple):
    """When a request started, and how many had waited longer when it came of age."""

    since: datetime
    at: datetime
    ahead: int


class Adversary:
    """A cluster that is never empty, and people who are always preferred to one."""

    LONGEST = 6 * HOUR

    def __init__(self, aging: timedelta) -> None:
        queues = (Queue(), Queue("vip", priority=100))
        self.cluster = Cluster(queues=queues, rules=Rules(aging=aging))
        self.hosts = (host("h0", 32, 4), host("h1", 32, 4))
        self.waiting: dict[str, Waiting] = {}
        self.holdings: dict[str, Holding] = {}
        self.ahead: dict[str, int] = {}
        self.starts: dict[str, Start] = {}

    def arrive(self, hour: int, now: datetime) -> Iterable[Waiting]:
        """Give more of all kinds than the cluster holds, each from a fresh and light user."""
        new = f"{hour:04}"
        yield Waiting(f"vip{new}", f"vip{new}", (GPU,), self.LONGEST, now)
        yield replace(
            request(f"gang{new}", group(count=4, gpus=1), queue="vip", owner=f"g{new}"),
            since=now,
            length=self.LONGEST,
        )
        for at in range(4):
            name = f"small{new}-{at}"
            yield Waiting(name, name, (GPU,), HOUR + at * 7 * MINUTE, now)

    def step(self, now: datetime) -> None:
        snapshot = Snapshot(
            self.hosts,
            tuple(self.holdings.values()),
            tuple(self.waiting.values()),
            self.cluster,
            {"victim": 1e12},
        )
        aged = now - self.cluster.rules.aging
        for each in by_arrival(snapshot, now):
            if each.since <= aged and each.lease_id not in self.ahead:
                self.ahead[each.lease_id] = sum(
                    other.since < each.since for other in self.waiting.values()
                )
        for grant in plan(snapshot, now).grants:
            each = self.waiting.pop(grant.lease_id)
            ahead = self.ahead.get(grant.lease_id, 0)
            self.starts[grant.lease_id] = Start(each.since, now, ahead)
            self.holdings[grant.lease_id] = Holding(
                grant.lease_id, each.owner, grant.slots, now + each.length
            )

    def run(self, victim: Waiting, hours: int) -> None:
        now = NOW
        for hour in range(hours):
            for each in (victim,) if hour == 3 else self.arrive(hour, now):
                self.waiting[each.lease_id] = replace(each, since=now)
            until = now + HOUR
            while now < until:
                ended = [name for name, each in self.holdings.items() if each.ends_at == now]
                for name in ended:
                    del self.holdings[name]
                self.step(now)
                ends = [each.ends_at for each in self.holdings.values() if each.ends_at]
                now = min([until, *ends])


@pytest.mark.parametrize("size", [1, 4, 8])
def test_no_stream_of_others_holds_up_a_request_longer_than_the_bound(size: int) -> None:
    """Once it has waited for ``aging``, only those who waited longer are ahead of it.

    It starts at the latest when what those ahead and it itself wait for has ended: within
    aging + (those ahead + 1) x the longest lease.
    """
    adversary = Adversary(aging=12 * HOUR)
    victim = request("victim", group(count=size, gpus=1), owner="victim", priority=-1000)
    adversary.run(victim, hours=72)
    assert "victim" in adversary.starts
    for start in adversary.starts.values():
        bound = 12 * HOUR + (start.ahead + 1) * adversary.LONGEST
        assert start.at - start.since <= bound


def test_without_aging_the_same_stream_would_hold_it_up_for_days() -> None:
    adversary = Adversary(aging=10 * DAY)
    victim = request("victim", group(count=8, gpus=1), owner="victim", priority=-1000)
    adversary.run(victim, hours=72)
    assert "victim" not in adversary.starts


def test_one_owners_old_requests_do_not_all_go_before_everybody() -> None:
    """Of each owner only the one that has waited longest is lifted."""
    flood = [request(f"f{n}", GPU, ago=30 * 60 - n, owner="flood") for n in range(5)]
    asked = (*flood, request("light", GPU, ago=60, owner="light"))
    assert order(*asked, usage={"flood": 1e9}) == ["f0", "light", "f1", "f2", "f3", "f4"]


def test_the_balanced_order_weighs_size_share_and_wait() -> None:
    asked = [
        request("long", group(gpus=1), length=8 * HOUR, ago=60),
        request("short", group(gpus=8), length=HOUR, ago=30),
        request("old", group(gpus=1), length=8 * HOUR, ago=4 * 24 * 60),
        request("heavy", group(gpus=1), length=HOUR, ago=30, owner="bob"),
        request("urgent", group(gpus=1), length=8 * HOUR, priority=1),
    ]
    snapshot = Snapshot((), (), tuple(asked), usage={"ada": 0.0, "bob": 8.0})
    order = [each.lease_id for each in by_balance(snapshot, NOW)]
    assert order == ["urgent", "short", "old", "heavy", "long"]
