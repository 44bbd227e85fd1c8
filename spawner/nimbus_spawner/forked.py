"""A session's server that a fork server started: the hub's side of what `forkserver` says."""

from __future__ import annotations

import asyncio
import json
import select
import socket
from collections.abc import Mapping
from typing import Any

from nimbus_hub.up.processes import ProcessRecord

__all__ = ["Forked", "NoAnswer", "NotForked"]

_CLAIM_SECONDS = 5.0
_EXIT_SECONDS = 1.0
_LINE_BYTES = 65536


class NotForked(Exception):
    """A session was not started by a fork server; the reason is its text."""


class NoAnswer(NotForked):
    """The fork server did not even say so."""


class Forked:
    """The server of a session that a fork server started and waits for."""

    def __init__(self, own: socket.socket) -> None:
        own.setblocking(False)
        self._own = own
        self._record = ProcessRecord(0, 0.0)
        self._rest = b""
        self._exit_code: int | None = None

    @property
    def pid(self) -> int:
        """Return the process's number."""
        return self._record.pid

    async def claim(self, claim: Mapping[str, Any]) -> bool:
        """Have it become a session's server; tell whether its python was out of date."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CLAIM_SECONDS):
                await loop.sock_sendall(self._own, json.dumps(claim).encode() + b"\n")
                answer: dict[str, Any] = {}
                while not {"pid", "claimed"} <= set(answer):
                    part = await loop.sock_recv(self._own, _LINE_BYTES)
                    if not part:
                        raise NotForked("the fork server has gone")
                    for message in self._messages(part):
                        answer |= message
                    if "error" in answer:
                        raise NotForked(answer["error"])
                # From here on it is somebody's, who knows its pid.
                self._own.send(b"\n")
        except TimeoutError:
            raise NoAnswer(f"no answer within {_CLAIM_SECONDS:g} s") from None
        except OSError as error:
            raise NotForked(str(error)) from error
        self._record = ProcessRecord.of(int(answer["pid"]))
        return bool(answer["is_stale"])

    def poll(self) -> int | None:
        """Return None while it runs, else its exit code; 0 if nobody knows it."""
        if self._exit_code is None:
            is_alive = self._record.is_alive
            self._listen(0 if is_alive else _EXIT_SECONDS)
            if self._exit_code is None and not is_alive:
                self._exit_code = 0
        return self._exit_code

    def close(self) -> None:
        """Hear no more of it; a process that was not claimed ends."""
        self._own.close()

    def _listen(self, seconds: float) -> None:
        """Hear of its end, which the fork server tells as soon as it knows."""
        if self._own.fileno() < 0:
            return
        poll = select.poll()
        poll.register(self._own, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return
        try:
            part = self._own.recv(_LINE_BYTES)
        except OSError:
            part = b""
        if not part:
            self._own.close()
        for message in self._messages(part):
            self._exit_code = message.get("exit", self._exit_code)

    def _messages(self, part: bytes) -> list[dict[str, Any]]:
        *lines, self._rest = (self._rest + part).split(b"\n")
        return [json.loads(line) for line in lines]
