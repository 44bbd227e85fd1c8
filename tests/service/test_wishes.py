"""What a request says beside its slots, on its whole way: asked, kept, explained, listed."""

from __future__ import annotations

import httpx
import pytest

from nimbus_hub.client import Client, GpuHolder, GroupRequest, JobRequest, WishesRequest
from nimbus_hub.client.resources import DataUse
from nimbus_hub.errors import Forbidden, InvalidRequest
from tests.service.conftest import Service
from tests.service.waiting import until

SLEEP = ("python", "-c", "import signal; signal.pause()")
WISHES = WishesRequest(
    inputs=("s3://corpus/text=120G", "s3://corpus/more"),
    outputs=("s3://models/out",),
    priority=-5,
    preemptible=True,
    expected="1h",
    step_bytes="500M",
)


@pytest.fixture
def ada(service: Service) -> Client:
    client = service.client("ada-token")
    until(client.hosts, bool)
    return client


def job(*groups: GroupRequest, **wish: object) -> JobRequest:
    wishes = WishesRequest(**wish)  # type: ignore[arg-type]
    return JobRequest(argv=SLEEP, groups=groups or (GroupRequest(),), wishes=wishes)


def gpus(amount: str, count: int = 1) -> GroupRequest:
    return GroupRequest("worker", count, 1, "1G", amount)


def running(client: Client, *groups: GroupRequest) -> str:
    submitted = client.submit(job(*groups))
    until(lambda: client.lease(submitted.lease_id), lambda seen: seen.state == "active")
    return submitted.id


def test_what_was_wished_is_kept_with_the_lease(ada: Client) -> None:
    group = GroupRequest("worker", 2, 1, "1G", "A100,V100:0.5", "pack:rack")
    submitted = ada.submit(JobRequest(argv=SLEEP, groups=(group,), wishes=WISHES))
    lease = ada.lease(submitted.lease_id)
    assert (submitted.queue, submitted.priority, submitted.preemptions) == ("default", -5, 0)
    assert (lease.queue, lease.priority, lease.is_preemptible) == ("default", -5, True)
    assert lease.inputs == (
        DataUse("s3://corpus/text", 120 * 2**30),
        DataUse("s3://corpus/more", None),
    )
    assert lease.outputs == (DataUse("s3://models/out", None),)
    assert (lease.expected_seconds, lease.step_bytes) == (3600.0, 500 * 2**20)
    asked = lease.groups[0]
    assert (asked.gpus, asked.gpu_milli, asked.gpu_models) == (1, 500, ("A100", "V100"))
    assert asked.topology == "pack:rack"


def test_a_role_has_its_own_topology_if_nothing_is_said(ada: Client) -> None:
    roles = (GroupRequest("worker"), GroupRequest("ps"), GroupRequest("evaluator"))
    lease = ada.lease(ada.submit(job(*roles)).lease_id)
    assert [group.topology for group in lease.groups] == ["pack", "spread", "any"]


@pytest.mark.parametrize(
    ("wish", "error", "sentence"),
    [
        ({"queue": "vip"}, InvalidRequest, "there is no queue 'vip'; there is default"),
        (
            {"priority": 1},
            Forbidden,
            "priority in queue 'default' must be at most 0, got 1",
        ),
        (
            {"datacenter": "mars"},
            InvalidRequest,
            "there is no datacenter 'mars'; there is default",
        ),
    ],
)
def test_a_wish_that_may_not_be_is_refused_with_what_may(
    wish: dict[str, object], error: type[Exception], sentence: str, ada: Client
) -> None:
    for ask in (ada.plan, ada.submit):
        with pytest.raises(error) as refused:
            ask(job(**wish))
        assert str(refused.value) == sentence
    assert ada.queue() == ()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"inputs": ["data.csv"]}, "data must be a URL like s3://bucket/path, got 'data.csv'"),
        ({"expected": "soon"}, "expected: duration must be like 90m, 2h or 1d, got 'soon'"),
        (
            {"step_bytes": "big"},
            "step bytes: memory must be a size like 4G or 512M, got 'big'",
        ),
    ],
)
def test_the_service_refuses_in_the_words_of_the_client(
    service: Service, body: dict[str, object], sentence: str
) -> None:
    with service.raw("ada-token") as http:
        answer = http.post("/api/v1/jobs", json={"argv": ["x"], **body})
    assert (answer.status_code, answer.json()["message"]) == (400, sentence)
    wishes = WishesRequest(**{k: tuple(v) if isinstance(v, list) else v for k, v in body.items()})  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest) as refused:
        wishes.check()
    assert str(refused.value) == sentence


def test_an_administrator_may_not_lift_a_users_bounds_by_asking_for_them(
    service: Service,
) -> None:
    hub = service.client("admin-token")
    with pytest.raises(Forbidden, match="must be at most 0, got 7"):
        hub.request_lease(
            owner="ada", groups=[GroupRequest("session")], wishes=WishesRequest(priority=7)
        )
    own = hub.submit(job(priority=7))
    assert own.priority == 7


def test_a_dry_run_says_on_which_hosts_and_racks_and_why(ada: Client) -> None:
    plan = ada.plan(job(gpus("2", 2)))
    assert not plan.would_wait
    assert [(host.name, host.rack, host.slots, host.gpus_milli) for host in plan.hosts] == [
        ("gpu-1", "default", ("worker-0", "worker-1"), 4000)
    ]
    assert plan.placement
    assert ada.jobs() == ()


def test_a_dry_run_that_would_wait_says_where_and_why_and_until_when(ada: Client) -> None:
    running(ada, gpus("3"))
    plan = ada.plan(job(gpus("2")))
    assert plan.would_wait
    assert (plan.slots, plan.hosts, plan.placement) == ((), (), "")
    assert (plan.position, plan.reason_code) == (1, "resources")
    assert plan.reason
    assert plan.starts_by is not None


def test_who_waits_is_told_the_same_by_job_lease_and_queue(ada: Client) -> None:
    running(ada, gpus("3"))
    waiting = ada.submit(job(gpus("2")))
    seen = until(lambda: ada.job(waiting.id), lambda seen: seen.position is not None)
    lease = ada.lease(waiting.lease_id)
    said = [
        (each.position, each.reason_code, each.reason, each.starts_by)
        for each in (seen, lease, ada.queue()[0])
    ]
    assert said[0] == said[1] == said[2]
    assert said[0][:2] == (1, "resources")


def test_gpus_are_counted_with_shares_and_who_holds_them(service: Service, ada: Client) -> None:
    bob = service.client("bob-token")
    running(bob, gpus("2"))
    running(ada, gpus("0.5"))
    for client, holders in (
        (ada, (GpuHolder("ada", 500), GpuHolder(None, 2000))),
        (bob, (GpuHolder("bob", 2000), GpuHolder(None, 500))),
        (service.client("admin-token"), (GpuHolder("bob", 2000), GpuHolder("ada", 500))),
    ):
        (pool,) = client.gpus()
        assert (pool.model, pool.datacenter, pool.total) == ("A100", "default", 4)
        assert (pool.free, pool.shared, pool.shared_free_milli, pool.away) == (1, 1, 500, 0)
        assert pool.holders == holders


def test_what_may_be_asked_for_names_queues_and_datacenters(service: Service, ada: Client) -> None:
    options = ada.options()
    assert [queue.name for queue in options.queues] == ["default"]
    assert options.datacenters == ("default",)
    assert service.client("admin-token").options(owner="ada").queues == options.queues
    with pytest.raises(Forbidden, match="ada may not see what bob may ask for"):
        ada.options(owner="bob")


def test_a_topology_nobody_knows_is_refused_with_those_there_are(service: Service) -> None:
    group = {"topology": "near"}
    with service.raw("ada-token") as http:
        answer: httpx.Response = http.post("/api/v1/jobs", json={"argv": ["x"], "groups": [group]})
    assert answer.status_code == 400
    assert (
        "'pack', 'pack:host', 'pack:rack', 'spread', 'spread:host' or 'any', got 'near'"
        in (answer.json()["message"])
    )
