"""Server-sent events (HTML standard, section 9.2): one format for every stream."""

from __future__ import annotations

import asyncio

from tornado.iostream import StreamClosedError

from nimbus_hub.api.handler import ApiHandler
from nimbus_hub.api.schemas import Response

__all__ = ["PING_SECONDS", "EventStreamHandler"]

PING_SECONDS = 4.0


class EventStreamHandler(ApiHandler):
    """Answers with events, and notices when the reader is gone."""

    gone: asyncio.Event

    def open_stream(self) -> None:
        """Begin the answer."""
        self.gone = asyncio.Event()
        self.set_header("Content-Type", "text/event-stream")
        # nginx and the like would hold events back.
        self.set_header("X-Accel-Buffering", "no")

    async def send(self, name: str, data: Response | str, event_id: int | None = None) -> None:
        """Send one event; raise StreamClosedError when nobody reads any more."""
        text = data if isinstance(data, str) else data.model_dump_json()
        if event_id is not None:
            self.write(f"id: {event_id}\n")
        self.write(f"event: {name}\ndata: {text}\n\n")
        await self.flush()

    async def ping(self) -> None:
        """Send a comment, so that nobody between takes the stream for dead."""
        self.write(": ping\n\n")
        await self.flush()

    def on_connection_close(self) -> None:
        """Note that the reader is gone."""
        self.gone.set()

    def log_exception(self, typ: object, value: object, tb: object) -> None:
        """Pass over readers that went away."""
        if not isinstance(value, StreamClosedError):
            super().log_exception(typ, value, tb)
