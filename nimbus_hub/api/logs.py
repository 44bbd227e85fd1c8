"""Logs over HTTP."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from pydantic import Field
from tornado.iostream import StreamClosedError

from nimbus_hub.api import schemas
from nimbus_hub.api.handler import Operation, Query
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.jobs import JobBase
from nimbus_hub.api.streams import PING_SECONDS, EventStreamHandler
from nimbus_hub.api.views import job_view, log_view
from nimbus_hub.control.logs import LogPart

__all__ = ["LogStreamHandler", "LogsHandler"]


class LogsQuery(Query):
    """Which output to return; ``attempt`` 0 means all, none the present one."""

    replica: str | None = None
    offset: int = Field(default=0, ge=-(2**53), le=2**53)
    limit: int = Field(default=65536, ge=4, le=4 * 2**20)
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
        view = await self.own(job_id)
        logs = self.services.control.logs
        replicas = await logs.replicas(view.job, query.replica, query.attempt)
        parts = [
            await logs.read(replica, query.offset, query.limit)
            if query.tail is None
            else await logs.tail(replica, query.tail)
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
        view = await self.own(job_id)
        if query.replica is not None and view.replicas:
            await self.services.control.logs.replicas(view.job, query.replica, 0)
        self.open_stream()
        follow = self.services.control.logs.follow(job_id, name=query.replica, tail=query.tail)
        pings = asyncio.create_task(self._pings())
        try:
            async with aclosing(follow):  # type: ignore[type-var]
                async for part in follow:
                    if self.gone.is_set():
                        return
                    if isinstance(part, LogPart):
                        await self.send("log", log_view(part))
                    else:
                        await self.send("job", job_view(part))
        except StreamClosedError:
            return
        finally:
            pings.cancel()

    async def _pings(self) -> None:
        while not self.gone.is_set():
            await asyncio.sleep(PING_SECONDS)
            try:
                await self.ping()
            except StreamClosedError:
                self.gone.set()
