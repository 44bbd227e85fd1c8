"""A job's output as it comes, without a line lost or doubled when the service restarts.

The stream tells offsets. After a lost connection it is opened again; what was seen already
is cut off, what is missing is fetched, so that each replica's bytes come once, in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from nimbus_hub.client.decoding import decode
from nimbus_hub.client.resources import Job, LogText
from nimbus_hub.client.sse import Message
from nimbus_hub.errors import Unavailable

if TYPE_CHECKING:
    from nimbus_hub.client.client import Client

__all__ = ["PATIENCE_SECONDS", "follow"]

PATIENCE_SECONDS = 120.0
"""How long a service may be away before following it fails."""


def follow(
    client: Client, job_id: str, tail: int | None, replica: str | None
) -> Iterator[LogText | Job]:
    """Yield output and changes of a job until it is over; its last state comes last."""
    following = _Following(client, job_id)
    last_id, is_first = "", True
    patience = client.transport.patience(PATIENCE_SECONDS)
    while True:
        # With a tail, the first stream starts late; a later one starts where that one ended.
        params = {"tail": tail if is_first else None, "replica": replica}
        try:
            path = f"/api/v1/jobs/{job_id}/logs/stream"
            for message in client.transport.stream(path, params, last_id):
                patience = client.transport.patience(PATIENCE_SECONDS)
                last_id, is_first = message.id or last_id, False
                yield from following.take(message)
            if following.last is not None:
                yield following.last
                return
            patience.wait(Unavailable(f"the output of job {job_id} ended before the job did"))
        except Unavailable as error:
            patience.wait(error)


class _Following:
    """What was seen of a job so far: bytes per replica and attempt, and its version."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client = client
        self._job_id = job_id
        self._seen: dict[tuple[str, int], int] = {}
        self._version = 0
        self.last: Job | None = None

    def take(self, message: Message) -> Iterator[LogText | Job]:
        """Yield what is new in a message; the ended job is kept for the end of the stream."""
        if message.event == "log":
            yield from self._take_log(decode(LogText, json.loads(message.data)))
        elif message.event == "job":
            job = decode(Job, json.loads(message.data))
            if job.is_ended:
                self.last = job
            elif job.version > self._version:
                self._version = job.version
                yield job

    def _take_log(self, log: LogText) -> Iterator[LogText]:
        key = (log.replica, log.attempt)
        seen = self._seen.get(key, log.offset)
        if log.offset == seen:
            self._seen[key] = log.next_offset
            yield log
        elif log.next_offset > seen:
            yield from self._fetch(log, seen)

    def _fetch(self, log: LogText, seen: int) -> Iterator[LogText]:
        """Yield the bytes from ``seen`` to the end of ``log``, which overlaps or leaves a gap."""
        key = (log.replica, log.attempt)
        content = log.text.encode()
        if log.offset < seen and len(content) == log.next_offset - log.offset:
            text = content[seen - log.offset :].decode(errors="replace")
            self._seen[key] = log.next_offset
            yield replace(log, offset=seen, text=text)
            return
        while seen < log.next_offset:
            found = self._client.logs(self._job_id, log.replica, offset=seen, attempt=log.attempt)
            if not found or found[0].next_offset <= seen:
                # The bytes before are kept no longer; what came is all there is.
                found = (log,)
            self._seen[key] = seen = found[0].next_offset
            yield found[0]
