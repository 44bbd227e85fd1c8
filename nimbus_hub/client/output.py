"""A job's output, taken in by a thread of its own.

Whoever waits for it can be interrupted, do something about it, and go on where it was.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue
from threading import Thread

from nimbus_hub.client.client import Client
from nimbus_hub.client.resources import Job, LogText
from nimbus_hub.errors import NimbusError

__all__ = ["Output"]


class Output:
    """Follows one job from when it is made; the ended job is the last that comes."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client = client
        self._job_id = job_id
        self._items = SimpleQueue[LogText | Job | NimbusError]()
        Thread(target=self._read, name=f"output-{job_id}", daemon=True).start()

    def next(self, timeout_seconds: float | None = None) -> LogText | Job | None:
        """Return what comes next, None if nothing did in time; raise what following it raised."""
        try:
            item = self._items.get(timeout=timeout_seconds)
        except Empty:
            return None
        if isinstance(item, NimbusError):
            raise item
        return item

    def _read(self) -> None:
        try:
            for item in self._client.follow(self._job_id):
                self._items.put(item)
        except NimbusError as error:
            self._items.put(error)
