"""How requests and answers look: what waits, what would happen, GPUs; who is named to whom."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nimbus_hub.api import schemas
from nimbus_hub.api.choices import GpuHolder, GpuPool
from nimbus_hub.api.gpus import gpu_pools
from nimbus_hub.api.options import queues_for
from nimbus_hub.api.views import job_view, plan_view
from nimbus_hub.control.capacity import host_uses
from nimbus_hub.control.jobs import JobView
from nimbus_hub.model.cluster import Cluster, Queue
from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.decisions import Grant, Preemption, Preview, ReasonCode, Site, Wait

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
STARTS = NOON + timedelta(hours=2, minutes=32)
WAITS = "waits for 4 more GPUs A100 in east"
TAKEN = "preempted: l-9 of bob got its slots"
LEASE = Lease(
    "l-1", LeaseKind.JOB, "ada", "train", (SlotGroup("worker"),), timedelta(hours=1), NOON,
    wishes=Wishes(queue="night", priority=-3), reason=WAITS, reason_code="resources",
    position=2, starts_by=STARTS,
)  # fmt: skip
JOB = Job("j-1", "train", "ada", "l-1", Launch(("python",)), NOON)
EAST = tuple(
    Host(f"a-{n}", 8000, 2**34, (Gpu(0, "A100"), Gpu(1, "A100")), datacenter="east", rack=f"r{n}")
    for n in (1, 2)
)


def slot(index: int, host: str, gpus: tuple[int, ...] = (), milli: int = 1000) -> Slot:
    return Slot("worker", index, host, "127.0.0.1", 1000, 2**30, gpus, (20000,), milli)


def held(lease_id: str, owner: str, *slots: Slot) -> Lease:
    return replace(LEASE, id=lease_id, owner=owner, slots=slots, state=LeaseState.ACTIVE)


def test_a_job_that_waits_says_what_its_lease_says() -> None:
    shown = job_view(JobView(JOB, LEASE, ()))
    assert (shown.position, shown.reason_code, shown.reason) == (2, "resources", WAITS)
    assert (shown.starts_by, shown.queue, shown.priority) == (STARTS, "night", -3)


def test_a_job_whose_slots_others_got_says_why_it_waits_and_beside_it_what_happened() -> None:
    again = replace(JOB, reason=TAKEN, attempt=2, preemptions=1)
    shown = job_view(JobView(again, LEASE, ()))
    assert (shown.reason, shown.note) == (WAITS, TAKEN)
    assert (shown.attempt, shown.attempts, shown.preemptions) == (2, 2, 1)
    moved = job_view(JobView(again, replace(LEASE, note="a renewal moved its start"), ()))
    assert moved.note == "a renewal moved its start"


@pytest.mark.parametrize(
    ("job", "state", "reason"),
    [
        (replace(JOB, target=JobState.STOPPED, reason="stopped by ada"), None, "stopped by ada"),
        (replace(JOB, state=JobState.RUNNING, reason=""), LeaseState.ACTIVE, ""),
        (replace(JOB, state=JobState.FAILED, reason="exit code 1"), None, "exit code 1"),
    ],
)
def test_a_job_that_does_not_wait_has_its_own_reason(
    job: Job, state: LeaseState | None, reason: str
) -> None:
    shown = job_view(JobView(job, replace(LEASE, state=state or LEASE.state), ()))
    assert (shown.reason, shown.note) == (reason, "")


def test_a_plan_that_starts_names_its_hosts_in_order_with_racks_and_gpus() -> None:
    slots = (slot(0, "a-2", (0, 1)), slot(1, "a-1", (0,), 500))
    site = Site("east", 0, 0.0, 0.0, is_chosen=True, reason="cheapest")
    preview = Preview(Grant("l-1", slots, "2 workers on 2 hosts"), (site,))
    launch = Launch((), "pytorch", framework_reason="train.py imports torch")
    shown = plan_view(preview, launch, EAST, is_admin=False)
    assert (shown.framework, shown.framework_reason) == ("pytorch", "train.py imports torch")
    assert (shown.would_wait, shown.placement) == (False, "2 workers on 2 hosts")
    assert (shown.position, shown.reason, shown.reason_code, shown.starts_by) == (
        None,
        "",
        "",
        None,
    )
    assert shown.hosts == [
        schemas.PlanHost(
            name="a-1", datacenter="east", rack="r1", slots=["worker-1"], gpus_milli=500
        ),
        schemas.PlanHost(
            name="a-2", datacenter="east", rack="r2", slots=["worker-0"], gpus_milli=2000
        ),
    ]
    assert [(each.datacenter, each.is_chosen) for each in shown.sites] == [("east", True)]


@pytest.mark.parametrize(("is_admin", "named"), [(True, ["l-7", "l-8"]), (False, [])])
def test_only_administrators_are_told_whom_a_plan_would_stop(
    is_admin: bool, named: list[str]
) -> None:
    wait = Wait("l-1", 1, "others are being stopped for it", STARTS, ReasonCode.PREEMPTING)
    stopped = tuple(Preemption(lease, "l-1", "") for lease in ("l-7", "l-8"))
    shown = plan_view(Preview(wait, (), stopped), Launch(()), EAST, is_admin=is_admin)
    assert (shown.preemptions, shown.preempted_lease_ids) == (2, named)
    assert (shown.would_wait, shown.reason_code, shown.starts_by) == (True, "preempting", STARTS)
    assert (shown.slots, shown.hosts) == ([], [])


LEASES = (
    held("l-1", "ada", slot(0, "a-1", (0,), 250)),
    held("l-2", "bob", slot(0, "a-1", (0,), 500), slot(1, "a-1", (1,))),
)
OWNERS = {lease.id: lease.owner for lease in LEASES}


def pool(**changes: object) -> GpuPool:
    pool = GpuPool(
        model="A100", datacenter="east", total=4, free=2, shared=1, shared_free_milli=250, away=0,
        holders=[GpuHolder(owner="ada", gpus_milli=250), GpuHolder(owner=None, gpus_milli=1500)],
    )  # fmt: skip
    return pool.model_copy(update=changes)


def test_gpus_are_whole_shared_or_held_and_others_are_one() -> None:
    assert gpu_pools(host_uses(EAST, LEASES), OWNERS, "ada") == [pool()]


def test_who_sees_everybody_sees_who_holds_most_first() -> None:
    named = [GpuHolder(owner="bob", gpus_milli=1500), GpuHolder(owner="ada", gpus_milli=250)]
    assert gpu_pools(host_uses(EAST, LEASES), OWNERS, None) == [pool(holders=named)]


@pytest.mark.parametrize("state", [HostState.DRAINING, HostState.DOWN])
def test_gpus_of_hosts_that_take_nothing_are_away_whoever_holds_them(state: HostState) -> None:
    hosts = (replace(EAST[0], state=state), EAST[1])
    away = pool(shared=0, shared_free_milli=0, away=2)
    assert gpu_pools(host_uses(hosts, LEASES), OWNERS, "ada") == [away]


def test_a_model_is_told_apart_by_datacenter() -> None:
    hosts = (EAST[0], replace(EAST[1], datacenter="west"))
    found = gpu_pools(host_uses(hosts, ()), {}, None)
    assert [(each.datacenter, each.free, each.holders) for each in found] == [
        ("east", 2, []),
        ("west", 2, []),
    ]


def test_a_user_is_offered_the_queues_they_may_use() -> None:
    queues = (Queue(), Queue("vip", priority=10, users=frozenset({"ada"})))
    cluster = Cluster(queues=queues)
    assert [queue.name for queue in queues_for(cluster, "ada")] == ["default", "vip"]
    assert [queue.name for queue in queues_for(cluster, "bob")] == ["default"]
    assert [queue.name for queue in queues_for(cluster, None)] == ["default", "vip"]
