"""TensorBoard's process: what is started, where it answers, and that nothing is left."""

from __future__ import annotations

import io
import json
import select
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

from nimbus_hub.client import tensorboard, tensorboard_server
from nimbus_hub.client.resources import Job
from nimbus_hub.client.tensorboard import TensorBoard, log_directory
from nimbus_hub.errors import Conflict, InvalidRequest, NotFound, Unavailable
from tests.unit import fake_service as fake
from tests.unit.fake_service import FakeService
from tests.unit.fake_tensorboard import SERVE, start_instead

PATH = "/api/v1/jobs/j1"


@pytest.fixture
def service() -> FakeService:
    return FakeService()


def test_it_is_seen_below_its_secret_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    monkeypatch.delenv("JUPYTERHUB_PUBLIC_URL", raising=False)
    start_instead(monkeypatch, SERVE)
    board = TensorBoard.start(tmp_path)
    assert len(board.secret) >= 32
    assert board.url == f"http://127.0.0.1:4321/{board.secret}/"
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    assert board.url == f"/user/ada/proxy/4321/{board.secret}/"
    assert board.secret not in repr(board)
    assert board.is_alive
    board.stop()
    assert not board.is_alive


def test_it_ends_when_its_starter_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = start_instead(monkeypatch, SERVE)
    TensorBoard.start(tmp_path)
    started[0].communicate(timeout=10)  # closes the pipe, as the end of its starter does
    assert started[0].returncode == 0


def test_it_listens_here_only_below_a_secret_path() -> None:
    assert tensorboard._options(Path("/logs"), 0, "s3cret") == [
        "--logdir", "/logs", "--host", "127.0.0.1", "--port", "0", "--path_prefix", "/s3cret",
        "--reload_interval", "2", "--load_fast", "false",
    ]  # fmt: skip


def test_one_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = start_instead(monkeypatch, "import sys; sys.exit('no protobuf')")
    with pytest.raises(Unavailable, match=r"TensorBoard did not start: no protobuf$"):
        TensorBoard.start(tmp_path)
    assert started[0].returncode is not None


def test_ctrl_c_during_the_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    started = start_instead(monkeypatch, SERVE)
    monkeypatch.setattr(select, "select", interrupted)
    with pytest.raises(KeyboardInterrupt):
        TensorBoard.start(tmp_path)
    assert started[0].returncode is not None


def test_without_tensorboard_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(InvalidRequest, match="pip install tensorboard"):
        TensorBoard.start(tmp_path)


class TakenError(Exception):
    """What TensorBoard raises when it cannot listen."""

    msg = "port 80 is in use"


class Program:
    """TensorBoard as its server process sees it."""

    def configure(self, argv: list[str]) -> None:
        self.argv = argv

    def launch(self) -> str:
        if "80" in self.argv:
            raise TakenError
        return f"http://{' '.join(self.argv)}"


def serve(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    module = types.ModuleType("tensorboard.program")
    module.__dict__.update(TensorBoard=Program, TensorBoardServerException=TakenError)
    monkeypatch.setitem(sys.modules, "tensorboard.program", module)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(options) + "\n"))
    tensorboard_server.main()


def test_the_server_answers_with_its_address_until_its_input_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(monkeypatch, "--port", "0")
    assert capsys.readouterr().out == "http://tensorboard --port 0\n"


def test_a_port_that_is_taken_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^port 80 is in use$"):
        serve(monkeypatch, "--port", "80")


def test_a_job_is_waited_for_until_it_starts(service: FakeService, tmp_path: Path) -> None:
    tmp_path.joinpath("events.out.tfevents.1").touch()
    first, second = (fake.job(state="queued", version=n, log_dir=None) for n in (1, 2))
    started = fake.job(version=3, log_dir=str(tmp_path))
    service.on("GET", PATH, first, first, second, started)
    news: list[Job] = []
    assert log_directory(service.client(), "j1", on_wait=news.append) == tmp_path
    assert [job.version for job in news] == [1, 2]


def test_data_is_waited_for_while_the_job_runs(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard, "_LOOK_SECONDS", 0)
    running = fake.job(log_dir=str(tmp_path))
    service.on("GET", PATH, running, running, fake.ended(log_dir=str(tmp_path)))
    assert log_directory(service.client(), "j1") == tmp_path
    assert len(service.requests) == 3
    service.on("GET", PATH, running)
    assert log_directory(service.client(), "j1") == tmp_path


def test_a_job_that_does_not_start_in_time_is_told(service: FakeService) -> None:
    service.on("GET", PATH, fake.job(state="queued", reason="waits for 2 GPUs", log_dir=None))
    sentence = r"^job j1 has not started yet, try again later: waits for 2 GPUs$"
    with pytest.raises(Conflict, match=sentence):
        log_directory(service.client(), "j1", timeout_seconds=0)


def test_a_directory_that_is_not_here_is_told(service: FakeService) -> None:
    service.on("GET", PATH, fake.ended(log_dir="/nowhere/logs"))
    with pytest.raises(NotFound, match=r"^job j1 has no directory /nowhere/logs on this machine"):
        log_directory(service.client(), "j1")
