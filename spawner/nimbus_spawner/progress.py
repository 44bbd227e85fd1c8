"""What the progress page shows while a session starts: told once, read by any number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from nimbus_hub.client.explain import detail_text, utc_moment, waiting_text
from nimbus_hub.client.resources import Lease
from nimbus_hub.model.quantities import format_duration

__all__ = ["ProgressLog", "waiting_message"]


class ProgressLog:
    """The events of one start."""

    def __init__(self) -> None:
        self._events: list[dict[str, int | str]] = []
        self._more = asyncio.Event()
        self._is_over = False

    def tell(self, progress: int, message: str) -> None:
        """Add an event unless it says what the last one said."""
        event: dict[str, int | str] = {"progress": progress, "message": message}
        if self._events[-1:] != [event]:
            self._events.append(event)
            self._wake()

    def close(self) -> None:
        """Say that no event will follow."""
        self._is_over = True
        self._wake()

    async def follow(self) -> AsyncIterator[dict[str, int | str]]:
        """Yield all events from the first on, as they come, until the log is closed."""
        seen = 0
        while True:
            more = self._more
            while seen < len(self._events):
                seen += 1
                yield self._events[seen - 1]
            if self._is_over and seen == len(self._events):
                return
            if more is self._more:
                await more.wait()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()


def waiting_message(lease: Lease) -> str:
    """Return where a lease stands in the queue, why, and when it starts at the latest."""
    said = waiting_text(lease, lambda moment: _utc(moment, lease))
    return f"Waiting{detail_text(said)}."


def _utc(moment: datetime, lease: Lease) -> str:
    """Write a time for readers whose zone nobody here knows, and how far away it is."""
    left = format_duration(max(timedelta(0), moment - lease.now))
    return f"{utc_moment(moment, lease.now)}, in {left}"
