"""The magics in a real IPython shell, with a service that is kept in memory."""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest
from IPython.core.interactiveshell import InteractiveShell

from nimbus_hub.client import (
    Client,
    Gang,
    JobRequest,
    Lease,
    LogText,
    Manifest,
    Plan,
    PlanHost,
    Replica,
    Slot,
    WishesRequest,
)
from nimbus_hub.client import Job as Resource
from nimbus_hub.client.explain import local_moment
from nimbus_hub.errors import Ended, Impossible, NotFound, Unavailable
from nimbus_hub.magics.extension import MAGICS, load
from nimbus_hub.magics.job import Job
from nimbus_hub.magics.session import Session
from nimbus_hub.magics.table import Table, table
from nimbus_hub.magics.tensorboard import Frame, TensorBoards
from nimbus_hub.magics.view import View
from nimbus_hub.magics.watch import Watch

START = datetime(2026, 11, 2, 10, 0, tzinfo=UTC)
WORKER = Replica(
    "r-1", "worker-0", "worker", 0, 1, "alpha", "running", None, "", START, None
)  # fmt: skip
JOB = Resource(
    id="j-1", name="train", owner="ada", lease_id="l-1", framework="script",
    framework_reason="", argv=("python",),
    state="running", reason="", position=None, starts_by=None, attempt=1, attempts=1,
    progress=None, progress_message="", replicas=(WORKER,), output_dir=None, log_dir=None,
    created_at=START, started_at=START, ended_at=None, is_ended=False, version=1,
    reason_code="", note="", queue="default", priority=0, placement="", preemptions=0, gang=None,
    deleted_at=None, deletion="",
)  # fmt: skip
LEASE = Lease(
    id="l-1", kind="session", owner="ada", name="", state="active", reason="",
    environment="default", groups=(), slots=(), length_seconds=7200, position=None,
    starts_by=None, created_at=START, granted_at=START, active_at=START,
    expires_at=START + timedelta(hours=2), latest_end=None, ended_at=None, renewals=0,
    is_ended=False, can_renew=True, renewal_seconds=7200, warnings_seconds=(), now=START,
    version=1, reason_code="", note="", queue="default", priority=0, is_preemptible=False,
    datacenter=None, inputs=(), outputs=(), expected_seconds=None, step_bytes=None, placement="",
    parent=None, size="", cpu_seconds=0.0, gpu_seconds=0.0, opened=(), renewals_left=9,
    renewable_until=START + timedelta(hours=8), idle_seconds=None, idle_ends=False,
    idle_since=None, idle_warns_at=None, idle_ends_at=None, idle_reason="",
)  # fmt: skip


def ended(job: Resource, state: str, code: int, reason: str = "") -> Resource:
    replicas = tuple(
        replace(each, state="exited", exit_code=code, ended_at=START) for each in job.replicas
    )
    return replace(
        job, state=state, reason=reason, replicas=replicas, is_ended=True,
        ended_at=START + timedelta(seconds=5), version=job.version + 1,
    )  # fmt: skip


class Service:
    """What a Client says, without a service."""

    def __init__(self) -> None:
        self.requests: list[JobRequest] = []
        self.uploads: list[Manifest] = []
        self.known = {JOB.id: JOB}
        self.stream: list[LogText | Resource | Exception] = []
        self.told: list[tuple[object, ...]] = []

    def upload(self, manifest: Manifest) -> str:
        self.uploads.append(manifest)
        return "d" * 64

    def submit(self, request: JobRequest) -> Resource:
        self.requests.append(request)
        number = len(self.requests) + 1
        job = replace(JOB, id=f"j-{number}", name=request.name, argv=request.argv)
        self.known[job.id] = job
        return job

    def plan(self, request: JobRequest) -> Plan:
        if request.groups[0].gpus == "9":
            raise Impossible("no host has so many GPUs")
        slot = Slot("worker-0", "worker", "alpha", "127.0.0.1", 1000, 2**31, (0, 1), 1000, ())
        host = PlanHost("alpha", "east", "r1", ("worker-0",), 2000)
        where = ((slot,), (host,), "on one host")
        return Plan("script", "", *where, False, None, "", "", None, (), 0, ())

    def jobs(self, state: str) -> tuple[Resource, ...]:
        found = reversed(self.known.values())
        return tuple(job for job in found if state == "all" or not job.is_ended)

    def job(self, job_id: str, after: int | None = None, timeout: float | None = None) -> Resource:
        if job_id not in self.known:
            raise NotFound(f"there is no job {job_id}")
        if after is not None:
            self.known[job_id] = ended(self.known[job_id], "succeeded", 0)
        return self.known[job_id]

    def stop(self, job_id: str, reason: str) -> Resource:
        self.job(job_id)
        self.known[job_id] = ended(self.known[job_id], "stopped", -15, reason)
        return self.known[job_id]

    def whole_logs(
        self, job_id: str, replica: str | None = None, tail: int | None = None
    ) -> Iterator[LogText]:
        texts = [item for item in self.stream if isinstance(item, LogText)]
        yield from (item for item in texts if replica in (None, item.replica))

    def follow(
        self, job_id: str, tail: int | None = None, replica: str | None = None
    ) -> Iterator[LogText | Resource]:
        while self.stream:
            item = self.stream.pop(0)
            if isinstance(item, Exception | KeyboardInterrupt):
                raise item
            if isinstance(item, Resource):
                self.known[job_id] = item = replace(item, id=job_id)
            yield item

    def gangs(self, session: str) -> tuple[Gang, ...]:
        return ()

    def lease(self, lease_id: str) -> Lease:
        return LEASE

    def renew(self, lease_id: str, duration: str | None) -> Lease:
        self.told.append(("renew", lease_id, duration))
        if duration == "99h":
            raise Ended("lease l-1 has ended: request a new session")
        return replace(LEASE, expires_at=START + timedelta(hours=3))

    def release(self, lease_id: str, reason: str) -> Lease:
        self.told.append(("release", lease_id))
        return replace(LEASE, state="released", is_ended=True, reason=reason)


class Notebook:
    """A shell with the magics, in a directory with a script."""

    def __init__(self, shell: InteractiveShell, service: Service, capture: Callable[[], str]):
        self.shell = shell
        self.service = service
        self.session: Session = load(shell, lambda: service)  # type: ignore[arg-type, return-value]
        self._capture = capture

    def run(self, cell: str) -> str:
        """Run a cell that has to succeed and return what it printed."""
        result = self.shell.run_cell(cell)
        assert result.success, self._capture()
        return self._capture()

    def refused(self, cell: str) -> str:
        """Run a cell that has to fail and return all that is shown of it."""
        assert not self.shell.run_cell(cell).success
        return self._capture()


@pytest.fixture
def notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Notebook]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / ".ipython"))
    monkeypatch.setenv("NIMBUS_LEASE_ID", "l-1")
    Path("train.py").write_text("print('hello')\n")
    # The shell puts itself in these places.
    monkeypatch.setattr(builtins, "display", None, raising=False)
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False

    def capture() -> str:
        out, err = capsys.readouterr()
        return out + err

    yield Notebook(shell, Service(), capture)
    InteractiveShell.clear_instance()
    shell.history_manager.end_session()


def test_a_line_runs_a_script_with_its_own_arguments(notebook: Notebook) -> None:
    notebook.run("rate = 0.1\njob = %nimbus_run --workers 2 --gpus A100:1 train.py --lr {rate}")
    request = notebook.service.requests[0]
    assert request.argv == ("python", "-u", "train.py", "--lr", "0.1")
    assert (request.name, request.snapshot) == ("train", "d" * 64)
    assert [(group.count, group.gpus) for group in request.groups] == [(2, "A100:1")]
    assert isinstance(notebook.shell.user_ns["job"], Job)
    assert notebook.session.last is notebook.shell.user_ns["job"]


def test_a_cell_is_a_file_of_the_snapshot_and_leaves_no_file_behind(notebook: Notebook) -> None:
    before = sorted(Path().rglob("*"))
    notebook.run("%%nimbus_run --as job --name cells -- --lr 0.1\nprint('{rate} $HOME')\n")
    request, manifest = notebook.service.requests[0], notebook.service.uploads[0]
    name = request.argv[2]
    assert request.argv == ("python", "-u", name, "--lr", "0.1")
    sources = {file.path: file.source for file in manifest.files}
    assert sources[name] == b"# %%nimbus_run\nprint('{rate} $HOME')\n"
    assert "train.py" in sources
    assert sorted(Path().rglob("*")) == before
    assert notebook.shell.user_ns["job"].name == "cells"


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        (
            "%nimbus_run --worker 2 train.py",
            "no option --worker, did you mean --workers? (%nimbus_run? lists what it takes)",
        ),
        (
            "%nimbus_run --workers two train.py",
            "Invalid value for '--workers': 'two' is not a valid integer "
            "(%nimbus_run? lists what it takes)",
        ),
        ("%nimbus_run", "name a script to run, like train.py, after the options"),
        (
            "%nimbus_run 'train.py",
            "the line cannot be read: No closing quotation in \"'train.py\"",
        ),
        (
            "%%nimbus_run train.py\nprint(1)",
            "the cell is the script, so 'train.py' cannot be one: put arguments for the cell "
            "after --, or write %nimbus_run for a script in a file",
        ),
        (
            "%%nimbus_run\nimport os\n!ls",
            "line 3 of the cell is IPython syntax (!ls), which a script cannot run: "
            "move it to a cell of its own",
        ),
        (
            "%nimbus_run --memory lots train.py",
            "memory must be a size like 4G or 512M, got 'lots'",
        ),
        (
            "%nimbus_run --as 1st train.py",
            "--as takes the name of a variable, like job, got '1st'",
        ),
        ("%nimbus_logs j-9", "there is no job j-9"),
        ("%nimbus_logs j-1 --replica ps-0", "job j-1 has no replica ps-0: it has worker-0"),
        ("%nimbus_lease renewal", "%nimbus_lease takes renew or release, got 'renewal'"),
        ("%nimbus_lease 2h", "%nimbus_lease takes renew or release, got '2h'"),
        (
            "%nimbus_lease release 2h",
            "a duration goes with renew: %nimbus_lease renew 2h",
        ),
        ("%nimbus_lease renew 99h", "lease l-1 has ended: request a new session"),
        (
            "%nimbus_tensorboard nowhere",
            "there is no job nowhere; there is no directory nowhere either",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_and_changes_nothing(
    notebook: Notebook, cell: str, sentence: str
) -> None:
    assert notebook.refused(cell) == f"UsageError: {sentence}\n"
    assert notebook.service.requests == notebook.service.uploads == []


def test_what_can_never_run_is_refused_before_anything_is_uploaded(notebook: Notebook) -> None:
    shown = notebook.refused("%nimbus_run --gpus 9 train.py")
    assert shown == "UsageError: no host has so many GPUs\n"
    assert notebook.service.requests == notebook.service.uploads == []


@pytest.mark.parametrize("workers", ["0", "-1"])
def test_no_workers_are_refused(notebook: Notebook, workers: str) -> None:
    shown = notebook.refused(f"%nimbus_run --workers {workers} train.py")
    assert shown.startswith("UsageError: ")
    assert workers in shown
    assert shown.count("\n") == 1


def test_a_script_that_does_not_exist_is_refused(notebook: Notebook) -> None:
    shown = notebook.refused("%nimbus_run tain.py")
    assert shown.startswith("UsageError: script 'tain.py' does not exist in ")
    assert notebook.service.uploads == []


def test_follow_prints_lines_under_their_replica_until_the_end(notebook: Notebook) -> None:
    notebook.service.stream = [
        JOB,
        LogText("worker-0", 1, 0, 4, "a\nb", False),
        LogText("worker-1", 1, 0, 2, "c\n", True),
        LogText("worker-0", 1, 4, 6, "b\n", True),
        ended(JOB, "succeeded", 0),
    ]
    assert notebook.run("job = %nimbus_run --follow train.py") == (
        "Job train (j-2): running.\n"
        "worker-0 | a\nworker-1 | c\nworker-0 | bb\n"
        "Job train (j-2): succeeded, ran 5s.\n"
    )


def test_follow_marks_the_cell_of_a_failed_job(notebook: Notebook) -> None:
    notebook.service.stream = [
        LogText("worker-0", 1, 0, 4, "oops", True),
        ended(JOB, "failed", 3, "worker-0 exited with code 3"),
    ]
    line = "Job train (j-2): failed, ran 5s. worker-0 exited with code 3.\n"
    shown = notebook.refused("%nimbus_run --follow train.py")
    assert shown == f"worker-0 | oops\n{line}UsageError: {line}"


def test_an_interrupt_leaves_a_followed_job_alone(notebook: Notebook) -> None:
    notebook.service.stream = [JOB, KeyboardInterrupt()]  # type: ignore[list-item]
    assert notebook.run("job = %nimbus_run --follow train.py") == (
        "Job train (j-2): running.\n\nThe job goes on; `%nimbus_logs j-2 -f` follows it again.\n"
    )
    assert notebook.shell.user_ns["job"].state == "running"


def test_a_cell_may_wish_for_roles_places_and_queues(notebook: Notebook) -> None:
    notebook.run(
        "%%nimbus_run --ps 2 --topology ps=spread:host --gpus T4:0.5 --queue night --priority -3 "
        "--preemptible --input s3://b/x=1G\nprint(1)\n"
    )
    request = notebook.service.requests[0]
    assert [(each.role, each.count, each.gpus, each.topology) for each in request.groups] == [
        ("worker", 1, "T4:0.5", None),
        ("ps", 2, 0, "spread:host"),
    ]
    assert request.wishes == WishesRequest(
        inputs=("s3://b/x=1G",), queue="night", priority=-3, preemptible=True
    )


def test_following_a_job_that_waits_says_why_and_until_when(notebook: Notebook) -> None:
    starts_by = datetime(2026, 11, 2, 14, 32, tzinfo=UTC)
    queued = replace(
        JOB, state="queued", reason="waits for 4 more A100", position=2, starts_by=starts_by,
        note="bob's renewal moved its start",
    )  # fmt: skip
    notebook.service.stream = [queued, ended(JOB, "succeeded", 0)]
    assert (
        "Job train (j-2): queued, position 2: waits for 4 more A100; starts at the latest "
        f"{local_moment(starts_by)}; bob's renewal moved its start.\n"
    ) in notebook.run("%nimbus_run --follow train.py")


def test_detach_and_dry_run(notebook: Notebook) -> None:
    assert notebook.run("plan = %nimbus_run --dry-run train.py") == ""
    assert notebook.service.requests == notebook.service.uploads == []
    assert repr(notebook.shell.user_ns["plan"]) == (
        "would start now on alpha\n"
        "  on one host\n"
        "1 host in 1 rack of east:\n"
        "  host   rack  slots  GPUs  which\n"
        "  alpha  r1    1      2     worker-0"
    )
    shown = notebook.run("%nimbus_run --detach train.py")
    assert shown.startswith("Out[0]: Job train (j-2): running.\nreplica   role")


def test_help_is_the_option_table(notebook: Notebook) -> None:
    shown = notebook.run("%nimbus_run --help")
    function = notebook.shell.find_line_magic("nimbus_run")
    assert shown == f"{function.__doc__}\n"
    for parameter in MAGICS[0].command.params:
        assert max(parameter.opts) in shown or parameter.human_readable_name in shown
    for option in ("--name", "--workers", "--follow", "--detach", "--dry-run", "--as"):
        assert option in shown
    assert [magic.name for magic in MAGICS if not magic.help().strip()] == []


def test_logs_of_the_last_job(notebook: Notebook) -> None:
    assert notebook.run("%nimbus_logs") == "Job train (j-1): running. It has written nothing yet.\n"
    notebook.service.stream = [LogText("worker-0", 1, 0, 6, "hello\n", False)]
    assert notebook.run("%nimbus_logs --tail 1") == "hello\n"
    notebook.service.stream.append(LogText("worker-1", 1, 0, 3, "hi\n", False))
    assert notebook.run("%nimbus_logs j-1") == "worker-0 | hello\nworker-1 | hi\n"
    assert notebook.run("%nimbus_logs train --replica worker-0") == "hello\n"


def test_a_job_is_named_by_variable_id_or_name(notebook: Notebook) -> None:
    notebook.run("mine = %nimbus_run --detach --name other train.py")
    assert notebook.session.job("mine").id == "j-2"
    assert notebook.session.job("other").id == "j-2"
    assert notebook.session.job("j-1").id == "j-1"
    assert notebook.session.job("").id == "j-2"


def test_of_jobs_with_one_name_the_live_one_is_meant(notebook: Notebook) -> None:
    known = notebook.service.known
    known["j-2"] = replace(JOB, id="j-2")
    shown = notebook.refused("%nimbus_stop train")
    assert shown == "UsageError: 2 jobs are called train: name one by its id: j-2, j-1\n"
    known["j-2"] = ended(known["j-2"], "failed", 1)
    assert notebook.session.job("train").id == "j-1"


def test_stop_says_what_became_of_the_job(notebook: Notebook) -> None:
    shown = notebook.run("%nimbus_stop j-1")
    assert shown == "Job train (j-1): stopped, ran 5s. Stopped from the notebook.\n"


def test_without_any_job_the_first_step_is_named(notebook: Notebook) -> None:
    notebook.service.known.clear()
    shown = notebook.refused("%nimbus_stop")
    assert shown == "UsageError: there is no job yet: start one with %nimbus_run script.py\n"


def test_jobs_are_a_table_with_and_without_pandas(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    notebook.service.known["j-2"] = ended(replace(JOB, id="j-2", name="<b>"), "failed", 1, "why")
    notebook.run("live = %nimbus_jobs\nevery = %nimbus_jobs -a")
    every = notebook.shell.user_ns["every"]
    created = f"{START.astimezone():%Y-%m-%d %H:%M:%S}"
    assert [row[:7] for row in every.rows] == [
        ("j-2", "<b>", "failed", "why", "script", 1, created),
        ("j-1", "train", "running", "", "script", 1, created),
    ]
    assert len(notebook.shell.user_ns["live"]) == 1
    assert "&lt;b&gt;" in every._repr_html_()
    frames = types.SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns))
    monkeypatch.setitem(sys.modules, "pandas", frames)
    assert table(("a",), [(1,)]) == ([(1,)], ["a"])


def test_a_table_without_pandas_reads_as_text() -> None:
    assert repr(Table(("id", "ended"), (("j-10", None), ("j-2", "now")))) == (
        "id    ended\nj-10\nj-2   now"
    )


def test_the_lease_is_told_renewed_and_released(notebook: Notebook) -> None:
    until, latest = (local_moment(START + timedelta(hours=hours), START) for hours in (2, 8))
    assert notebook.run("%nimbus_lease") == (
        f"Lease l-1: active until {until}, 2h left; it can be renewed until {latest} "
        "(%nimbus_lease renew makes it 2h from now)\n"
    )
    assert "3h left" in notebook.run("%nimbus_lease renew 3h")
    assert notebook.run("%nimbus_lease release") == (
        "Lease l-1: released. Released from the notebook.\n"
    )
    assert notebook.service.told == [("renew", "l-1", "3h"), ("release", "l-1")]


def test_outside_of_a_session_there_is_no_lease(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NIMBUS_LEASE_ID")
    shown = notebook.refused("%nimbus_lease")
    assert shown.startswith("UsageError: this kernel does not run in a Nimbus session")


def test_a_missing_setting_is_a_sentence_too(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NIMBUS_API_URL", raising=False)
    load(notebook.shell, Client.from_environment)
    assert notebook.refused("%nimbus_jobs").startswith("UsageError: NIMBUS_API_URL is not set")


@pytest.fixture
def shown(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What TensorBoard was started for; none is started."""
    directories: list[Path] = []

    def show(self: TensorBoards, directory: Path, height: int) -> Frame:
        directories.append(directory)
        return Frame("/proxy/1/s/", directory, height)

    monkeypatch.setattr(TensorBoards, "show", show)
    return directories


def test_tensorboard_of_a_directory(notebook: Notebook, shown: list[Path]) -> None:
    Path("runs").mkdir()
    assert notebook.run("%nimbus_tensorboard runs") == "TensorBoard of runs: /proxy/1/s/\n"
    assert shown == [Path("runs")]


def test_tensorboard_waits_for_a_job_to_start(notebook: Notebook, shown: list[Path]) -> None:
    logs = Path("logs").absolute()
    logs.mkdir()
    logs.joinpath("events.out.tfevents.1").touch()
    queued = replace(JOB, state="queued", reason="Waits for 2 GPUs", position=1)
    started = replace(JOB, log_dir=str(logs))
    answers = iter([queued, queued, started])
    notebook.service.job = lambda *_, **__: next(answers)  # type: ignore[method-assign]
    assert notebook.run("%nimbus_tensorboard") == (
        "Job train (j-1): queued, position 1: Waits for 2 GPUs. Waiting for its start.\n"
        f"TensorBoard of {logs}: /proxy/1/s/\n"
    )
    assert shown == [logs]


def test_tensorboard_of_a_job_that_never_started_is_refused(
    notebook: Notebook, shown: list[Path]
) -> None:
    notebook.service.known["j-1"] = ended(JOB, "stopped", -15, "Stopped by its owner")
    assert notebook.refused("%nimbus_tensorboard j-1") == (
        "UsageError: job j-1 ended without a log directory: Stopped by its owner\n"
    )
    missing = replace(ended(JOB, "succeeded", 0), log_dir="/nowhere/logs")
    notebook.service.known["j-1"] = missing
    assert notebook.refused("%nimbus_tensorboard j-1") == (
        "UsageError: job j-1 has no directory /nowhere/logs on this machine: "
        "write to NIMBUS_LOG_DIR in the job\n"
    )
    assert shown == []


def test_a_job_is_waited_for(notebook: Notebook) -> None:
    job = notebook.session.job("j-1")
    assert job.wait(timeout=5).state == "succeeded"
    assert repr(job) == "<Job train (j-1): succeeded, ran 5s>"
    with pytest.raises(TimeoutError, match="did not end within 0s"):
        Job(notebook.session.client, JOB).wait(timeout=0)


def test_a_job_shows_as_text_and_html_without_widgets(notebook: Notebook) -> None:
    notebook.service.stream = [LogText("worker-0", 1, 0, 6, "hello\n", False)]
    bundle = notebook.session.job("j-1")._repr_mimebundle_()
    assert sorted(bundle) == ["text/html", "text/plain"]
    assert notebook.run("%nimbus_run train.py") == (
        "Out[0]: Job train (j-2): running.\n"
        "replica   role    rank  host   state    exit code\n"
        "worker-0  worker  0     alpha  running\n"
        "\n--- worker-0: running\nhello\n"
    )


def test_the_live_view_follows_the_job_and_leaves_plain_html(notebook: Notebook) -> None:
    service = notebook.service
    service.stream = [
        LogText("worker-0", 1, 0, 12, "<b>loss</b>\n", False),
        Unavailable("the service does not answer"),
        ended(JOB, "failed", 3, "worker-0 exited with code 3"),
    ]
    notebook.shell.kernel = object()
    with notebook.shell.display_trap:
        view = View(service, JOB)  # type: ignore[arg-type]
        assert "application/vnd.jupyter.widget-view+json" in view.bundle()
        view.show()
    view.watch.join(10)
    del notebook.shell.kernel
    summary, tabs, stop = view.widget.children
    assert "worker-0 exited with code 3" in summary.value
    assert "&lt;b&gt;loss&lt;/b&gt;" in tabs.children[0].children[0].value
    assert stop.disabled
    assert view.watch.is_over


def test_the_stop_button_stops_and_a_refusal_is_shown(notebook: Notebook) -> None:
    service = notebook.service
    service.stream = [ended(JOB, "succeeded", 0)]
    view = View(service, JOB)  # type: ignore[arg-type]
    view.watch.join(10)
    stop = view.widget.children[2]
    stop.disabled = False
    stop.click()
    assert service.known["j-1"].state == "stopped"
    assert stop.disabled
    service.known.clear()
    stop.disabled = False
    stop.click()
    assert "there is no job j-1" in view.widget.children[0].value
    assert not stop.disabled


def test_a_watch_survives_a_service_that_is_away(notebook: Notebook) -> None:
    service, troubles = notebook.service, []
    service.stream = [
        Unavailable("the service does not answer"),
        LogText("worker-0", 1, 0, 3, "hi\n", False),
        ended(JOB, "succeeded", 0),
    ]
    watch = Watch(service, JOB, lambda: troubles.append(watch.trouble))  # type: ignore[arg-type]
    watch.start()
    watch.join(10)
    assert troubles[0] == "the service does not answer Trying again."
    assert troubles[-1] == ""
    assert (watch.job.state, watch.tails.text("worker-0")) == ("succeeded", "hi\n")


def test_a_watch_of_a_job_that_is_gone_ends_and_says_so(notebook: Notebook) -> None:
    over = Event()
    notebook.service.stream = [NotFound("there is no job j-1")]
    watch = Watch(notebook.service, JOB, lambda: watch.is_over and over.set())  # type: ignore[arg-type]
    watch.start()
    assert over.wait(10)
    assert watch.trouble == "there is no job j-1"
