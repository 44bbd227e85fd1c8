"""TensorBoard in the notebook: what is shown, and that nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from nimbus_hub.magics.tensorboard import Frame, TensorBoards
from tests.unit.fake_tensorboard import SERVE, start_instead


def test_one_is_started_per_directory_and_again_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start_instead(monkeypatch, SERVE)
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


def test_the_frame_is_escaped() -> None:
    bundle = Frame("/user/ada/proxy/1/s/", Path('/logs/"><script>'), 500).bundle()
    assert bundle["text/plain"] == 'TensorBoard of /logs/"><script>: /user/ada/proxy/1/s/'
    html = str(bundle["text/html"])
    assert '<iframe src="/user/ada/proxy/1/s/"' in html
    assert 'height="500"' in html
    assert html.count("<script>") == 1
