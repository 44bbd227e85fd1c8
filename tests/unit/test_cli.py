from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from nimbus_hub.cli.command import EXIT_CODES, exit_code
from nimbus_hub.cli.main import nimbus
from nimbus_hub.cli.output import moment_text
from nimbus_hub.client.run_parameters import run_parameters
from nimbus_hub.client.snapshot import BUILT_IN_PATTERNS
from nimbus_hub.errors import error_classes
from tests.unit import fake_service as fake
from tests.unit.fake_service import FakeService
from tests.unit.fake_tensorboard import SERVE_AND_END, start_instead

Call = Callable[..., Result]
STREAM = "/api/v1/jobs/j1/logs/stream"


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def call(service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    for name in ("NIMBUS_LEASE_ID", "NIMBUS_ENVIRONMENT", "JUPYTERHUB_SERVICE_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print(1)\n")
    runner = CliRunner()

    def invoke(*words: str) -> Result:
        return runner.invoke(nimbus, list(words), obj=service.client)

    return invoke


@pytest.fixture
def runs(service: FakeService) -> FakeService:
    """Give a service that takes jobs."""

    def submit(request: httpx.Request) -> httpx.Response:
        is_plan = request.url.params.get("dry_run") == "true"
        answer = fake.plan() if is_plan else fake.job(state="starting")
        return httpx.Response(200 if is_plan else 201, json=answer)

    service.on("POST", "/api/v1/jobs", submit)
    service.on("POST", "/api/v1/snapshots", {"digest": "d" * 64, "missing": []})
    return service


def test_run_plans_then_uploads_then_submits(call: Call, runs: FakeService) -> None:
    result = call("run", "--workers", "2", "train.py", "--lr", "0.1")
    assert (result.exit_code, result.stdout) == (0, "j1\n")
    paths = [line.split("/api/v1/")[1] for line in runs.calls()]
    assert paths == ["jobs?dry_run=true", "snapshots", "jobs"]
    body = runs.body()
    assert body["argv"] == ["python", "-u", "train.py", "--lr", "0.1"]
    assert body["snapshot"] == "d" * 64
    assert result.stderr == (
        "job j1 (train): 2 workers on node1\n"
        "  nimbus logs -f j1       its output\n"
        "  nimbus-tensorboard j1   its curves\n"
        "  nimbus stop j1          end it\n"
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--worker", "2", "train.py"], "no option --worker, did you mean --workers?"),
        (["nope.py"], "script 'nope.py' does not exist in "),
        (["--workers", "0", "train.py"], "workers must be at least 1, got 0"),
        (["--memory", "lots", "train.py"], "memory must be a size like 4G or 512M, got 'lots'"),
        (["--workdir", "nope", "train.py"], "workdir must be a directory"),
        ([], "name a script to run"),
    ],
)
def test_bad_input_is_one_sentence_and_asks_the_service_nothing(
    words: list[str], text: str, call: Call, runs: FakeService
) -> None:
    result = call("run", *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"Error: {text}" in result.stderr
    assert runs.requests == []


def test_what_can_never_run_is_refused_before_the_upload(call: Call, service: FakeService) -> None:
    sentence = "no host has 9 GPUs; the most is 4"
    service.on("POST", "/api/v1/jobs", fake.error(400, "impossible", sentence))
    result = call("run", "--gpus", "9", "train.py")
    assert (result.exit_code, result.stderr) == (2, f"Error: {sentence}\n")
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (fake.plan(), "would start now on node1\n"),
        (
            fake.plan(slots=[fake.slot(0), fake.slot(1), fake.slot(2, "node2")]),
            "would start now on node1 (2), node2\n",
        ),
        (
            fake.waiting(reason="waits for 1 GPU"),
            "would wait (resources), position 1: waits for 1 GPU\n",
        ),
    ],
)
def test_a_dry_run_starts_nothing(
    plan: dict[str, object], text: str, call: Call, service: FakeService
) -> None:
    service.on("POST", "/api/v1/jobs", plan)
    assert call("run", "--dry-run", "train.py").stdout == text
    assert len(service.requests) == 1
    assert json.loads(call("run", "--dry-run", "--json", "train.py").stdout) == plan


def test_a_job_is_told_with_its_roles_and_where_they_are_and_why(
    call: Call, runs: FakeService
) -> None:
    def submit(request: httpx.Request) -> httpx.Response:
        if "dry_run" in request.url.params:
            placed = fake.plan(placement="workers on one host of rack r1")
            return httpx.Response(200, json=placed)
        return httpx.Response(201, json=fake.job(state="starting"))

    runs.on("POST", "/api/v1/jobs", submit)
    words = ["--workers", "2", "--chief", "--ps", "1", "--evaluator", "train.py"]
    told = call("run", *words).stderr.splitlines()
    assert told[:2] == [
        "job j1 (train): 1 chief, 2 workers, 1 ps, 1 evaluator on node1",
        "  workers on one host of rack r1",
    ]


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("stopped", 3)])
def test_following_ends_with_the_jobs_exit_code(
    state: str, code: int, call: Call, runs: FakeService
) -> None:
    runs.on("GET", STREAM, fake.stream(fake.log("out\n"), fake.ended(state, reason="so it is")))
    result = call("run", "--follow", "train.py")
    assert (result.exit_code, result.stdout) == (code, "out\n")
    assert result.stderr.splitlines()[-1] == f"job j1 {state}: so it is"


def test_output_of_several_replicas_is_whole_lines_with_names(
    call: Call, runs: FakeService
) -> None:
    logs = [
        fake.log("a1\na"),
        fake.log("b1\n", replica="worker-1"),
        fake.log("2\n", 4),
        fake.log("end", 3, replica="worker-1"),
    ]
    runs.on("GET", STREAM, fake.stream(*logs, fake.ended()))
    result = call("run", "--follow", "--workers", "2", "train.py")
    assert result.stdout == ("worker-0 | a1\nworker-1 | b1\nworker-0 | a2\nworker-1 | end\n")


def test_following_tells_why_it_waits(call: Call, service: FakeService) -> None:
    waits = {"state": "queued", "position": 2, "reason": "waiting for 1 GPU A100", "replicas": []}
    queued = fake.job(**waits, starts_by="2025-03-01T14:32:00Z", version=1)
    service.on("GET", "/api/v1/jobs/j1", queued)
    service.on("GET", STREAM, fake.stream(queued, fake.ended()))
    text = call("logs", "-f", "j1").stderr.splitlines()[0]
    when = moment_text(datetime(2025, 3, 1, 14, 32, tzinfo=UTC))
    assert text == f"queued, position 2: waiting for 1 GPU A100; starts at the latest {when}"


def test_following_as_json_is_one_document_a_line(call: Call, runs: FakeService) -> None:
    runs.on("GET", STREAM, fake.stream(fake.log("out\n"), fake.ended()))
    result = call("run", "--follow", "--json", "train.py")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["job", "log", "job"]
    assert lines[-1]["job"]["state"] == "succeeded"


def test_ctrl_c_while_following_only_looks_away(call: Call, runs: FakeService) -> None:
    def interrupt(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    runs.on("GET", STREAM, interrupt)
    result = call("run", "--follow", "train.py")
    assert result.exit_code == 130
    assert "job j1 goes on\n  nimbus logs -f j1   its output" in result.stderr
    assert not any("/stop" in line for line in runs.calls())


@pytest.mark.parametrize("code", sorted(error_classes()))
def test_every_error_is_a_sentence_and_an_exit_code(
    code: str, call: Call, service: FakeService
) -> None:
    service.on("POST", "/api/v1/jobs/j1/stop", fake.error(400, code, "a sentence"))
    result = call("stop", "j1")
    assert (result.stderr, result.stdout) == ("Error: a sentence\n", "")
    assert result.exit_code == exit_code(error_classes()[code]("x"))


def test_exit_codes_are_as_documented(call: Call) -> None:
    text = call("run", "--help").stdout
    for code in {*EXIT_CODES.values(), 0, 1, 3, 130}:
        assert f"\n  {code} " in text.replace("\n    ", "\n  ")


def test_another_users_job_is_not_found(call: Call, service: FakeService) -> None:
    service.on("GET", "/api/v1/jobs/x", fake.error(404, "not_found", "no job x"))
    result = call("logs", "x")
    assert (result.exit_code, result.stderr) == (4, "Error: no job x\n")


def test_a_service_that_is_away_is_named(call: Call, service: FakeService) -> None:
    service.on("GET", "/api/v1/hosts", httpx.ConnectError("refused"))
    result = call("hosts")
    assert result.exit_code == 6
    assert fake.URL in result.stderr


def test_logs_of_an_ended_job(call: Call, service: FakeService) -> None:
    service.on("GET", "/api/v1/jobs/j1", fake.ended())
    service.on(
        "GET", "/api/v1/jobs/j1/logs", {"items": [fake.log("out\n")]}, {"items": [fake.log("", 4)]}
    )
    assert call("logs", "--tail", "3", "j1").stdout == "out\n"
    assert "tail=3" in service.calls()[1]


@pytest.mark.parametrize("words", [["--tail", "-1"], ["-f", "--attempt", "1"]])
def test_wrong_logs_options_are_told(words: list[str], call: Call, service: FakeService) -> None:
    assert call("logs", *words, "j1").exit_code == 2
    assert service.requests == []


def test_ps_lists_sessions_and_jobs(call: Call, service: FakeService) -> None:
    service.on("GET", "/api/v1/jobs", {"items": [fake.job(progress_message="epoch 3")]})

    def leases(request: httpx.Request) -> httpx.Response:
        is_gang = request.url.params["kind"] == "debug"
        found = fake.gang()["lease"] if is_gang else fake.lease(state="expiring")
        return httpx.Response(200, json={"items": [found]})

    service.on("GET", "/api/v1/leases", leases)
    lines = call("ps").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ID", "KIND"],
        ["l1", "session"],
        ["l2", "debug"],
        ["j1", "job"],
    ]
    assert lines[3].rstrip().endswith("epoch 3")
    assert "state=live" in service.calls()[0]
    found = json.loads(call("ps", "-a", "--json").stdout)
    shown = found["jobs"] + found["sessions"] + found["gangs"]
    assert [item["id"] for item in shown] == ["j1", "l1", "l2"]
    assert "state=all" in service.calls()[-1]


def test_an_empty_list_says_so(call: Call, service: FakeService) -> None:
    for path in ("jobs", "leases", "queue", "hosts", "gpus"):
        service.on("GET", f"/api/v1/{path}", {"items": [], "cluster_file_error": ""})
    for words in (["ps"], ["queue"], ["hosts"], ["gpus"], ["lease", "list"]):
        result = call(*words)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr.startswith("no")


def test_hosts_tell_what_is_free(call: Call, service: FakeService) -> None:
    service.on("GET", "/api/v1/hosts", fake.hosts(fake.host()))
    row = call("hosts").stdout.splitlines()[1]
    assert " ".join(row.split()) == "node1 up 6.5 of 8 16G of 32G 1 of 2 A100 dc1 r1"


def test_the_lease_of_the_session_is_shown_and_renewed(
    call: Call, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIMBUS_LEASE_ID", "l1")
    service.on("GET", "/api/v1/leases/l1", fake.lease())
    service.on("POST", "/api/v1/leases/l1/renew", fake.lease())
    service.on("GET", "/api/v1/gangs", {"items": []})
    shown = call("lease").stdout
    assert shown.splitlines()[0] == "lease l1 active"
    assert "(in 2h), can be renewed until" in shown
    assert shown.splitlines()[2] == "  worker-0 on node1: 1 CPU, 2G, GPU 0"
    assert call("lease", "--json").stdout == call("lease", "show", "--json").stdout
    assert call("lease", "--json", "renew").exit_code == 2
    assert call("lease", "renew", "3h").stdout.startswith("lease l1 now ends ")
    assert service.body() == {"duration": "3h"}


def test_renewing_what_has_ended_is_exit_code_5(call: Call, service: FakeService) -> None:
    service.on("POST", "/api/v1/leases/l9/renew", fake.error(409, "ended", "lease l9 has ended"))
    result = call("lease", "renew", "--lease", "l9")
    assert (result.exit_code, result.stderr) == (5, "Error: lease l9 has ended\n")


@pytest.mark.parametrize(
    ("leases", "code"), [([fake.lease()], 0), ([], 2), ([fake.lease(), fake.lease(id="l2")], 2)]
)
def test_outside_of_a_session_the_only_one_is_meant(
    leases: list[dict[str, object]], code: int, call: Call, service: FakeService
) -> None:
    service.on("GET", "/api/v1/leases", {"items": leases})
    service.on("POST", "/api/v1/leases/l1/release", fake.lease(state="released", is_ended=True))
    assert call("lease", "release").exit_code == code


def test_stop_stops_each(call: Call, service: FakeService) -> None:
    service.on("POST", "/api/v1/jobs/j1/stop", fake.job())
    service.on("POST", "/api/v1/jobs/j2/stop", fake.ended("stopped", id="j2"))
    result = call("stop", "j1", "j2", "--reason", "a mistake")
    assert result.stdout == "job j1 is being stopped\njob j2 stopped\n"
    assert service.body(0) == {"reason": "a mistake"}


@pytest.mark.parametrize("name", ["rm", "delete"])
def test_rm_deletes_what_each_left(call: Call, service: FakeService, name: str) -> None:
    deleted = fake.ended("succeeded", deleted_at=fake.NOW, deletion="deleted by ada")
    service.on("DELETE", "/api/v1/jobs/j1", deleted)
    service.on(
        "DELETE", "/api/v1/jobs/j2", fake.error(409, "conflict", "job j2 is running; stop it first")
    )
    result = call(name, "j1", "j2")
    assert result.stdout == "files and output of job j1: deleted by ada\n"
    assert (result.exit_code, result.stderr) == (5, "Error: job j2 is running; stop it first\n")
    assert json.loads(call("rm", "j1", "--json").stdout)[0]["deletion"] == "deleted by ada"


def test_version_works_without_a_service(call: Call, service: FakeService) -> None:
    service.on("GET", "/health", httpx.ConnectError("refused"))
    result = call("version")
    assert result.exit_code == 0
    assert "does not answer" in result.stdout
    service.on("GET", "/health", {"status": "ok", "version": "9.9"})
    assert json.loads(call("version", "--json").stdout)["service"] == "9.9"


def test_tensorboard_of_a_job_without_one_is_told(call: Call, service: FakeService) -> None:
    service.on("GET", "/api/v1/jobs/j1", fake.ended("failed", reason="exit code 1"))
    result = call("tensorboard", "j1")
    assert (result.exit_code, result.stderr) == (
        4,
        "Error: job j1 ended without a log directory: exit code 1\n",
    )
    assert call("tensorboard", "no/dir").exit_code == 4


def test_tensorboard_of_a_directory_prints_where_it_is(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    monkeypatch.delenv("JUPYTERHUB_PUBLIC_URL", raising=False)
    started = start_instead(monkeypatch, SERVE_AND_END)
    result = call("tensorboard", ".")
    assert result.exit_code == 0
    assert re.fullmatch(r"/user/ada/proxy/4321/[\w-]{32}/\n", result.stdout)
    assert result.stderr == f"TensorBoard of {tmp_path}; Ctrl-C ends it\n"
    shown = json.loads(call("tensorboard", "--port", "4321", "--json", ".").stdout)
    assert (shown["port"], shown["directory"]) == (4321, str(tmp_path))
    assert [process.returncode for process in started] == [0, 0]


def test_tensorboard_waits_for_its_job_and_says_so(
    call: Call, service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "events.out.tfevents.1").touch()
    queued = fake.job(state="queued", reason="waits for 2 GPUs", log_dir=None)
    service.on("GET", "/api/v1/jobs/j1", queued, fake.job(log_dir=str(tmp_path), version=5))
    start_instead(monkeypatch, SERVE_AND_END)
    result = call("tensorboard", "j1")
    assert result.stderr == (
        f"queued: waits for 2 GPUs\nTensorBoard of {tmp_path}; Ctrl-C ends it\n"
    )


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (datetime(2025, 3, 1, 10, tzinfo=UTC), r"\d\d:\d\d"),
        (datetime(2025, 3, 9, 10, tzinfo=UTC), r"\w+ \d\d \d\d:\d\d"),
    ],
)
def test_a_moment_names_its_day_only_if_it_is_another(now: datetime, text: str) -> None:
    moment = datetime(2025, 3, 1, 10, 30, tzinfo=UTC)
    assert re.fullmatch(text, moment_text(moment, now))


def test_a_job_that_waits_says_why(call: Call, runs: FakeService) -> None:
    def submit(request: httpx.Request) -> httpx.Response:
        if "dry_run" in request.url.params:
            return httpx.Response(200, json=fake.waiting(reason="waiting for 4 GPUs"))
        return httpx.Response(201, json=fake.job(state="queued", reason=""))

    runs.on("POST", "/api/v1/jobs", submit)
    assert "queued, position 1: waiting for 4 GPUs\n" in call("run", "train.py").stderr


def test_a_run_that_names_no_framework_says_what_its_script_imports(
    call: Call, runs: FakeService
) -> None:
    Path("train.py").write_text("import helper\n")
    Path("helper.py").write_text("import torch\n")
    reason = "train.py imports torch"
    chosen = {"framework": "pytorch", "framework_reason": reason}

    def submit(request: httpx.Request) -> httpx.Response:
        is_plan = "dry_run" in request.url.params
        return httpx.Response(200, json=(fake.plan if is_plan else fake.job)(**chosen))

    runs.on("POST", "/api/v1/jobs", submit)
    assert f"\n  framework pytorch: {reason}\n" in call("run", "train.py").stderr
    body = runs.body()
    assert (body["framework"], body["imports"]) == (None, ["torch"])
    assert f"\n  framework pytorch: {reason}\n" in call("run", "--dry-run", "train.py").stdout
    call("run", "--framework", "script", "train.py")
    assert (runs.body()["framework"], runs.body()["imports"]) == ("script", [])


def test_a_refusal_comes_before_anything_is_uploaded(call: Call, runs: FakeService) -> None:
    sentence = "PyTorch has no parameter servers"
    runs.on("POST", "/api/v1/jobs", fake.error(400, "invalid_request", sentence))
    result = call("run", "--ps", "1", "--stall", "off", "train.py")
    assert (result.exit_code, result.stderr) == (2, f"Error: {sentence}\n")
    assert [line.split("/api/v1/")[1] for line in runs.calls()] == ["jobs?dry_run=true"]
    assert runs.body()["stall"] == "off"
    assert "stall must be a time like 10m" in call("run", "--stall", "soon", "train.py").stderr


@pytest.fixture
def results(service: FakeService) -> FakeService:
    """Give a service with a job that has written two files."""
    two = [fake.file("output/model.pt", 5), fake.file("output/sub/x.csv", 4)]
    service.on("GET", "/api/v1/jobs/j1/files", {"items": two, "is_whole": True})
    for path, data in (("output/model.pt", b"model"), ("output/sub/x.csv", b"a,b\n")):
        answer = httpx.Response(
            200, content=data, headers={"Content-Type": "application/octet-stream"}
        )
        service.on("GET", f"/api/v1/jobs/j1/files/{path}", answer)
    return service


def test_files_are_listed(call: Call, results: FakeService) -> None:
    lines = call("files", "j1").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["PATH", "SIZE", "CHANGED", "HOST"],
        ["output/model.pt", "5B", "Mar", "01", "12:00", "node1"],
        ["output/sub/x.csv", "4B", "Mar", "01", "12:00", "node1"],
    ]
    found = json.loads(call("files", "j1", "--json").stdout)
    assert [file["path"] for file in found["items"]] == ["output/model.pt", "output/sub/x.csv"]
    call("files", "j1", "sub", "--replica", "worker-1")
    assert results.requests[-1].url.params["path"] == "output/sub"
    assert results.requests[-1].url.params["replica"] == "worker-1"
    more = {"items": [fake.file("logs/e", 1)], "is_whole": False}
    results.on("GET", "/api/v1/jobs/j1/files", more)
    assert call("files", "j1").stderr.startswith("there are more")
    results.on("GET", "/api/v1/jobs/j1/files", {"items": [], "is_whole": True})
    assert call("files", "j1").stderr == "the job has written no files yet\n"


def test_files_are_copied(call: Call, results: FakeService) -> None:
    assert call("files", "j1", "output", "--to", "here").stdout == "here/output\n"
    assert Path("here/output/model.pt").read_bytes() == b"model"
    assert Path("here/output/sub/x.csv").read_text() == "a,b\n"
    copied = json.loads(call("files", "j1", "--to", ".", "--json").stdout)
    assert (copied["path"], len(copied["files"])) == ("j1", 2)
    assert Path("j1/output/model.pt").read_bytes() == b"model"
    missing = fake.error(404, "not_found", "there is no file output/none")
    results.on("GET", "/api/v1/jobs/j1/files", missing)
    result = call("files", "j1", "none", "--to", "there")
    assert (result.exit_code, result.stderr) == (4, "Error: there is no file output/none\n")


DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_document_has_every_option_and_exit_code() -> None:
    text = DOCUMENT.read_text()
    options = [opt for parameter in run_parameters() for opt in parameter.opts if opt[0] == "-"]
    assert [option for option in options if f"`{option}" not in text] == []
    assert [name for name in BUILT_IN_PATTERNS if name.strip("/").lstrip("*") not in text] == [
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
    ]
    for code in {*EXIT_CODES.values(), 0, 1, 3, 130}:
        assert f"\n| {code} |" in text
