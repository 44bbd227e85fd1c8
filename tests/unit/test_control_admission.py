"""What a request may ask for, checked before anything is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from nimbus_hub.control.admission import check_quotas, check_wishes
from nimbus_hub.errors import Forbidden, Impossible, InvalidRequest, NimbusError
from nimbus_hub.model.cluster import Cluster, Datacenter, Queue, Quota, UserGroup
from nimbus_hub.model.job import Launch
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.decisions import Grant
from tests.unit.control_harness import CPU_1, HandClock, World

HOUR = timedelta(hours=1)
LEASE = Lease("l-1", LeaseKind.JOB, "ada", "", (SlotGroup("worker"),), HOUR, HandClock().now())
CLUSTER = Cluster(
    datacenters=(Datacenter("north"),),
    queues=(Queue(), Queue("urgent", highest=5, users=frozenset({"ada"}))),
    groups=(UserGroup("vision", frozenset({"ada"}), quota=Quota(gpus_milli=4000)),),
    quota=Quota(gpus_milli=8000, cpus_milli=16_000),
    quotas={"eve": Quota(leases=0), "bob": Quota(gpus_milli=500)},
)


@pytest.mark.parametrize(
    ("owner", "wishes", "error", "sentence"),
    [
        ("ada", Wishes(queue="slow"), InvalidRequest, "no queue 'slow'; there is default, urgent"),
        ("bob", Wishes(queue="urgent"), Forbidden, "bob may not use queue 'urgent'"),
        ("ada", Wishes(priority=1), Forbidden, "queue 'default' must be at most 0, got 1"),
        ("ada", Wishes(queue="urgent", priority=6), Forbidden, "must be at most 5, got 6"),
        ("ada", Wishes(datacenter="west"), InvalidRequest, "'west'; there is default, north"),
        ("ada", Wishes(expected=2 * HOUR), InvalidRequest, "at most the duration, 1h, got 2h"),
    ],
)
def test_a_wish_that_is_wrong_is_refused_with_what_would_be_right(
    owner: str, wishes: Wishes, error: type[NimbusError], sentence: str
) -> None:
    with pytest.raises(error) as refused:
        check_wishes(replace(LEASE, owner=owner, wishes=wishes), CLUSTER, [CPU_1])
    assert sentence in refused.value.message


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes(priority=-1000),
        Wishes(queue="urgent", priority=5),
        Wishes(datacenter="north"),
        Wishes(datacenter="default"),
        Wishes(expected=HOUR),
    ],
)
def test_a_wish_within_bounds_is_taken(wishes: Wishes) -> None:
    check_wishes(replace(LEASE, wishes=wishes), CLUSTER, [CPU_1])


def test_administrators_may_use_any_queue_and_priority() -> None:
    wishes = Wishes(queue="urgent", priority=1000)
    check_wishes(replace(LEASE, owner="root", wishes=wishes), CLUSTER, [CPU_1], is_admin=True)


@pytest.mark.parametrize(
    ("owner", "group", "sentence"),
    [
        (
            "ada",
            SlotGroup("worker", 5, gpus=1),
            "5 GPUs in all were asked for, but the quota of group vision allows 4 at once",
        ),
        ("bob", SlotGroup("worker", gpus=1), "but the quota of bob allows 0.5 at once"),
        ("dan", SlotGroup("worker", 9, gpus=1), "but the quota of dan allows 8 at once"),
        ("dan", SlotGroup("worker", 17), "17 CPUs in all were asked for, but the quota of dan"),
        ("eve", SlotGroup("worker"), "the quota of eve allows no leases"),
    ],
)
def test_what_alone_is_over_a_quota_is_refused_by_its_name(
    owner: str, group: SlotGroup, sentence: str
) -> None:
    with pytest.raises(Impossible) as refused:
        check_quotas(replace(LEASE, owner=owner, groups=(group,)), CLUSTER)
    assert sentence in refused.value.message


def test_what_a_quota_allows_is_taken() -> None:
    half = SlotGroup("worker", gpus=1, gpu_milli=500)
    check_quotas(replace(LEASE, owner="bob", groups=(half,)), CLUSTER)
    check_quotas(replace(LEASE, groups=(SlotGroup("worker", 4, gpus=1),)), CLUSTER)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path, cluster=CLUSTER)
    await world.control.inventory.refresh()
    yield world
    world.control.close()


async def test_a_refused_request_leaves_nothing_behind(world: World) -> None:
    for wishes in (Wishes(priority=1), Wishes(queue="slow"), Wishes(datacenter="west")):
        with pytest.raises(NimbusError):
            await world.submit(wishes=wishes)
    with pytest.raises(Impossible, match="quota of bob"):
        await world.submit(owner="bob", gpus=1)
    assert world.store.live() == ((), (), ())


async def test_wishes_are_kept_with_the_lease(world: World) -> None:
    wishes = Wishes(queue="urgent", priority=5, datacenter="default", is_preemptible=True)
    job = await world.submit(wishes=wishes)
    assert world.lease_of(job).wishes == wishes


async def test_a_preview_says_what_would_be_and_changes_nothing(world: World) -> None:
    preview = await world.control.jobs.plan("ada", Launch(("python",)), [SlotGroup("worker")])
    assert isinstance(preview.answer, Grant)
    assert [slot.host for slot in preview.answer.slots] == ["cpu-1"]
    assert world.store.live() == ((), (), ())
    with pytest.raises(Forbidden):
        await world.control.jobs.plan(
            "ada", Launch(("python",)), [SlotGroup("worker")], wishes=Wishes(priority=1)
        )
