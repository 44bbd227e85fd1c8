from __future__ import annotations

import dataclasses
import types
import typing
from datetime import UTC, datetime

import httpx
import pydantic
import pytest

from nimbus_hub import client as public
from nimbus_hub.api import choices, engines, files, requests, schemas
from nimbus_hub.client import (
    Client,
    GangRequest,
    GroupRequest,
    Job,
    JobRequest,
    Lease,
    LogText,
    WishesRequest,
    decode,
    encode,
    resources,
)
from nimbus_hub.client import choices as client_choices
from nimbus_hub.client import engines as client_engines
from nimbus_hub.client.environment import address_and_token, browser_url, proxied_url
from nimbus_hub.client.sse import Message, messages
from nimbus_hub.errors import (
    Conflict,
    Ended,
    Forbidden,
    InvalidRequest,
    NimbusError,
    NotFound,
    Unauthenticated,
    Unavailable,
    error_classes,
)
from nimbus_hub.model.engine import Engine
from tests.unit import fake_service as fake
from tests.unit.fake_service import FakeService

STREAM = "/api/v1/jobs/j1/logs/stream"
LOGS = "/api/v1/jobs/j1/logs"


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def client(service: FakeService) -> Client:
    return service.client()


def shape(hint: typing.Any) -> typing.Any:
    """Return a type as both sides could write it: lists and tuples are one, so are classes."""
    if typing.get_origin(hint) in (list, tuple):
        return [shape(typing.get_args(hint)[0])]
    if typing.get_origin(hint) is typing.Literal:
        return str
    if isinstance(hint, types.UnionType):
        return {shape(each) for each in typing.get_args(hint)}
    is_class = dataclasses.is_dataclass(hint) or (
        isinstance(hint, type) and issubclass(hint, pydantic.BaseModel)
    )
    return hint.__name__ if is_class else hint


RESOURCES = [
    getattr(module, name)
    for module in (resources, client_choices, client_engines)
    for name in module.__all__
    if isinstance(getattr(module, name), type) and name != "LeaseWarning"
]


@pytest.mark.parametrize("cls", RESOURCES, ids=lambda cls: cls.__name__)
def test_a_resource_has_exactly_the_fields_of_the_response(cls: type) -> None:
    modules = (schemas, choices, engines, files)
    schema = next(getattr(each, cls.__name__) for each in modules if hasattr(each, cls.__name__))
    theirs = {name: shape(field.annotation) for name, field in schema.model_fields.items()}
    ours = {name: shape(hint) for name, hint in typing.get_type_hints(cls).items()}
    assert ours == theirs


@pytest.mark.parametrize(
    ("request_", "schema"),
    [
        (GroupRequest(), requests.GroupRequest),
        (WishesRequest(), requests.WishesRequest),
        (JobRequest(argv=("x",)), requests.JobRequest),
        (GangRequest(), requests.GangRequest),
    ],
)
def test_a_request_has_exactly_the_fields_and_defaults_of_the_schema(
    request_: GroupRequest | WishesRequest | JobRequest | GangRequest,
    schema: type[pydantic.BaseModel],
) -> None:
    sent = request_.body()
    assert set(sent) == set(schema.model_fields)
    least = {name: value for name, value in sent.items() if schema.model_fields[name].is_required()}
    assert schema.model_validate(sent) == schema.model_validate(least)


def test_an_engine_is_sent_and_read_as_it_is() -> None:
    whole = Engine("a", "ssh://a", "", "10.0.0.9", "far", "r1", {"x": "y"}, "host")
    for engine in (Engine("a", "ssh://a"), whole):
        read = requests.EngineRequest.model_validate(dataclasses.asdict(engine))
        assert read.engine() == engine
    least = requests.EngineRequest(host="a", endpoint="ssh://a")
    assert least.engine() == Engine("a", "ssh://a")


def test_a_session_sends_the_fields_of_the_schema(service: FakeService, client: Client) -> None:
    service.on("POST", "/api/v1/leases", httpx.Response(201, json=fake.lease()))
    client.request_lease(groups=[GroupRequest()], wishes=WishesRequest(queue="night"))
    assert set(service.body()) == set(requests.LeaseRequest.model_fields)
    assert service.body()["queue"] == "night"


def test_what_a_request_sends_is_what_the_service_reads() -> None:
    request = JobRequest(argv=("python", "x.py"), groups=(GroupRequest(gpus="A100:2"),))
    read = requests.JobRequest.model_validate(request.body(), strict=False)
    assert read.groups is not None
    assert read.groups[0].gpus == "A100:2"
    assert read.argv == ["python", "x.py"]


def test_the_public_face_is_all_there() -> None:
    assert [name for name in public.__all__ if not hasattr(public, name)] == []
    assert public.__all__ == sorted(public.__all__)


def test_a_lease_is_read_with_aware_times_and_tuples() -> None:
    lease = decode(Lease, fake.lease())
    assert lease.now == datetime(2025, 3, 1, 12, tzinfo=UTC)
    assert lease.warnings_seconds == (900.0, 300.0, 60.0)
    assert lease.slots[0].gpus == (0,)
    assert lease.starts_by is None


def test_encode_is_the_opposite_of_decode() -> None:
    job = decode(Job, fake.job())
    assert decode(Job, encode(job)) == job


def test_fields_of_a_newer_service_are_ignored() -> None:
    assert decode(Job, fake.job(colour="red")).id == "j1"


@pytest.mark.parametrize(
    "answer",
    [{}, [], None, "job", fake.job(version="3"), fake.job(created_at="soon"), fake.job(replicas=4)],
)
def test_an_answer_that_is_no_job_is_refused(answer: object) -> None:
    with pytest.raises(Unavailable, match="no Job"):
        decode(Job, answer)


def test_the_token_is_sent(service: FakeService, client: Client) -> None:
    service.on("GET", "/api/v1/jobs/j1", fake.job())
    client.job("j1")
    assert service.requests[0].headers["Authorization"] == "token secret"


@pytest.mark.parametrize("code", sorted(error_classes()))
def test_each_error_code_becomes_its_class(code: str, service: FakeService) -> None:
    service.on("POST", "/api/v1/jobs/j1/stop", fake.error(400, code, "a sentence"))
    with pytest.raises(error_classes()[code]) as caught:
        service.client().stop("j1")
    assert type(caught.value) is error_classes()[code]
    assert caught.value.message == "a sentence"


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, InvalidRequest),
        (401, Unauthenticated),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (503, Unavailable),
        (500, NimbusError),
    ],
)
def test_an_unknown_code_is_read_by_its_status(
    status: int, cls: type[NimbusError], service: FakeService, client: Client
) -> None:
    service.on("POST", "/api/v1/jobs/j1/stop", fake.error(status, "newer", "a sentence"))
    with pytest.raises(cls, match="a sentence"):
        client.stop("j1")


def test_a_read_outlives_a_short_restart(service: FakeService, client: Client) -> None:
    proxy_page = httpx.Response(503, text="<html>Service unavailable</html>")
    service.on("GET", "/api/v1/jobs/j1", httpx.ConnectError("refused"), proxy_page, fake.job())
    assert client.job("j1").id == "j1"
    assert service.waits == [0.1, 0.2]


def test_patience_has_an_end_and_names_the_address(service: FakeService, client: Client) -> None:
    service.on("GET", "/api/v1/hosts", httpx.ConnectError("refused"))
    with pytest.raises(Unavailable, match=r"http://hub.test/services/nimbus does not answer: ref"):
        client.hosts()
    assert sum(service.waits) == pytest.approx(15.0)


def test_a_write_is_repeated_only_if_it_was_not_sent(service: FakeService, client: Client) -> None:
    service.on("POST", "/api/v1/jobs/j1/stop", httpx.ConnectError("refused"), fake.job())
    assert client.stop("j1").id == "j1"
    service.on("POST", "/api/v1/jobs/j1/stop", httpx.ReadError("reset"), fake.job())
    with pytest.raises(Unavailable):
        client.stop("j1")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(302, headers={"Location": "/hub/login"}),
        httpx.Response(200, text="<html>log in</html>"),
        httpx.Response(404, json=["not found"]),
    ],
)
def test_what_is_not_the_service_is_unavailable(
    answer: httpx.Response, service: FakeService, client: Client
) -> None:
    service.on("POST", "/api/v1/jobs/j1/stop", answer)
    with pytest.raises(Unavailable, match="something else"):
        client.stop("j1")


@pytest.mark.parametrize("url", ["hub.example.org", "ftp://hub", "", "http://hub:port"])
def test_an_address_that_is_none_is_a_wrong_request(url: str) -> None:
    with pytest.raises(InvalidRequest, match="address"):
        Client(url, "t").hosts()


def test_a_long_poll_says_what_it_waits_for(service: FakeService, client: Client) -> None:
    service.on("GET", "/api/v1/leases/l1", fake.lease())
    client.lease("l1", after=4, timeout=20)
    client.lease("l1")
    assert service.calls() == [
        "GET /services/nimbus/api/v1/leases/l1?after=4&timeout=20",
        "GET /services/nimbus/api/v1/leases/l1",
    ]


def test_a_session_lease_is_asked_for(service: FakeService, client: Client) -> None:
    service.on("POST", "/api/v1/leases", httpx.Response(201, json=fake.lease()))
    client.request_lease(groups=[GroupRequest(role="session", memory="4G")], owner="ada", wait="5m")
    read = requests.LeaseRequest.model_validate(service.body())
    assert (read.owner, read.wait, read.groups[0].memory) == ("ada", "5m", "4G")


def test_lease_verbs_send_what_the_service_reads(service: FakeService, client: Client) -> None:
    for verb in ("activate", "renew", "release", "saved"):
        service.on("POST", f"/api/v1/leases/l1/{verb}", fake.lease())
    client.activate("l1")
    client.renew("l1", "3h")
    client.release("l1", "done", is_stopped=True)
    client.saved("l1")
    bodies = [service.body(i) for i in range(4)]
    assert bodies == [
        {},
        {"duration": "3h"},
        {"reason": "done", "is_stopped": True},
        {"part": "documents", "opened": []},
    ]


def test_gang_verbs_send_what_the_service_reads(service: FakeService, client: Client) -> None:
    gang = fake.gang()
    service.on("POST", "/api/v1/gangs", httpx.Response(201, json=gang))
    service.on("GET", "/api/v1/gangs", {"items": [gang]})
    service.on("GET", "/api/v1/gangs/l1", gang)
    service.on("POST", "/api/v1/jobs/j1/input", fake.job())
    asked = client.request_gang(GangRequest("pytorch", session="l0"))
    assert (asked.state, asked.run, asked.replicas[0].name) == ("ready", None, "ps-0")
    assert set(service.body()) == set(requests.GangRequest.model_fields)
    assert client.gangs(session="l0") == (asked,)
    assert client.gang("l1", after=3, timeout=1) == asked
    client.write_input("j1", "worker-0", "p x\n")
    assert service.body() == {"replica": "worker-0", "text": "p x\n"}
    assert service.calls()[1:3] == [
        "GET /services/nimbus/api/v1/gangs?session=l0&state=live",
        "GET /services/nimbus/api/v1/gangs/l1?after=3&timeout=1",
    ]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (JobRequest(argv=()), "argv must name a program"),
        (
            JobRequest(argv=("x",), groups=(GroupRequest(count=0),)),
            "workers must be at least 1, got 0",
        ),
        (JobRequest(argv=("x",), groups=(GroupRequest(memory="lots"),)), "memory must be a size"),
        (JobRequest(argv=("x",), groups=(GroupRequest(cpus="many"),)), "cpus must be a number"),
        (JobRequest(argv=("x",), groups=(GroupRequest(gpus=-1),)), "gpus must be at least 0"),
        (JobRequest(argv=("x",), env={"1A": "x"}), "env must be NAME=VALUE"),
        (JobRequest(argv=("x",), duration="soon"), "duration must be like 90m"),
        (JobRequest(argv=("x",), retries=-1), "retries must be at least 0 and at most 100, got -1"),
    ],
)
def test_a_wrong_job_is_refused_before_anything_is_sent(
    request_: JobRequest, text: str, service: FakeService, client: Client
) -> None:
    with pytest.raises(InvalidRequest, match=text):
        client.submit(request_)
    assert service.requests == []


# Streams


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"data: a\n\n"], [Message("message", "a")]),
        ([b"event: log\r\ndata: a\r\n\r\n"], [Message("log", "a")]),
        ([b"data:a\ndata:  b\n\n"], [Message("message", "a\n b")]),
        ([b": ping\n\n", b"data: a\n\n"], [Message("message", "a")]),
        ([b"id: 7\nda", b"ta: a\n\nda", b"ta: b\n\n"], [Message("message", x, "7") for x in "ab"]),
        ([b"data: cut off\n"], []),
        (["data: a\u2028b\x85\n\n".encode()], [Message("message", "a\u2028b\x85")]),
        (
            [b"data: \xe2\x82", b"\xac\n\n"],
            [Message("message", "\u20ac")],
        ),
        ([b"retry: 10\nunknown\ndata\n\n"], [Message("message", "")]),
    ],
)
def test_an_event_stream_is_read(chunks: list[bytes], expected: list[Message]) -> None:
    assert list(messages(chunks)) == expected


def text_of(items: list[LogText | Job], replica: str = "worker-0") -> str:
    return "".join(i.text for i in items if isinstance(i, LogText) and i.replica == replica)


def test_following_ends_with_the_ended_job(service: FakeService, client: Client) -> None:
    service.on("GET", STREAM, fake.stream(fake.job(), fake.ended(), fake.log("last words\n")))
    items = list(client.follow("j1", tail=5))
    assert [type(item).__name__ for item in items] == ["Job", "LogText", "Job"]
    assert isinstance(items[-1], Job)
    assert items[-1].state == "succeeded"
    assert service.calls() == [f"GET /services/nimbus{STREAM}?tail=5"]


def test_a_restart_in_the_middle_loses_and_doubles_nothing(
    service: FakeService, client: Client
) -> None:
    text = "eins\nzwei \u20ac\ndrei\n"
    half = len(b"eins\nzwei")
    service.on(
        "GET",
        STREAM,
        fake.stream(fake.job(), fake.log("eins\n"), fake.log("zwei", 5), is_cut=True),
        httpx.ConnectError("refused"),
        httpx.Response(503, text="<html>"),
        fake.stream(fake.job(), fake.log(text), fake.job(version=4), fake.ended()),
    )
    items = list(client.follow("j1"))
    assert text_of(items) == text
    assert items[-2] == decode(Job, fake.job(version=4))
    assert sum(isinstance(item, Job) for item in items) == 3
    resumed = [item for item in items if isinstance(item, LogText)][2]
    assert (resumed.offset, resumed.next_offset) == (half, len(text.encode()))


def test_bytes_that_are_no_text_are_fetched_from_where_they_were_cut(
    service: FakeService, client: Client
) -> None:
    whole = fake.log("ab\ufffdcd", next_offset=5)
    service.on(
        "GET",
        STREAM,
        fake.stream(fake.log("ab"), is_cut=True),
        fake.stream(whole, fake.ended()),
    )
    rest = fake.log("\ufffdcd", 2, next_offset=5)
    service.on("GET", LOGS, {"items": [rest]})
    assert text_of(list(client.follow("j1"))) == "ab\ufffdcd"


def test_a_gap_is_fetched(service: FakeService, client: Client) -> None:
    service.on(
        "GET",
        STREAM,
        fake.stream(fake.log("ab"), fake.log("ef", 4), fake.ended()),
    )
    service.on("GET", LOGS, {"items": [fake.log("cd", 2)]}, {"items": [fake.log("ef", 4)]})
    assert text_of(list(client.follow("j1"))) == "abcdef"


def test_a_gap_that_is_kept_no_longer_is_left(service: FakeService, client: Client) -> None:
    service.on("GET", STREAM, fake.stream(fake.log("ab"), fake.log("ef", 4), fake.ended()))
    service.on("GET", LOGS, {"items": []})
    assert text_of(list(client.follow("j1"))) == "abef"


def test_attempts_and_replicas_are_counted_apart(service: FakeService, client: Client) -> None:
    logs = [fake.log("a"), fake.log("b", replica="worker-1"), fake.log("c", attempt=2)]
    service.on(
        "GET",
        STREAM,
        fake.stream(*logs, is_cut=True),
        fake.stream(*logs, fake.log("d", 1, attempt=2), fake.ended()),
    )
    items = list(client.follow("j1"))
    assert text_of(items) == "acd"
    assert text_of(items, "worker-1") == "b"


def test_a_job_that_never_was_ends_following(service: FakeService, client: Client) -> None:
    service.on("GET", STREAM, fake.error(404, "not_found", "no job j1"))
    with pytest.raises(NotFound):
        list(client.follow("j1"))
    assert service.waits == []


def test_following_gives_up_in_the_end(service: FakeService, client: Client) -> None:
    service.on("GET", STREAM, fake.stream(), httpx.ConnectError("refused"))
    with pytest.raises(Unavailable):
        list(client.follow("j1"))
    assert sum(service.waits) == pytest.approx(120.0)


def test_events_go_on_after_the_last_one_seen(service: FakeService, client: Client) -> None:
    def events(number: int) -> httpx.Response:
        warning = encode({"lease": fake.lease(), "seconds": 300, "kind": "end", "reason": ""})
        text = httpx.Response(200, json=warning).text
        return httpx.Response(200, text=f"id: {number}\nevent: warning\ndata: {text}\n\n")

    service.on("GET", "/api/v1/events", events(7), httpx.ConnectError("x"), events(8))
    found = client.events()
    first, second = next(found), next(found)
    assert isinstance(first, public.LeaseWarning)
    assert first == second
    assert [r.headers.get("Last-Event-ID") for r in service.requests] == [None, "7", "7"]


def test_whole_logs_are_read_piece_by_piece(service: FakeService, client: Client) -> None:
    other = fake.log("x", replica="worker-1")
    service.on(
        "GET",
        LOGS,
        {"items": [fake.log("ab"), other]},
        {"items": [fake.log("cd", 2)]},
        {"items": [fake.log("", 4)]},
        {"items": [fake.log("", 1, replica="worker-1")]},
    )
    items: list[LogText | Job] = list(client.whole_logs("j1"))
    assert (text_of(items), text_of(items, "worker-1")) == ("abcd", "x")


# Environment


def test_the_environment_gives_address_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIMBUS_TOKEN", raising=False)
    monkeypatch.setenv("NIMBUS_API_URL", "http://hub/services/nimbus/")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "hub")
    assert address_and_token() == ("http://hub/services/nimbus", "hub")
    monkeypatch.setenv("NIMBUS_TOKEN", "job")
    assert address_and_token() == ("http://hub/services/nimbus", "job")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NIMBUS_API_URL", "NIMBUS_TOKEN", "JUPYTERHUB_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvalidRequest, match="NIMBUS_API_URL is not set"):
        Client.from_environment()
    monkeypatch.setenv("NIMBUS_API_URL", "http://hub/services/nimbus")
    with pytest.raises(Unauthenticated, match="http://hub/hub/token"):
        Client.from_environment()


def test_ports_are_seen_through_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    monkeypatch.delenv("JUPYTERHUB_PUBLIC_URL", raising=False)
    assert (proxied_url(6006), browser_url(6006)) == (None, "http://127.0.0.1:6006/")
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    assert browser_url(6006) == "/user/ada/proxy/6006/"
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_URL", "https://hub.example.org/user/ada/")
    assert browser_url(6006) == "https://hub.example.org/user/ada/proxy/6006/"


def test_an_ended_lease_is_a_conflict(service: FakeService, client: Client) -> None:
    service.on("POST", "/api/v1/leases/l1/renew", fake.error(409, "ended", "lease l1 has ended"))
    with pytest.raises(Ended, match="lease l1 has ended"):
        client.renew("l1")
