"""The files of jobs over HTTP."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from urllib.parse import quote

from pydantic import Field
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from nimbus_hub.api.handler import Operation, Query
from nimbus_hub.api.identity import Scope
from nimbus_hub.api.jobs import JobBase
from nimbus_hub.api.schemas import Response
from nimbus_hub.control.files import FoundFile
from nimbus_hub.errors import NimbusError

__all__ = ["File", "FileHandler", "FileList", "FilesHandler"]


class File(Response):
    """A file that a job has written, by its path from the job's directory: ``output/model.pt``.

    ``version`` is another text whenever the file has changed.
    """

    path: str
    size_bytes: int
    changed_at: datetime
    version: str
    host: str


class FileList(Response):
    """Files in order of their paths; ``is_whole`` is false if there are more."""

    items: list[File]
    is_whole: bool


class FilesQuery(Query):
    """Which files to list: those at or below a path, like ``output``; none: all."""

    path: str = Field(default="", max_length=4096)
    replica: str | None = None
    limit: int = Field(default=1000, ge=1, le=10_000)


class FileQuery(Query):
    """Which bytes to return; ``limit`` none: to the end. With ``version`` only of that."""

    replica: str | None = None
    offset: int = Field(default=0, ge=0, le=2**53)
    limit: int | None = Field(default=None, ge=1, le=2**53)
    version: str | None = None


class FilesHandler(JobBase):
    """What a job has written."""

    operations = {
        "get": Operation("List files", Scope.READ, FileList, query=FilesQuery, for_jobs=True)
    }

    async def get(self, job_id: str) -> None:
        """List files below output, logs and checkpoints, also after the end."""
        query = self.parse_query(FilesQuery)
        view = await self.own_left(job_id)
        files = self.services.control.files
        path = query.path.strip("/")
        found, is_whole = await files.find(view.job, path, query.replica, query.limit)
        self.reply(FileList(items=[_file_view(one) for one in found], is_whole=is_whole))


class FileHandler(JobBase):
    """One file."""

    operations = {
        "get": Operation(
            "Read a file",
            Scope.READ,
            query=FileQuery,
            media="application/octet-stream",
            for_jobs=True,
        )
    }

    async def get(self, job_id: str, path: str) -> None:
        """Send bytes of a file; a file that changes meanwhile breaks the connection off."""
        query = self.parse_query(FileQuery)
        view = await self.own_left(job_id)
        parts = self.services.control.files.read(
            view.job,
            path,
            replica=query.replica,
            offset=query.offset,
            limit=query.limit,
            version=query.version,
        )
        async with aclosing(parts):  # type: ignore[type-var]
            first = await anext(parts)
            left = max(0, first.file.size_bytes - query.offset)
            name = quote(path.rpartition("/")[2])
            self.set_header("Content-Type", self.operation.media)
            self.set_header("Content-Disposition", f"attachment; filename*=UTF-8''{name}")
            self.set_header("Content-Length", str(min(left, query.limit or left)))
            self.set_header("ETag", f'"{first.file.version}"')
            self.write(first.data)
            try:
                await self.flush()
                async for part in parts:
                    self.write(part.data)
                    await self.flush()
            except StreamClosedError:
                return
            except NimbusError:
                # Too late to say so: who reads sees that bytes are missing.
                self._break_off()

    def _break_off(self) -> None:
        if isinstance(self.request.connection, HTTP1Connection):
            self.request.connection.close()


def _file_view(found: FoundFile) -> File:
    """Show a file of a job."""
    file = found.file
    return File(
        path=file.path,
        size_bytes=file.size_bytes,
        changed_at=file.changed_at,
        version=file.version,
        host=found.host,
    )
