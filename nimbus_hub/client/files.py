"""The files that jobs have written, brought here: whole, in pieces, and never half."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from nimbus_hub.client.decoding import decode
from nimbus_hub.client.resources import File, FileList
from nimbus_hub.client.transport import Transport
from nimbus_hub.errors import Conflict, InvalidRequest, TooLarge

__all__ = ["FileCalls", "Progress", "job_path"]

Progress = Callable[[int, int], None]
"""Called with the bytes that are done and the bytes there are."""

_MOST_FILES = 10_000
_PIECE_BYTES = 8 * 2**20
_TRIES = 3
_ROOTS = ("output", "logs", "checkpoints")


class FileCalls:
    """The calls of `Client` that are about the files of jobs.

    A path that does not begin with output, logs or checkpoints is one in output. Of a job on
    several hosts that of the last attempt's lowest rank is meant where paths are the same, or
    that on the host of ``replica``.
    """

    transport: Transport

    def files(
        self, job_id: str, path: str = "", replica: str | None = None, limit: int = _MOST_FILES
    ) -> FileList:
        """Return what a job has written: all, or what is at or below a path like ``logs``."""
        params = {"path": job_path(path), "replica": replica, "limit": limit}
        return decode(FileList, self.transport.request("GET", _files(job_id), params=params))

    def read_file(
        self,
        job_id: str,
        path: str,
        offset: int = 0,
        limit: int | None = None,
        *,
        version: str | None = None,
        replica: str | None = None,
    ) -> bytes:
        """Return bytes of a file of a job; raise Conflict if it is not of ``version``."""
        params = {"offset": offset, "limit": limit, "version": version, "replica": replica}
        target = f"{_files(job_id)}/{quote(job_path(path), safe='/')}"
        return bytes(self.transport.request("GET", target, params=params))

    def download(
        self,
        job_id: str,
        path: str,
        target: Path | str = ".",
        *,
        replica: str | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Bring a file or directory of a job here, as ``cp -r`` would; return where it is.

        One that changes meanwhile is begun anew, and raises Conflict if it does so again and
        again.
        """
        wanted, place = job_path(path), Path(target)
        if place.is_dir():
            place /= PurePosixPath(wanted).name or job_id
        copy = _Copy(self, job_id, wanted, place, replica, progress)
        for _ in range(_TRIES - 1):
            with contextlib.suppress(Conflict):
                copy.make()
                return place
        copy.make()
        return place


def job_path(path: str) -> str:
    """Return a path from the job's directory: what names no directory of it is in ``output``."""
    parts = PurePosixPath(path.strip("/")).parts
    is_named = not parts or parts[0] in _ROOTS
    return "/".join(parts if is_named else ("output", *parts))


@dataclass(frozen=True, slots=True)
class _Copy:
    """A file or directory of a job, to be copied to a place here."""

    calls: FileCalls
    job_id: str
    path: str
    place: Path
    replica: str | None
    progress: Progress | None

    def make(self) -> None:
        """Copy; each file appears whole or not at all."""
        found = self.calls.files(self.job_id, self.path, self.replica)
        if not found.is_whole:
            raise TooLarge(f"{self.path or self.job_id} has too many files; name a part of it")
        total, done = sum(file.size_bytes for file in found.items), 0
        if [file.path for file in found.items] != [self.path]:
            self.place.mkdir(parents=True, exist_ok=True)
        for file in found.items:
            for size in self._write(file):
                done += size
                if self.progress is not None:
                    self.progress(done, total)

    def _write(self, file: File) -> Iterator[int]:
        """Copy a file, yielding the sizes of its pieces."""
        inner = PurePosixPath(file.path).relative_to(self.path)
        if ".." in inner.parts:
            raise InvalidRequest(f"the service names a file outside of {self.path}: {file.path!r}")
        goal = self.place / inner
        goal.parent.mkdir(parents=True, exist_ok=True)
        partial = goal.with_name(f".{goal.name}.partial")
        try:
            with partial.open("wb") as out:
                for piece in self._pieces(file):
                    out.write(piece)
                    yield len(piece)
            partial.replace(goal)
        finally:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()

    def _pieces(self, file: File) -> Iterator[bytes]:
        offset, read = 0, self.calls.read_file
        while offset < file.size_bytes:
            piece = read(
                self.job_id,
                file.path,
                offset,
                _PIECE_BYTES,
                version=file.version,
                replica=self.replica,
            )
            if not piece:
                raise Conflict(f"{file.path} has become shorter while it was read")
            yield piece
            offset += len(piece)


def _files(job_id: str) -> str:
    return f"/api/v1/jobs/{job_id}/files"
