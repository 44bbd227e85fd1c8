"""``nimbus debug``, and ``nimbus run`` in a session that holds a gang."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from nimbus_hub.cli.main import nimbus
from tests.unit import fake_service as fake
from tests.unit.fake_service import FakeService

Call = Callable[..., Result]
STREAM = "/api/v1/jobs/j1/logs/stream"
LINES = """\
debug gang l2 ready on node1 (2), node2
  1 ps, 2 workers with 1 GPU each, pytorch
"""


@pytest.fixture
def service() -> FakeService:
    made = FakeService()
    made.on("GET", "/api/v1/gangs", {"items": [fake.gang()]})
    made.on("GET", "/api/v1/gangs/l2", fake.gang())
    made.on("POST", "/api/v1/snapshots", {"digest": "d" * 64, "missing": []})
    made.on("POST", "/api/v1/jobs", fake.job(gang="l2", state="starting"))
    made.on("POST", "/api/v1/jobs/j1/stop", fake.job())
    return made


@pytest.fixture
def call(service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("NIMBUS_LEASE_ID", "l1")
    monkeypatch.delenv("NIMBUS_ENVIRONMENT", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print(1)\n")
    runner = CliRunner()

    def invoke(*words: str, typed: str = "") -> Result:
        return runner.invoke(nimbus, list(words), obj=service.client, input=typed)

    return invoke


def paths(service: FakeService) -> list[str]:
    return [line.split("/api/v1/")[1] for line in service.calls()]


def failing(*replicas: dict[str, Any]) -> dict[str, Any]:
    return fake.ended("failed", replicas=list(replicas), reason="worker-0 exited with code 3")


def test_a_gang_is_asked_for_and_told_until_it_is_ready(call: Call, service: FakeService) -> None:
    service.on("POST", "/api/v1/gangs", fake.gang(state="warming", replicas=[]))
    words = ["--framework", "pytorch", "--ps", "1", "--workers", "2", "--gpus", "1"]
    result = call("debug", "start", *words, "--duration", "1h")
    assert (result.exit_code, result.stdout) == (0, "l2\n")
    assert result.stderr.startswith(f"debug gang l2 warming 0 of 3 on node1 (2), node2\n{LINES}")
    assert "nimbus run train.py   runs on it" in result.stderr
    body = service.body(0)
    assert (body["framework"], body["session"], body["duration"]) == ("pytorch", "l1", "1h")
    assert [(group["role"], group["count"], group["gpus"]) for group in body["groups"]] == [
        ("worker", 2, "1"),
        ("ps", 1, 0),
    ]


def test_a_gang_may_be_asked_for_without_waiting_for_it(call: Call, service: FakeService) -> None:
    service.on("POST", "/api/v1/gangs", fake.gang(state="queued"))
    asked = json.loads(call("debug", "start", "--detach", "--json").stdout)
    assert (asked["lease"]["id"], asked["state"]) == ("l2", "queued")
    assert paths(service) == ["gangs"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--workers", "0"], "workers must be at least 1, got 0"),
        (["--gpus", "many"], "gpus must be a number"),
        (["--duration", "long"], "duration must be like 90m"),
        (["--wait", "long"], "duration must be like 90m"),
    ],
)
def test_a_wrong_gang_is_refused_here(
    words: list[str], text: str, call: Call, service: FakeService
) -> None:
    result = call("debug", "start", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {text}")
    assert service.requests == []


def test_the_gang_of_the_session_is_shown_renewed_and_given_back(
    call: Call, service: FakeService
) -> None:
    service.on("POST", "/api/v1/leases/l2/renew", fake.gang()["lease"])
    service.on("POST", "/api/v1/leases/l2/release", fake.gang()["lease"])
    assert call("debug").stdout.startswith(LINES)
    assert call("debug", "status", "l2").stdout == call("debug").stdout
    assert json.loads(call("debug", "--json").stdout)["framework"] == "pytorch"
    assert call("debug", "--json", "stop").exit_code == 2
    assert call("debug", "renew", "30m").stdout.startswith("debug gang l2 until ")
    assert service.body() == {"duration": "30m"}
    assert call("debug", "stop", "--reason", "done").stdout == "debug gang l2 is given back\n"
    assert service.body() == {"reason": "done", "is_stopped": False}
    service.on("GET", "/api/v1/gangs", {"items": []})
    assert call("debug").exit_code == 4


def test_gangs_are_listed_with_their_sessions(call: Call, service: FakeService) -> None:
    row = call("debug", "list").stdout.splitlines()[1].split("  ")
    cells = [cell.strip() for cell in row if cell.strip()]
    assert cells[:5] == ["l2", "l1", "ready", "1 ps, 2 workers with 1 GPU each", "pytorch"]
    assert json.loads(call("debug", "list", "--json").stdout)[0]["lease"]["parent"] == "l1"


def test_the_session_shows_its_gang_besides_its_lease(call: Call, service: FakeService) -> None:
    service.on("GET", "/api/v1/leases/l1", fake.lease())
    assert LINES in call("lease").stdout
    service.on("GET", "/api/v1/leases/l2", fake.gang()["lease"])
    assert "debug gang of session l1" in call("lease", "show", "l2").stdout


def test_a_run_goes_to_the_held_slots_and_is_followed_to_its_end(
    call: Call, service: FakeService
) -> None:
    logs = [fake.log("a\n"), fake.log("b\n", replica="worker-1")]
    service.on("GET", STREAM, fake.stream(*logs, fake.ended()))
    result = call("run", "train.py", "--lr", "0.1")
    assert (result.exit_code, result.stdout) == (0, "worker-0 | a\nworker-1 | b\n")
    assert result.stderr == "job j1 (train) on gang l2, run 1\njob j1 succeeded\n"
    # No plan: what is held needs none.
    assert paths(service)[:3] == ["gangs?session=l1&state=live", "snapshots", "jobs"]
    body = service.body(2)
    assert (body["gang"], body["pdb"], body["groups"], body["snapshot"]) == (
        "l2", False, None, "d" * 64,
    )  # fmt: skip


def test_the_exit_code_of_a_held_run_is_that_of_the_script(
    call: Call, service: FakeService
) -> None:
    replica = fake.replica(0, state="exited", exit_code=3, ended_at=fake.NOW)
    service.on("GET", STREAM, fake.stream(failing(replica)))
    result = call("run", "train.py")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == "job j1 failed: worker-0 exited with code 3"


def test_ctrl_c_stops_a_held_run_everywhere(call: Call, service: FakeService) -> None:
    def interrupted(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    service.on("POST", "/api/v1/jobs", interrupted)
    service.on("GET", "/api/v1/gangs/l2", fake.gang(state="busy", run=fake.job()))
    assert call("run", "train.py").exit_code == 130
    assert paths(service)[-1] == "jobs/j1/stop"


def test_a_detached_run_prints_its_id(call: Call, service: FakeService) -> None:
    assert call("run", "--detach", "train.py").stdout == "j1\n"
    assert json.loads(call("run", "--detach", "--json", "train.py").stdout)["id"] == "j1"


def test_a_held_run_as_json_is_one_document_a_line(call: Call, service: FakeService) -> None:
    service.on("GET", STREAM, fake.stream(fake.log("a"), fake.ended()))
    lines = [json.loads(line) for line in call("run", "--json", "train.py").stdout.splitlines()]
    assert [line["event"] for line in lines] == ["job", "log", "job"]
    assert lines[1]["log"]["text"] == "a"
    assert call("run", "--json", "--pdb", "train.py").exit_code == 2


def test_a_failing_replica_is_debugged_from_the_terminal(call: Call, service: FakeService) -> None:
    waits = fake.job(replicas=[fake.replica(reason="waits in its debugger (post-mortem)")])
    logs = [fake.log("-> x\n(Pdb) "), fake.log("1\n(Pdb) ", 11)]
    service.on("POST", "/api/v1/jobs/j1/input", fake.job())
    replica = fake.replica(0, state="exited", exit_code=1, ended_at=fake.NOW)
    service.on("GET", STREAM, fake.stream(logs[0], waits, logs[1], failing(replica)))
    result = call("run", "--pdb", "train.py", typed="p x\n")
    assert result.exit_code == 1
    assert result.stdout == "worker-0 | -> x\n(Pdb) 1\n(Pdb) "
    inputs = [service.body(n) for n, path in enumerate(paths(service)) if path.endswith("input")]
    assert [body["text"] for body in inputs] == ["p x\n", "q\n"]


def test_submit_sends_the_same_command_as_a_job_of_its_own(
    call: Call, service: FakeService
) -> None:
    def submit(request: httpx.Request) -> httpx.Response:
        is_plan = "dry_run" in request.url.params
        return httpx.Response(200, json=fake.plan() if is_plan else fake.job())

    service.on("POST", "/api/v1/jobs", submit)
    result = call("run", "--submit", "train.py")
    assert result.stdout == "j1\n"
    assert result.stderr.startswith("job j1 (train): 2 workers, 1 ps on node1\n")
    body = service.body()
    assert (body["gang"], body["framework"]) == (None, "pytorch")
    assert [(group["role"], group["count"]) for group in body["groups"]] == [
        ("worker", 2),
        ("ps", 1),
    ]


def test_a_dry_run_on_held_slots_starts_nothing(call: Call, service: FakeService) -> None:
    service.on("POST", "/api/v1/jobs", fake.plan())
    assert call("run", "--dry-run", "train.py").stdout == "would start now on node1\n"
    assert paths(service)[1:] == ["jobs?dry_run=true"]


@pytest.mark.parametrize(
    ("words", "code"), [(["--workers", "9"], 2), (["--retries", "1"], 2), ([], 5)]
)
def test_what_cannot_run_on_the_gang_is_refused_before_the_upload(
    words: list[str], code: int, call: Call, service: FakeService
) -> None:
    busy = fake.gang(state="busy", run=fake.job(id="j7"))
    service.on("GET", "/api/v1/gangs", {"items": [busy]})
    result = call("run", *words, "train.py")
    assert result.exit_code == code
    assert paths(service) == ["gangs?session=l1&state=live"]


def test_a_run_on_held_slots_starts_without_what_it_does_not_need() -> None:
    """In a python of its own: half of a run's first line is the command's imports."""
    code = "import sys, nimbus_hub.cli.run; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    ).stdout.split()
    spared = ("archive", "choices", "imports", "usage")
    assert "nimbus_hub.client.client" in found
    assert {"rich", "tarfile", *(f"nimbus_hub.client.{name}" for name in spared)}.isdisjoint(found)
