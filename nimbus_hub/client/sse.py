"""Server-sent events, as the HTML standard's "interpreting an event stream" says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["Message", "messages"]


@dataclass(frozen=True, slots=True)
class Message:
    """One event; ``id`` is the last one sent, to go on from after a reconnect."""

    event: str
    data: str
    id: str = ""


def messages(chunks: Iterable[bytes]) -> Iterator[Message]:
    """Yield the events of a stream; one that is cut off in the middle is dropped."""
    event, data, last_id = "message", list[str](), ""
    for line in _lines(chunks):
        if not line:
            if data:
                yield Message(event, "\n".join(data), last_id)
            event, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            event = value
        elif field == "id":
            last_id = value


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Split at line feeds only: str.splitlines would also split at U+2028 in a log's text."""
    pending = b""
    for chunk in chunks:
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
