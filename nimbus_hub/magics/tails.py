"""The last lines of each replica's output, put together from a log stream.

A stream that breaks and is opened again repeats itself: what is known already, by its
offsets, is left out. Only the newest attempt counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nimbus_hub.client.resources import LogText

__all__ = ["Tails"]

_MOST_CHARACTERS = 100_000


@dataclass(slots=True)
class _Tail:
    attempt: int
    next_offset: int
    text: str


@dataclass(slots=True)
class Tails:
    """Keeps ``lines`` lines per replica."""

    lines: int = 200
    _by_replica: dict[str, _Tail] = field(default_factory=dict)

    def add(self, item: LogText) -> str:
        """Take in a piece of output and return what of it is new."""
        tail = self._by_replica.get(item.replica)
        if tail is None or item.attempt > tail.attempt:
            tail = self._by_replica[item.replica] = _Tail(item.attempt, item.offset, "")
        if item.attempt < tail.attempt or item.next_offset <= tail.next_offset:
            return ""
        known = max(0, tail.next_offset - item.offset)
        new = item.text.encode()[known:].decode(errors="replace") if known else item.text
        tail.text = self._shortened(tail.text + new)
        tail.next_offset = item.next_offset
        return new

    def text(self, replica: str) -> str:
        """Return the last lines of a replica, nothing if it has written none."""
        tail = self._by_replica.get(replica)
        return _as_a_terminal_shows(tail.text) if tail else ""

    def _shortened(self, text: str) -> str:
        lines = text[-_MOST_CHARACTERS:].split("\n")
        return "\n".join(lines[-self.lines - 1 :])


def _as_a_terminal_shows(text: str) -> str:
    """Keep of each line what follows its last carriage return, as progress bars want it."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
