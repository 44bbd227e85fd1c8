"""Logs over HTTP."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

from pydantic import Field
from tornado.iostream import StreamClosedError

from nimbus_hub.api import schemas
from nimbus_hub.api.handler import Operation, Query
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.jobs import JobBase
from nimbus_hub.api.streams import EventStreamHandler
from nimbus_hub.api.views import job_view, log_view
from nimbus_hub.control.logs import LogPart

__all__ = ["LogStreamHandler", "LogsHandler"]


_LEAST_BYTES = 4
_MOST_BYTES = 4 * 2**20
_TOGETHER_BYTES = 64 * 2**20
"""An answer is put together in memory; who wants more asks for one replica, or again."""


class LogsQuery(Query):
    """Which output to return; ``attempt`` 0 means all, none the present one."""

    replica: str | None = None
    offset: int = Field(default=0, ge=-(2**53), le=2**53)
    limit: int = Field(default=65536, ge=_LEAST_BYTES, le=_MOST_BYTES)
    attempt: int | None = Field(default=None, ge=0, le=1000)
    tail: int | None = Field(default=None, ge=0, le=100_000)


class StreamQuery(Query):
    """Which output to follow; ``tail`` leaves out all but the last lines of what there is."""

    replica: str | None = None
    tail: int | None = Field(default=None, ge=0, le=100_000)


class LogsHandler(JobBase):
    """Output as it is now."""

    operations = {
        "get": Operation("Read logs", Scope.READ, schemas.LogList, query=LogsQuery, for_jobs=True)
    }

    async def get(self, job_id: str) -> None:
        """Return output of one replica, or of all."""
        query = self.parse_query(LogsQuery)
        view = await self.own_left(job_id)
        logs = self.services.control.logs
        replicas = await logs.replicas(view.job, query.replica, query.attempt)
        share = max(_LEAST_BYTES, min(_MOST_BYTES, _TOGETHER_BYTES // max(1, len(replicas))))
        parts = [
            await logs.read(replica, query.offset, min(query.limit, share))
            if query.tail is None
            else await logs.tail(replica, query.tail, share)
            for replica in replicas
        ]
        self.reply(schemas.LogList(items=[log_view(part) for part in parts]))


class LogStreamHandler(JobBase, EventStreamHandler):
    """Output as it comes."""

    operations = {
        "get": Operation(
            "Follow logs",
            Scope.READ,
            schemas.LogText,
            query=StreamQuery,
            media="text/event-stream",
            for_jobs=True,
        )
    }

    async def get(self, job_id: str) -> None:
        """Send the job at each change and its output as it comes, until both are over."""
        query = self.parse_query(StreamQuery)
        view = await self.own_left(job_id)
        if query.replica is not None and view.replicas:
            await self.services.control.logs.replicas(view.job, query.replica, 0)
        self.open_stream()
        sending = asyncio.create_task(self._send_all(job_id, query))
        pinging = asyncio.create_task(self.ping_until_gone())
        try:
            with self.services.control.activity.following(view.job.owner):
                # A job may be silent for days: who is gone must not be waited for so long.
                await asyncio.wait({sending, pinging}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
        finally:
            sending.cancel()
            pinging.cancel()
            await asyncio.gather(sending, pinging, return_exceptions=True)

    async def _send_all(self, job_id: str, query: StreamQuery) -> None:
        follow = self.services.control.logs.follow(job_id, name=query.replica, tail=query.tail)
        with suppress(StreamClosedError):
            async with aclosing(follow):  # type: ignore[type-var]
                async for part in follow:
                    if isinstance(part, LogPart):
                        await self.send("log", log_view(part))
                    else:
                        await self.send("job", job_view(part))
