"""The service as a table of answers, for tests of what talks to it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from nimbus_hub.client import Client
from nimbus_hub.client.http import Body, Broken, Unreachable

URL = "http://hub.test/services/nimbus"
NOW = "2025-03-01T12:00:00Z"

Answer = httpx.Response | Exception | dict[str, Any] | Callable[[httpx.Request], httpx.Response]


class FakeHttp:
    """Connections that end in a function."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self._answer = answer

    @contextlib.contextmanager
    def send(
        self, method: str, path: str, body: Body, headers: Mapping[str, str], seconds: float
    ) -> Iterator[FakeResponse]:
        try:
            request = httpx.Request(method, URL + path, headers=headers, content=body)
            answer = self._answer(request)
        except httpx.ConnectError as error:
            raise Unreachable(str(error)) from error
        except httpx.RequestError as error:
            raise Broken(str(error)) from error
        yield FakeResponse(answer)

    def close(self) -> None:
        """Nothing is open."""


class FakeResponse:
    """An answer in memory."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer
        self.status, self.reason = answer.status_code, answer.reason_phrase
        self.content_type = answer.headers.get("Content-Type", "")

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        try:
            yield from self._answer.iter_bytes()
        except httpx.RequestError as error:
            raise Broken(str(error)) from error


class FakeService:
    """Answers by method and path; a list of answers is given out one by one."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[Answer]] = {}
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    def on(self, method: str, path: str, *answers: Answer) -> None:
        self.answers[method, path] = list(answers)

    def client(self) -> Client:
        return Client(URL, "secret", FakeHttp(self._answer), self._wait)

    def calls(self) -> list[str]:
        return [f"{r.method} {r.url.raw_path.decode()}" for r in self.requests]

    def body(self, index: int = -1) -> Any:
        return json.loads(self.requests[index].content)

    def _wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return False

    def _answer(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        path = request.url.path.removeprefix("/services/nimbus")
        known = self.answers.get((request.method, path))
        if known is None:
            return error(404, "not_found", f"no {path}")
        answer = known.pop(0) if len(known) > 1 else known[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, dict):
            return httpx.Response(200, json=answer)
        return answer if isinstance(answer, httpx.Response) else answer(request)


def error(status: int, code: str, message: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": message})


def replica(rank: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"r{rank}",
        "name": f"worker-{rank}",
        "role": "worker",
        "rank": rank,
        "attempt": 1,
        "host": "node1",
        "state": "running",
        "exit_code": None,
        "reason": "",
        "started_at": NOW,
        "ended_at": None,
    } | changes


def job(**changes: Any) -> dict[str, Any]:
    return {
        "id": "j1",
        "name": "train",
        "owner": "ada",
        "lease_id": "l1",
        "gang": None,
        "framework": "script",
        "framework_reason": "",
        "argv": ["python", "-u", "train.py"],
        "state": "running",
        "reason": "",
        "reason_code": "",
        "note": "",
        "queue": "default",
        "priority": 0,
        "position": None,
        "starts_by": None,
        "placement": "",
        "attempt": 1,
        "attempts": 1,
        "preemptions": 0,
        "progress": None,
        "progress_message": "",
        "replicas": [replica()],
        "output_dir": None,
        "log_dir": None,
        "created_at": NOW,
        "started_at": NOW,
        "ended_at": None,
        "deleted_at": None,
        "deletion": "",
        "is_ended": False,
        "version": 3,
    } | changes


def ended(state: str = "succeeded", **changes: Any) -> dict[str, Any]:
    return job(state=state, is_ended=True, ended_at=NOW, version=9, **changes)


def slot(index: int = 0, host: str = "node1") -> dict[str, Any]:
    return {
        "name": f"worker-{index}",
        "role": "worker",
        "host": host,
        "address": "10.0.0.1",
        "cpus_milli": 1000,
        "memory_bytes": 2**31,
        "gpus": [0],
        "gpu_milli": 1000,
        "ports": [4000],
    }


def lease(**changes: Any) -> dict[str, Any]:
    group = {
        "role": "session",
        "count": 1,
        "cpus_milli": 2000,
        "memory_bytes": 2**32,
        "gpus": 1,
        "gpu_milli": 1000,
        "gpu_models": ["A100"],
        "topology": "pack",
    }
    return {
        "id": "l1",
        "kind": "session",
        "owner": "ada",
        "name": "",
        "parent": None,
        "size": "",
        "state": "active",
        "reason": "",
        "reason_code": "",
        "note": "",
        "environment": "default",
        "groups": [group],
        "queue": "default",
        "priority": 0,
        "is_preemptible": False,
        "datacenter": None,
        "inputs": [],
        "outputs": [],
        "expected_seconds": None,
        "step_bytes": None,
        "slots": [slot()],
        "placement": "",
        "length_seconds": 7200,
        "position": None,
        "starts_by": None,
        "created_at": NOW,
        "granted_at": NOW,
        "active_at": NOW,
        "expires_at": "2025-03-01T14:00:00Z",
        "latest_end": "2025-03-02T00:00:00Z",
        "ended_at": None,
        "cpu_seconds": 0.0,
        "gpu_seconds": 0.0,
        "opened": [],
        "renewals": 0,
        "is_ended": False,
        "can_renew": True,
        "renewal_seconds": 7200.0,
        "renewable_until": "2025-03-02T00:00:00Z",
        "renewals_left": 100,
        "warnings_seconds": [900, 300, 60],
        "idle_seconds": None,
        "idle_ends": False,
        "idle_since": None,
        "idle_warns_at": None,
        "idle_ends_at": None,
        "idle_reason": "",
        "now": NOW,
        "version": 4,
    } | changes


def gang(lease_changes: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return a ready gang of one parameter server and two workers with a GPU each."""
    size = {"cpus_milli": 1000, "memory_bytes": 2**31, "gpu_milli": 1000, "gpu_models": []}
    groups = [
        {"role": "ps", "count": 1, "gpus": 0, "topology": "spread"} | size,
        {"role": "worker", "count": 2, "gpus": 1, "topology": "pack"} | size,
    ]
    slots = [slot(0) | {"name": "ps-0", "role": "ps"}, slot(0), slot(1, "node2")]
    held = {"id": "l2", "kind": "debug", "name": "debug", "parent": "l1", "groups": groups}
    held |= {"slots": slots, "expires_at": "2025-03-01T13:00:00Z"}
    warm = [replica(0, id="h0", name="ps-0", role="ps"), *(replica(n, id=f"h{n}") for n in (1, 2))]
    return {
        "lease": lease(**held) | (lease_changes or {}),
        "job_id": "h1",
        "framework": "pytorch",
        "state": "ready",
        "reason": "",
        "replicas": warm,
        "run": None,
        "runs": 0,
        "version": 5,
    } | changes


def plan(**changes: Any) -> dict[str, Any]:
    return {
        "framework": "script",
        "framework_reason": "",
        "slots": [slot()],
        "hosts": [],
        "placement": "",
        "would_wait": False,
        "position": None,
        "reason": "",
        "reason_code": "",
        "starts_by": None,
        "sites": [],
        "preemptions": 0,
        "preempted_lease_ids": [],
    } | changes


def waiting(**changes: Any) -> dict[str, Any]:
    """Return a plan that would wait."""
    return plan(slots=[], would_wait=True, position=1, reason_code="resources") | changes


def pool(**changes: Any) -> dict[str, Any]:
    return {
        "model": "A100",
        "datacenter": "dc1",
        "total": 8,
        "free": 5,
        "shared": 1,
        "shared_free_milli": 500,
        "away": 0,
        "holders": [{"owner": "ada", "gpus_milli": 500}, {"owner": None, "gpus_milli": 2000}],
    } | changes


def host(**changes: Any) -> dict[str, Any]:
    gpus = [
        {"index": 0, "model": "A100", "memory_bytes": 2**36, "free_milli": 1000}
        | {"lease_id": None, "lease_ids": [], "fault": ""},
        {"index": 1, "model": "A100", "memory_bytes": 2**36, "free_milli": 0}
        | {"lease_id": "l1", "lease_ids": ["l1"], "fault": ""},
    ]
    return {
        "name": "node1",
        "datacenter": "dc1",
        "rack": "r1",
        "address": "10.0.0.1",
        "state": "up",
        "state_reason": "",
        "labels": {},
        "cpus_milli": 8000,
        "cpus_free_milli": 6500,
        "memory_bytes": 2**35,
        "memory_free_bytes": 2**34,
        "gpus": gpus,
    } | changes


def hosts(*items: dict[str, Any], error: str = "") -> dict[str, Any]:
    return {"items": list(items), "cluster_file_error": error}


def log(text: str, offset: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "replica": "worker-0",
        "attempt": 1,
        "offset": offset,
        "next_offset": offset + len(text.encode()),
        "text": text,
        "is_complete": False,
    } | changes


def file(path: str, size: int) -> dict[str, Any]:
    version = f"{path}-{size}"
    return {
        "path": path,
        "size_bytes": size,
        "changed_at": NOW,
        "version": version,
        "host": "node1",
    }


def stream(*events: dict[str, Any], is_cut: bool = False) -> httpx.Response:
    """Return server-sent events: jobs and logs; ``is_cut`` loses the connection after them."""

    def chunks() -> Iterator[bytes]:
        yield b": ping\n\n"
        for data in events:
            name = "log" if "text" in data else "job"
            text = json.dumps(data, ensure_ascii=False)
            yield f"event: {name}\ndata: {text}\n\n".encode()
        if is_cut:
            yield b'event: log\ndata: {"half":'
            raise httpx.ReadError("connection reset")

    return httpx.Response(200, content=chunks())
