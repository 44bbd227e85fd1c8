"""TensorBoard: what is started, what is shown, and that nothing is left.

The tests start a stand-in for TensorBoard as a real process: that it ends with the pipe is
the point.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from nimbus_hub.errors import InvalidRequest, Unavailable
from nimbus_hub.magics import tensorboard
from nimbus_hub.magics.tensorboard import Frame, TensorBoards

STAND_IN = """
import json, sys
options = json.loads(sys.stdin.readline())
prefix = options[options.index("--path_prefix") + 1]
print(f"http://127.0.0.1:4321{prefix}/", flush=True)
sys.stdin.read()
"""


def start_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> list[subprocess.Popen[bytes]]:
    started = []
    popen = subprocess.Popen

    def start(argv: list[str], **settings: object) -> subprocess.Popen[bytes]:
        assert argv == [sys.executable, "-P", "-m", "nimbus_hub.magics.tensorboard_server"]
        assert settings["start_new_session"]
        process = popen([sys.executable, "-c", program], **settings)  # type: ignore[call-overload]
        started.append(process)
        return process

    monkeypatch.setattr(tensorboard.subprocess, "Popen", start)
    return started


def test_one_is_started_per_directory_and_again_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start_instead(monkeypatch, STAND_IN)
    boards = TensorBoards(lambda port: f"/user/ada/proxy/{port}/")
    one, again = boards.show(tmp_path, 800), boards.show(tmp_path / ".", 600)
    assert one.path == again.path
    assert one.path.startswith("/user/ada/proxy/4321/")
    assert len(one.path) > len("/user/ada/proxy/4321/") + 30
    assert len(started) == 1
    started[0].terminate()
    started[0].wait(timeout=10)
    other = boards.show(tmp_path, 800)
    assert len(started) == 2
    assert other.path != one.path
    boards.close()
    boards.close()
    assert started[1].poll() is not None


def test_it_ends_when_the_kernel_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = start_instead(monkeypatch, STAND_IN)
    TensorBoards(str).show(tmp_path, 800)
    started[0].communicate(timeout=10)  # closes the pipe, as the end of the kernel does
    assert started[0].returncode == 0


def test_it_listens_here_only_below_a_secret_path() -> None:
    assert tensorboard._options(Path("/logs"), "s3cret") == [
        "--logdir", "/logs", "--host", "127.0.0.1", "--port", "0", "--path_prefix", "/s3cret",
        "--reload_interval", "2", "--load_fast", "false",
    ]  # fmt: skip


def test_one_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_instead(monkeypatch, "import sys; sys.exit('no protobuf')")
    with pytest.raises(Unavailable, match=r"TensorBoard did not start: no protobuf$"):
        TensorBoards(str).show(tmp_path, 800)


def test_without_tensorboard_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(InvalidRequest, match="pip install tensorboard"):
        TensorBoards(str).show(tmp_path, 800)


def test_the_frame_is_escaped() -> None:
    bundle = Frame("/user/ada/proxy/1/s/", Path('/logs/"><script>'), 500).bundle()
    assert bundle["text/plain"] == 'TensorBoard of /logs/"><script>: /user/ada/proxy/1/s/'
    html = str(bundle["text/html"])
    assert '<iframe src="/user/ada/proxy/1/s/"' in html
    assert 'height="500"' in html
    assert html.count("<script>") == 1
