"""A kernel of a session, reached through the proxy as a page reaches it."""

from __future__ import annotations

import json
import uuid
from typing import Any, Self

import websocket

from tests.hub.conftest import User

__all__ = ["Kernel"]

_ANSWER_SECONDS = 60


class Kernel:
    """One that runs until it is ended; as a context manager it is disconnected from."""

    def __init__(self, user: User) -> None:
        """Start it, or raise what the way to it answers."""
        asked = user.api("POST", f"/users/{user.name}/tokens", json={"expires_in": 600})
        self._headers = {"Authorization": f"token {asked.json()['token']}"}
        self._user = user
        answer = user.http.post(f"/user/{user.name}/api/kernels", headers=self._headers, json={})
        assert answer.status_code == 201, answer.text
        self._path = f"/user/{user.name}/api/kernels/{answer.json()['id']}"
        self._connect()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the connection; the kernel goes on."""
        self.disconnect()

    def again(self) -> Self:
        """Connect again; it went on meanwhile."""
        self._connect()
        return self

    def _connect(self) -> None:
        url = f"{self._user.hub.url.replace('http', 'ws')}{self._path}/channels"
        self._socket = websocket.create_connection(
            url, header=self._headers, timeout=_ANSWER_SECONDS
        )

    def send(self, code: str) -> str:
        """Have it run a cell; return the id of the request."""
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
        content = {"code": code, "silent": False}
        parts = {"parent_header": {}, "metadata": {}, "channel": "shell", "buffers": []}
        self._socket.send(json.dumps({"header": header, "content": content, **parts}))
        return header["msg_id"]

    def message(self, request: str) -> dict[str, Any]:
        """Return the next message that answers a request."""
        while True:
            message: dict[str, Any] = json.loads(self._socket.recv())
            if message["parent_header"].get("msg_id") == request:
                return message

    def run(self, code: str) -> str:
        """Run a cell to its end; return what it prints."""
        request, printed = self.send(code), ""
        while True:
            message = self.message(request)
            content = message["content"]
            assert message["msg_type"] != "error", "\n".join(content["traceback"])
            if message["msg_type"] == "stream":
                printed += content["text"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return printed.strip()

    def disconnect(self) -> None:
        """Close the connection, as a page does that is closed."""
        self._socket.close()

    def end(self) -> None:
        """End the kernel."""
        self.disconnect()
        self._user.http.delete(self._path, headers=self._headers)
