"""Runs on held slots: which gang is meant, what may be said of it, and what is said back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nimbus_hub.client import Gang, GroupRequest, Job, JobRequest, LogText, decode
from nimbus_hub.client.gangs import bring_up, gang_lines, gang_request, gang_text, own_gang
from nimbus_hub.client.held import (
    failed_code,
    gang_to_run_on,
    like_gang,
    on_gang,
    refuse_before_upload,
    start_on_gang,
)
from nimbus_hub.client.lines import Lines
from nimbus_hub.client.run_options import RunOptions, job_request, parse_run
from nimbus_hub.errors import Conflict, InvalidRequest, NotFound
from tests.unit import fake_service as fake
from tests.unit.fake_service import FakeService

ARGV = ("python", "-u", "train.py")
SESSION_GANGS = "GET /services/nimbus/api/v1/gangs?session=l1&state=live"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    monkeypatch.setenv("NIMBUS_LEASE_ID", "l1")
    monkeypatch.delenv("NIMBUS_ENVIRONMENT", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    made = FakeService()
    made.on("GET", "/api/v1/gangs", {"items": [fake.gang()]})
    return made


def gang(lease: dict[str, Any] | None = None, **changes: Any) -> Gang:
    return decode(Gang, fake.gang(lease, **changes))


def read(line: str) -> RunOptions:
    return parse_run(line.split(), "nimbus run")


@pytest.mark.parametrize(
    ("line", "is_held"),
    [
        ("x.py", True),
        ("--on held x.py", True),
        ("--pdb x.py", True),
        ("--on queue x.py", False),
        ("--submit x.py", False),
    ],
)
def test_a_session_that_holds_a_gang_runs_there_unless_told_otherwise(
    line: str, is_held: bool, service: FakeService
) -> None:
    found = gang_to_run_on(service.client(), read(line))
    assert (None if found is None else found.lease.id) == ("l2" if is_held else None)
    assert service.calls() == ([SESSION_GANGS] if is_held else [])


def test_outside_of_a_session_nobody_is_asked_unless_held_slots_are_wanted(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NIMBUS_LEASE_ID")
    assert gang_to_run_on(service.client(), read("x.py")) is None
    assert service.calls() == []
    found = gang_to_run_on(service.client(), read("--on held x.py"))
    assert found is not None
    service.on("GET", "/api/v1/gangs", {"items": [fake.gang(), fake.gang({"id": "l3"})]})
    with pytest.raises(InvalidRequest, match="name one by its lease: l2, l3"):
        own_gang(service.client())


def test_held_slots_that_nobody_holds_are_told_with_how_to_get_some(service: FakeService) -> None:
    service.on("GET", "/api/v1/gangs", {"items": []})
    assert gang_to_run_on(service.client(), read("x.py")) is None
    with pytest.raises(NotFound, match="this session holds no debug gang; ask for one with"):
        gang_to_run_on(service.client(), read("--on held x.py"))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--submit --on held x.py", "--submit sends a job of its own"),
        ("--pdb --submit x.py", "--pdb is for runs on held slots"),
        ("--pdb --on queue x.py", "--pdb is for runs on held slots"),
        ("--pdb --detach x.py", "it cannot be detached"),
    ],
)
def test_options_that_contradict_each_other_are_told(
    line: str, text: str, service: FakeService
) -> None:
    with pytest.raises(InvalidRequest, match=text):
        gang_to_run_on(service.client(), read(line))
    assert service.calls() == []


@pytest.mark.parametrize("line", ["x.py", "--workers 2 --ps 1 --gpus 1 --memory 2G x.py"])
def test_a_run_takes_the_slots_as_they_are(line: str) -> None:
    options = read(line)
    request = on_gang(job_request(options, ARGV), options, gang())
    assert request == JobRequest(
        ARGV, name="train", framework=None, environment=None, gang="l2", pdb=False
    )


@pytest.mark.parametrize(
    "line", ["--workers 3 x.py", "--gpus 0 x.py", "--chief x.py", "--ps-cpus 2 x.py"]
)
def test_other_slots_than_are_held_are_refused_with_the_remedy(line: str) -> None:
    options = read(line)
    with pytest.raises(InvalidRequest) as caught:
        on_gang(job_request(options, ARGV), options, gang())
    assert caught.value.message == (
        "gang l2 holds 1 ps, 2 workers with 1 GPU each, and a run takes them as they are: "
        "leave out what says otherwise, or add --submit for a job of its own"
    )


@pytest.mark.parametrize("option", ["--retries 1", "--queue night", "--input s3://b/x"])
def test_what_is_for_the_queue_is_refused_on_held_slots(option: str) -> None:
    options = read(f"{option} x.py")
    with pytest.raises(InvalidRequest) as caught:
        on_gang(job_request(options, ARGV), options, gang())
    assert caught.value.message.startswith(f"{option.split()[0]} is for a job that waits for slots")


def test_a_second_run_is_told_which_one_is_under_way_and_how_to_stop_it() -> None:
    busy = gang(state="busy", run=fake.job(id="j7", gang="l2"))
    with pytest.raises(Conflict) as caught:
        on_gang(job_request(read("x.py"), ARGV), read("x.py"), busy)
    assert caught.value.message == (
        "train (j7) runs on gang l2, one run at a time: wait for it, stop it with "
        "nimbus stop j7 (%nimbus_stop j7), or add --submit"
    )


def test_a_gang_that_ends_takes_no_run() -> None:
    over = gang(state="ending", reason="given back by ada")
    with pytest.raises(Conflict, match=r"is over or ending \(given back by ada\)"):
        on_gang(job_request(read("x.py"), ARGV), read("x.py"), over)


def test_submit_asks_for_the_slots_of_the_gang_unless_told_otherwise() -> None:
    wanted = like_gang(read("--submit x.py"), gang())
    assert (wanted.framework, wanted.environment) == ("pytorch", "default")
    assert job_request(wanted, ARGV).groups == (
        GroupRequest("worker", 2, "1", str(2**31), "1", "pack"),
        GroupRequest("ps", 1, "1", str(2**31), 0, "spread"),
    )
    more = job_request(like_gang(read("--submit --workers 8 x.py"), gang()), ARGV)
    assert [(group.role, group.count, group.gpus) for group in more.groups] == [
        ("worker", 8, "1"),
        ("ps", 1, 0),
    ]
    assert like_gang(RunOptions(), None) == RunOptions()


def test_an_interrupt_before_the_answer_stops_what_may_have_been_started(
    service: FakeService,
) -> None:
    service.on("POST", "/api/v1/jobs", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    service.on("GET", "/api/v1/gangs/l2", fake.gang(state="busy", run=fake.job(id="j7")))
    service.on("POST", "/api/v1/jobs/j7/stop", fake.job(id="j7"))
    with pytest.raises(KeyboardInterrupt):
        start_on_gang(service.client(), JobRequest(ARGV, gang="l2"))
    assert service.calls()[-1].endswith("/jobs/j7/stop")


@pytest.mark.parametrize(
    ("replicas", "code"),
    [
        ([], 1),
        ([fake.replica(0, exit_code=0, ended_at=fake.NOW)], 1),
        (
            [
                fake.replica(0, exit_code=-15, ended_at="2025-03-01T12:00:02Z"),
                fake.replica(1, exit_code=3, ended_at="2025-03-01T12:00:01Z"),
            ],
            3,
        ),
        ([fake.replica(0, exit_code=-9, ended_at=fake.NOW)], 137),
    ],
)
def test_the_exit_code_is_that_of_the_replica_that_failed_first(
    replicas: list[dict[str, Any]], code: int
) -> None:
    assert failed_code(decode(Job, fake.ended("failed", replicas=replicas))) == code


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            gang(
                {"position": 2, "reason": "waits for 2 GPUs"}
                | {"starts_by": "2025-03-01T12:32:00Z", "now": fake.NOW},
                state="queued",
            ),
            "debug gang l2 queued, position 2: waits for 2 GPUs; starts at the latest",
        ),
        (
            gang(
                state="warming",
                replicas=[fake.replica(0), fake.replica(1, state="starting")],
            ),
            "debug gang l2 warming 1 of 3 on node1 (2), node2",
        ),
        (gang(), "debug gang l2 ready on node1 (2), node2"),
        (gang(state="ended", reason="its session ended"), "debug gang l2 ended: its session ended"),
    ],
)
def test_a_gang_says_how_it_is(found: Gang, text: str) -> None:
    assert gang_text(found).startswith(text)


def test_a_gang_in_a_few_lines() -> None:
    found = gang(
        {"placement": "on two hosts", "note": "does nothing since 11:40", "renewable_until": None},
        runs=3,
    )
    lines = gang_lines(found)
    assert lines[:3] == [
        "debug gang l2 ready on node1 (2), node2",
        "1 ps, 2 workers with 1 GPU each, pytorch",
        "on two hosts",
    ]
    assert lines[3].endswith("(in 1h), cannot be renewed any more")
    assert lines[4:] == ["does nothing since 11:40", "3 runs so far"]
    renewable = {"renewable_until": "2025-03-01T18:00:00Z"}
    assert gang_lines(gang(renewable))[2].endswith("18:00")
    assert "can be renewed until" in gang_lines(gang(renewable))[2]


def test_a_gang_is_asked_for_with_the_session_and_its_environment(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIMBUS_ENVIRONMENT", "torch")
    request = gang_request(replace(RunOptions(), workers=2, gpus="1", duration="30m"), "5m")
    body = request.body()
    assert (body["session"], body["environment"], body["wait"]) == ("l1", "torch", "5m")
    assert [(group.role, group.count, group.gpus) for group in request.groups] == [
        ("worker", 2, "1")
    ]


def test_a_gang_that_comes_up_tells_each_news_once(service: FakeService) -> None:
    queued = fake.gang({"position": 1, "reason": "waits"}, state="queued", version=1)
    warming = [
        fake.gang(state="warming", replicas=[], version=2),
        fake.gang(state="warming", replicas=[], version=3),
    ]
    service.on("POST", "/api/v1/gangs", queued)
    service.on("GET", "/api/v1/gangs/l2", *warming, fake.gang())
    told: list[str] = []
    ready = bring_up(service.client(), gang_request(RunOptions(), None), told.append)
    assert ready.state == "ready"
    assert told == [
        "debug gang l2 queued, position 1: waits",
        "debug gang l2 warming 0 of 3 on node1 (2), node2",
    ]


def test_a_gang_that_ends_before_it_is_ready_says_why(service: FakeService) -> None:
    service.on("POST", "/api/v1/gangs", fake.gang(state="warming"))
    ended = fake.gang(state="ended", reason="its session ended: stopped by ada")
    service.on("GET", "/api/v1/gangs/l2", ended)
    with pytest.raises(Conflict, match="ended before it was ready: its session ended"):
        bring_up(service.client(), gang_request(RunOptions(), None), lambda _: None)


def test_an_interrupt_gives_the_request_for_a_gang_back(service: FakeService) -> None:
    service.on("POST", "/api/v1/gangs", fake.gang({"reason": "waits"}, state="queued"))
    service.on("GET", "/api/v1/gangs/l2", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    service.on("POST", "/api/v1/leases/l2/release", fake.lease(id="l2"))
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        bring_up(service.client(), gang_request(RunOptions(), None), told.append)
    assert service.body() == {"reason": "given back before it was ready", "is_stopped": False}
    assert told[-1] == "debug gang l2 was given back"


def log(text: str, replica: str = "worker-0") -> LogText:
    return decode(LogText, fake.log(text, replica=replica))


def test_output_of_several_replicas_is_whole_lines_under_their_names() -> None:
    lines = Lines(has_names=True, style=str.upper)
    assert lines.add(log("a\nb")) == "WORKER-0 | a\n"
    assert lines.add(log("c\n\n", "ps-0")) == "PS-0 | c\nPS-0 | \n"
    assert lines.add(log("b\nd")) == "WORKER-0 | bb\n"
    assert lines.add(log("(Pdb) ", "ps-0")) == ""
    assert lines.begun("ps-0") == "(Pdb) "
    assert lines.rest() == "WORKER-0 | d\n"
    assert lines.rest() == ""


def test_output_of_one_replica_goes_through_but_for_the_debuggers_prompt() -> None:
    lines = Lines(has_names=False)
    assert lines.add(log("10%\r20%")) == "10%\r20%"
    assert lines.add(log("-> x\n(Pdb) ")) == "-> x\n"
    assert lines.begun("worker-0") == "(Pdb) "


@pytest.mark.parametrize(
    ("line", "is_asked"),
    [
        ("x.py", False),
        ("--stall 5m --workers 2 x.py", False),
        ("--framework xgboost x.py", True),
        ("--environment tf x.py", True),
        ("--option port=4000 x.py", True),
    ],
)
def test_what_may_not_fit_the_gang_is_asked_before_anything_is_uploaded(
    line: str, is_asked: bool, service: FakeService
) -> None:
    service.on("POST", "/api/v1/jobs", fake.error(400, "invalid_request", "it does not fit"))
    options = read(line)
    request = on_gang(job_request(options, ARGV), options, gang())
    assert request.imports == ()
    if is_asked:
        with pytest.raises(InvalidRequest, match="it does not fit"):
            refuse_before_upload(service.client(), request)
    else:
        refuse_before_upload(service.client(), request)
        assert service.requests == []
