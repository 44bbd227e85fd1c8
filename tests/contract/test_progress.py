"""The helper for user code, against a real server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from nimbus_hub.replica.progress import report


class Service(BaseHTTPRequestHandler):
    """Keeps what it is told; a message says with which status to answer."""

    told: ClassVar[list[tuple[str, str | None, object]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.told.append((self.path, self.headers["Authorization"], body))
        self.send_response(int(body["message"] or 200))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Stay quiet."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str | None, object]]]:
    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/services/nimbus"
    for name, value in (("API_URL", address), ("JOB_ID", "j-1"), ("TOKEN", "t")):
        monkeypatch.setenv(f"NIMBUS_{name}", value)
    Service.told.clear()
    yield Service.told
    server.shutdown()
    thread.join()
    server.server_close()


def test_progress_is_told_with_the_jobs_own_token(
    told: list[tuple[str, str | None, object]],
) -> None:
    assert report(0.5)
    assert report(7)
    path = "/services/nimbus/api/v1/jobs/j-1/progress"
    assert told == [
        (path, "token t", {"fraction": 0.5, "message": ""}),
        (path, "token t", {"fraction": 1.0, "message": ""}),
    ]


@pytest.mark.parametrize("answer", ["401", "500"])
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_refusal_does_not_fail_the_training(
    told: list[tuple[str, str | None, object]], answer: str
) -> None:
    assert not report(0.5, answer)
    assert len(told) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://[", "ftp://x"])
def test_a_service_that_is_not_there_does_not_fail_the_training(
    told: list[tuple[str, str | None, object]], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIMBUS_API_URL", url)
    assert not report(0.5)


@pytest.mark.parametrize(
    "value", ["much", None, float("nan"), 10**400], ids=["text", "none", "nan", "huge"]
)
def test_nonsense_does_not_fail_the_training(
    told: list[tuple[str, str | None, object]], value: float
) -> None:
    assert report(value) in {True, False}


@pytest.mark.parametrize("name", ["NIMBUS_API_URL", "NIMBUS_JOB_ID", "NIMBUS_TOKEN"])
def test_outside_of_a_job_it_does_nothing(
    told: list[tuple[str, str | None, object]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name)
    assert not report(0.5)
    assert told == []
