"""Server-sent events (HTML standard, section 9.2): one format for every stream."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from nimbus_hub.api.handler import ApiHandler
from nimbus_hub.api.schemas import Response
from nimbus_hub.errors import Forbidden, Unauthenticated, Unavailable

__all__ = ["PING_SECONDS", "EventStreamHandler"]

PING_SECONDS = 4.0
CHECK_SECONDS = 60.0
"""A stream outlives its first request; its reader may be removed meanwhile."""


class EventStreamHandler(ApiHandler):
    """Answers with events, and notices when the reader is gone."""

    gone: asyncio.Event
    _checked: float

    def open_stream(self) -> None:
        """Begin the answer."""
        self.gone = asyncio.Event()
        self._checked = asyncio.get_running_loop().time()
        self.set_header("Content-Type", "text/event-stream")
        # nginx and the like would hold events back.
        self.set_header("X-Accel-Buffering", "no")
        # Else the kernel keeps a small event until the one before it is acknowledged: 40 ms.
        connection = self.request.connection
        if isinstance(connection, HTTP1Connection):
            connection.stream.set_nodelay(True)

    async def send(self, name: str, data: Response | str, event_id: int | None = None) -> None:
        """Send one event; raise StreamClosedError when nobody reads, or may read, any more."""
        await self._check()
        text = data if isinstance(data, str) else data.model_dump_json()
        if event_id is not None:
            self.write(f"id: {event_id}\n")
        self.write(f"event: {name}\ndata: {text}\n\n")
        await self.flush()

    async def ping(self) -> None:
        """Send a comment, so that nobody between takes the stream for dead."""
        await self._check()
        self.write(": ping\n\n")
        await self.flush()

    async def ping_until_gone(self) -> None:
        """Ping from time to time; return when the reader is gone."""
        with suppress(StreamClosedError):
            while not self.gone.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(PING_SECONDS):
                        await self.gone.wait()
                await self.ping()

    async def _check(self) -> None:
        """Raise StreamClosedError if the caller's token is not what it was at the start."""
        now = asyncio.get_running_loop().time()
        if self.operation.scope is None or now - self._checked < CHECK_SECONDS:
            return
        self._checked = now
        with suppress(Unavailable):  # the hub is being restarted
            try:
                is_same = await self.authorized(self.operation.scope) == self.caller
            except (Forbidden, Unauthenticated):
                is_same = False
            if not is_same:
                self.gone.set()
                raise StreamClosedError

    def on_connection_close(self) -> None:
        """Note that the reader is gone."""
        self.gone.set()

    def log_exception(self, typ: object, value: object, tb: object) -> None:
        """Pass over readers that went away."""
        if not isinstance(value, StreamClosedError):
            super().log_exception(typ, value, tb)
