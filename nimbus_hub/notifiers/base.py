"""The contract of a way for notices to reach people.

A notifier is made once, when the service starts, from the operator's settings as keyword
arguments: what it does not take is refused, and InvalidRequest says what is wrong with a
value. It must not reach out before its first notice.
"""

from __future__ import annotations

from typing import Protocol

from nimbus_hub.model.notice import Notice

__all__ = ["Notifier", "NotifierError", "Undeliverable"]


class NotifierError(Exception):
    """A notice was not delivered now; another attempt may succeed. The text names no secret."""


class Undeliverable(NotifierError):
    """A notice was refused for good; it is not tried again."""


class Notifier(Protocol):
    """Delivers notices, one at a time, in a thread of its own."""

    def notify(self, notice: Notice) -> None:
        """Deliver a notice, or nothing if it has no way to its user. May block for seconds.

        Whatever is raised, it is tried again a few times, later each time, unless it is
        Undeliverable. A notice whose delivery was not seen to succeed may come twice.
        """
        ...
