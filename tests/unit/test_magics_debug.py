"""``%nimbus_debug``, and ``%nimbus_run`` in a session that holds a gang."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from IPython.core.interactiveshell import InteractiveShell

from nimbus_hub.magics.extension import load
from tests.unit import fake_service as fake
from tests.unit.fake_service import FakeService

STREAM = "/api/v1/jobs/j1/logs/stream"
Run = Callable[[str], str]


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
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / ".ipython"))
    monkeypatch.setenv("NIMBUS_LEASE_ID", "l1")
    monkeypatch.delenv("NIMBUS_ENVIRONMENT", raising=False)
    monkeypatch.setattr(builtins, "display", None, raising=False)
    Path("train.py").write_text("print('hello')\n")
    made = InteractiveShell.instance()
    made.history_manager.enabled = False
    yield made
    InteractiveShell.clear_instance()
    made.history_manager.end_session()


@pytest.fixture
def run(shell: InteractiveShell, service: FakeService, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a way to run a cell and see all that is shown of it."""
    load(shell, service.client)

    def run_cell(cell: str) -> str:
        shell.run_cell(cell)
        out, err = capsys.readouterr()
        return out + err

    return run_cell


def paths(service: FakeService) -> list[str]:
    return [line.split("/api/v1/")[1] for line in service.calls()]


def ends(service: FakeService, state: str = "succeeded", code: int = 0) -> None:
    replicas = [fake.replica(state="exited", exit_code=code, ended_at=fake.NOW)]
    over = fake.ended(state, replicas=replicas, reason="so it is" if code else "")
    service.on("GET", STREAM, fake.stream(fake.log("a\n"), over))
    service.on("GET", "/api/v1/jobs/j1", over)


def test_a_gang_is_asked_for_and_told_until_it_is_ready(run: Run, service: FakeService) -> None:
    service.on("POST", "/api/v1/gangs", fake.gang(state="warming", replicas=[]))
    shown = run("%nimbus_debug --framework pytorch --ps 1 --workers 2 --gpus 1").splitlines()
    assert shown[:3] == [
        "debug gang l2 warming 0 of 3 on node1 (2), node2",
        "debug gang l2 ready on node1 (2), node2",
        "  1 ps, 2 workers with 1 GPU each, pytorch",
    ]
    assert shown[-1].startswith("  %nimbus_debug renew keeps it longer")
    assert service.body(0)["session"] == "l1"


def test_an_interrupt_gives_the_request_back(run: Run, service: FakeService) -> None:
    def interrupted(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    service.on("POST", "/api/v1/gangs", fake.gang({"reason": "waits"}, state="queued"))
    service.on("GET", "/api/v1/gangs/l2", interrupted)
    service.on("POST", "/api/v1/leases/l2/release", fake.gang()["lease"])
    assert run("%nimbus_debug --workers 2") == (
        "debug gang l2 queued: waits\ndebug gang l2 was given back\n"
        "UsageError: interrupted before the debug gang was ready\n"
    )


def test_the_gang_is_shown_renewed_and_given_back(run: Run, service: FakeService) -> None:
    service.on("POST", "/api/v1/leases/l2/renew", fake.gang()["lease"])
    service.on("POST", "/api/v1/leases/l2/release", fake.gang()["lease"])
    assert run("%nimbus_debug").startswith("debug gang l2 ready on node1 (2), node2\n")
    assert "can be renewed until" in run("%nimbus_debug renew 30m")
    assert service.body() == {"duration": "30m"}
    assert run("%nimbus_debug stop") == "debug gang l2 is given back\n"
    service.on("GET", "/api/v1/leases/l1", fake.lease())
    assert "debug gang l2 ready" in run("%nimbus_lease")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("%nimbus_debug 2h", "%nimbus_debug takes status, renew or stop, got '2h'"),
        ("%nimbus_debug stop 2h", "a duration alone goes with renew: %nimbus_debug renew 1h"),
        ("%nimbus_debug renew --gpus 1", "options are for a gang to be asked for: not with renew"),
        ("%nimbus_debug --workers 0", "workers must be at least 1, got 0"),
        ("%nimbus_run --tabs --pdb train.py", "--pdb talks in text, so --tabs cannot be meant"),
        (
            "%nimbus_run --workers 3 train.py",
            "gang l2 holds 1 ps, 2 workers with 1 GPU each, and a run takes them as they are: "
            "leave out what says otherwise, or add --submit for a job of its own",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(
    line: str, sentence: str, run: Run, service: FakeService
) -> None:
    assert run(line) == f"UsageError: {sentence}\n"
    assert not any(path.startswith("jobs") for path in paths(service))


def test_a_run_goes_to_the_held_slots_and_is_followed_to_its_end(
    run: Run, service: FakeService
) -> None:
    ends(service)
    assert run("job = %nimbus_run train.py --lr 0.1") == "worker-0 | a\n"
    assert paths(service)[:3] == ["gangs?session=l1&state=live", "snapshots", "jobs"]
    assert service.body(2)["gang"] == "l2"
    ends(service)
    run("%%nimbus_run\nprint(1)\n")
    sent = [service.body(n) for n, path in enumerate(paths(service)) if path == "jobs"]
    assert sent[1]["argv"][2].startswith("cell-")


def test_a_held_run_that_fails_marks_the_cell(run: Run, service: FakeService) -> None:
    ends(service, "failed", 3)
    shown = run("%nimbus_run train.py")
    assert shown.startswith("worker-0 | a\nUsageError: Job train (j1): failed, ran 0s. so it is.")


def test_an_interrupt_stops_a_held_run_everywhere(
    run: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(service, "stopped")
    waits = fake.job(replicas=[fake.replica(reason="waits in its debugger (post-mortem)")])
    over = fake.ended("stopped")
    service.on("GET", STREAM, fake.stream(waits, fake.log("(Pdb) "), over))

    def interrupted(prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(builtins, "input", interrupted)
    shown = run("%nimbus_run --pdb train.py")
    assert "stopping j1 everywhere ...\nj1 stopped\n" in shown
    assert shown.endswith("UsageError: interrupted: the run was stopped everywhere\n")
    assert "jobs/j1/stop" in paths(service)


def test_a_failing_replica_is_debugged_below_the_cell(
    run: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(service, "failed", 1)
    waits = fake.job(replicas=[fake.replica(reason="waits in its debugger (post-mortem)")])
    logs = [fake.log("-> x\n(Pdb) "), fake.log("1\n(Pdb) ", 11)]
    service.on("GET", STREAM, fake.stream(logs[0], waits, logs[1], fake.ended("failed")))
    service.on("POST", "/api/v1/jobs/j1/input", fake.job())
    lines = iter(["p x", "q"])
    prompts: list[str] = []

    def typed(prompt: str) -> str:
        prompts.append(prompt)
        return next(lines)

    monkeypatch.setattr(builtins, "input", typed)
    shown = run("%nimbus_run --pdb train.py")
    assert prompts == ["(Pdb) ", "(Pdb) "]
    assert "\n1\nUsageError: Job train" in shown
    inputs = [service.body(n) for n, path in enumerate(paths(service)) if path.endswith("input")]
    assert [body["text"] for body in inputs] == ["p x\n", "q\n"]


def test_where_nobody_can_be_asked_the_debugger_is_left(
    run: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(service, "failed", 1)
    waits = fake.job(replicas=[fake.replica(reason="waits in its debugger (post-mortem)")])
    service.on("GET", STREAM, fake.stream(waits, fake.log("(Pdb) "), fake.ended("failed")))
    service.on("POST", "/api/v1/jobs/j1/input", fake.job())

    def unable(prompt: str) -> str:
        raise NotImplementedError("raw_input was called, but this frontend does not support it")

    monkeypatch.setattr(builtins, "input", unable)
    assert "nobody can be asked here, so the debugger is left\nq\n" in run(
        "%nimbus_run --pdb train.py"
    )


def test_tabs_are_a_live_view_that_the_cell_waits_for(
    run: Run, service: FakeService, shell: InteractiveShell
) -> None:
    ends(service)
    shell.kernel = object()
    with shell.display_trap:
        shown = run("job = %nimbus_run --tabs train.py")
    del shell.kernel
    assert "worker-0 | a" not in shown
    assert "Job train (j1): " in shown
    assert paths(service)[-1] == "jobs/j1"


def test_submit_sends_a_job_of_its_own(run: Run, service: FakeService) -> None:
    def submit(request: httpx.Request) -> httpx.Response:
        is_plan = "dry_run" in request.url.params
        return httpx.Response(200, json=fake.plan() if is_plan else fake.job())

    service.on("POST", "/api/v1/jobs", submit)
    run("job = %nimbus_run --submit --detach train.py")
    assert [(group["role"], group["count"]) for group in service.body()["groups"]] == [
        ("worker", 2),
        ("ps", 1),
    ]
    assert service.body()["gang"] is None
