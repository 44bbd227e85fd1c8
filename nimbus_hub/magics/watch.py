"""A thread that knows how a job is: its state and the tails of its output.

It ends with the job. A service that is restarted meanwhile is asked again; what it had
told before is not taken in twice.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

from nimbus_hub.client import Client, resources
from nimbus_hub.errors import NimbusError, Unavailable
from nimbus_hub.magics.tails import Tails

__all__ = ["Watch"]

_PAUSES_SECONDS = (0.5, 1.0, 2.0, 5.0)


class Watch:
    """Follows one job; ``changed`` is called after each change, in the watch's thread."""

    def __init__(self, client: Client, job: resources.Job, changed: Callable[[], None]) -> None:
        """Prepare to follow ``job``; nothing happens before ``start``."""
        self._client = client
        self._changed = changed
        self._failures = 0
        self._thread = Thread(target=self._run, name=f"nimbus-{job.id}", daemon=True)
        self.job = job
        self.tails = Tails()
        self.trouble = ""
        self.is_over = False

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def join(self, timeout_seconds: float | None = None) -> None:
        """Wait until the watch is over."""
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        never = Event()
        while not self._follow():
            never.wait(_PAUSES_SECONDS[min(self._failures, len(_PAUSES_SECONDS) - 1)])
            self._failures += 1
        self.is_over = True
        self._changed()

    def _follow(self) -> bool:
        """Follow until the stream ends; return whether that was the end of the job."""
        try:
            for item in self._client.follow(self.job.id, tail=self.tails.lines):
                self._take(item)
        except Unavailable as error:
            self._report(f"{error.message} Trying again.")
        except NimbusError as error:
            self._report(error.message)
            return True
        return self.job.is_ended

    def _take(self, item: resources.Job | resources.LogText) -> None:
        if isinstance(item, resources.LogText):
            self.tails.add(item)
        else:
            self.job = item
        self._failures, self.trouble = 0, ""
        self._changed()

    def _report(self, trouble: str) -> None:
        self.trouble = trouble
        self._changed()
