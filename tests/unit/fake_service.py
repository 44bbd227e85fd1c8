"""The service as a table of answers, for tests of what talks to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from nimbus_hub.client import Client

URL = "http://hub.test/services/nimbus"
NOW = "2025-03-01T12:00:00Z"

Answer = httpx.Response | Exception | dict[str, Any] | Callable[[httpx.Request], httpx.Response]


class FakeService:
    """Answers by method and path; a list of answers is given out one by one."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[Answer]] = {}
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    def on(self, method: str, path: str, *answers: Answer) -> None:
        self.answers[method, path] = list(answers)

    def client(self) -> Client:
        return Client(URL, "secret", httpx.MockTransport(self._answer), self._wait)

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
        "framework": "script",
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
        "renewals": 0,
        "is_ended": False,
        "can_renew": True,
        "renewal_seconds": 7200.0,
        "warnings_seconds": [900, 300, 60],
        "now": NOW,
        "version": 4,
    } | changes


def plan(**changes: Any) -> dict[str, Any]:
    return {
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
        | {"lease_id": None, "lease_ids": []},
        {"index": 1, "model": "A100", "memory_bytes": 2**36, "free_milli": 0}
        | {"lease_id": "l1", "lease_ids": ["l1"]},
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
