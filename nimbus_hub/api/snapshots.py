"""Working directories over HTTP: a manifest first, then only the files not here yet."""

from __future__ import annotations

import tempfile
from typing import BinaryIO, cast

from tornado.http1connection import HTTP1Connection
from tornado.web import stream_request_body

from nimbus_hub.api import requests, schemas
from nimbus_hub.api.handler import ApiHandler, Operation
from nimbus_hub.api.identity import Scope
from nimbus_hub.errors import TooLarge
from nimbus_hub.model.quantities import format_memory
from nimbus_hub.model.snapshot import SnapshotFile

__all__ = ["SnapshotFilesHandler", "SnapshotsHandler"]

_TAR_OVERHEAD = 1.1
_SPOOL_BYTES = 4 * 2**20
_MANIFEST_BYTES = 64 * 2**20


class SnapshotsHandler(ApiHandler):
    """Manifests."""

    operations = {
        "post": Operation(
            "Name a working directory",
            Scope.USE,
            schemas.Snapshot,
            body=requests.SnapshotRequest,
            most_bytes=_MANIFEST_BYTES,
        )
    }

    async def post(self) -> None:
        """Record a manifest if all its files are here; tell which are missing."""
        request = self.parse_body(requests.SnapshotRequest)
        files = tuple(
            SnapshotFile(file.path, file.size, file.digest, file.is_executable)
            for file in request.files
        )
        snapshots = self.services.control.snapshots
        digest, missing = await snapshots.commit(self.caller.name, files)
        self.reply(schemas.Snapshot(digest=digest, missing=list(missing)))


@stream_request_body
class SnapshotFilesHandler(ApiHandler):
    """Contents."""

    operations = {
        "put": Operation("Upload missing files", Scope.USE, status=204, takes="application/x-tar")
    }

    _file: BinaryIO | None = None

    async def prepare(self) -> None:
        """Check who calls before a byte is read."""
        limit = round(self.services.control.snapshots.size_limit_bytes * _TAR_OVERHEAD) + 2**20
        if isinstance(self.request.connection, HTTP1Connection):
            self.request.connection.set_max_body_size(limit)
        await super().prepare()
        length = self.request.headers.get("Content-Length", "0")
        if length.isdecimal() and int(length) > limit:
            raise TooLarge(f"an upload must be at most {format_memory(limit)}, got {length} bytes")
        spool = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 - see on_finish()
        self._file = cast(BinaryIO, spool)

    def data_received(self, chunk: bytes) -> None:
        """Keep a part of the body."""
        if self._file is not None:
            self._file.write(chunk)

    async def put(self) -> None:
        """Keep files by their digests."""
        assert self._file is not None
        self._file.seek(0)
        await self.services.control.snapshots.add_tar(self.caller.name, self._file)
        self.set_status(204)

    def on_finish(self) -> None:
        """Drop the upload."""
        if self._file is not None:
            self._file.close()
