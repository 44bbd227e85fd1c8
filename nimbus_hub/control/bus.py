"""The bus: tells whoever listens that a lease or a job was written.

Publishing never waits. A listener that does not keep up loses the oldest changes, and is
told so by :attr:`Subscription.is_behind`; what it needs is in the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease

__all__ = ["Bus", "Change", "Subscription", "Warned", "WarningKind", "deadline"]

_BACKLOG = 1000


class WarningKind(StrEnum):
    """Why a lease is warned of."""

    END = "end"
    """Its time runs out."""
    IDLE = "idle"
    """Nothing happens on it."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A lease ends in ``seconds``; people should hear of it, with the reason if there is one.

    One that is only told to be idle ends as it would have.
    """

    lease: Lease
    seconds: int
    kind: WarningKind = WarningKind.END
    reason: str = ""


Change = Lease | Job | Warned
Wanted = Callable[[Change], bool]


@dataclass(slots=True)
class Subscription:
    """Changes that one listener wants, oldest first."""

    wanted: Wanted
    is_behind: bool = False
    _changes: deque[Change] = field(default_factory=deque)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_empty(self) -> bool:
        """Tell whether everything that came was taken."""
        return not self._changes

    def put(self, change: Change) -> None:
        """Keep a change for the listener."""
        if len(self._changes) >= _BACKLOG:
            self._changes.popleft()
            self.is_behind = True
        self._changes.append(change)
        self._arrived.set()

    async def get(self, timeout_seconds: float) -> Change | None:
        """Return the next change, or None when there was none in time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self._changes:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return None
        return self._changes.popleft()


def deadline(seconds: float) -> Callable[[], float]:
    """Return what tells the seconds that are left, from now on, never less than 0."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    return lambda: max(0.0, end - loop.time())


class Bus:
    """Hands each published change to every subscription that wants it."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []

    def publish(self, change: Change) -> None:
        """Tell a change to all who want it."""
        for subscription in self._subscriptions:
            if subscription.wanted(change):
                subscription.put(change)

    @contextmanager
    def subscribe(self, wanted: Wanted) -> Iterator[Subscription]:
        """Listen to changes for as long as the context lasts."""
        subscription = Subscription(wanted)
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
