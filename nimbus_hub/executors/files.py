"""The files of jobs on this machine, read under their owners' accounts.

A home may be a file system of its user's own making, which answers as it likes or never, so a
service that runs as root leaves all of that to a helper that is the user (see
`nimbus_hub.replica.files`) and waits for it with a bound. All of it blocks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from nimbus_hub.errors import InvalidRequest, NimbusError, NotFound, Unavailable
from nimbus_hub.executors.records import Record, checked_id, refuse_live
from nimbus_hub.model.file import FileList, FilePart, JobFile
from nimbus_hub.replica import files

__all__ = ["Directory", "JobFiles", "answered", "find_own", "listed", "part", "read_own"]

R = TypeVar("R")

_HELPER_SECONDS = 60.0
_LOGS = "logs"
_ERRORS: Mapping[str, type[NimbusError]] = {"not_found": NotFound, "invalid": InvalidRequest}


@dataclass(frozen=True, slots=True)
class Directory:
    """A job's directory on this machine, read under an account; None is the service's own.

    ``python`` runs the helper that becomes the account.
    """

    path: str
    account: Mapping[str, Any] | None = None
    python: str = sys.executable

    def find(self, path: str, limit: int) -> FileList:
        """Return files at or below a path."""
        if self.account is None:
            return find_own(self.path, path, limit)
        return listed(self._ask("list", path, str(limit))[0])

    def read(self, path: str, offset: int, limit: int) -> FilePart:
        """Return bytes of a file; raise NotFound, or InvalidRequest for what is none."""
        if self.account is None:
            return read_own(self.path, path, offset, limit)
        answer, data = self._ask("read", path, str(offset), str(limit))
        return part(path, answer, data)

    def newest(self, path: str) -> int:
        """Return when something last changed there, in nanoseconds since the epoch."""
        if self.account is None:
            return _guarded(lambda: files.newest(self.path, path))
        return int(self._ask("newest", path)[0]["changed"])

    def delete(self) -> None:
        """Delete it with all that is in it; what is gone is left alone. May be repeated."""
        if self.account is None:
            _guarded(lambda: files.delete(self.path))
        else:
            self._ask("delete", "")

    def _ask(self, *words: str) -> tuple[dict[str, Any], bytes]:
        """Have the helper answer under the account; return what it says, and its bytes."""
        assert self.account is not None
        groups = ",".join(map(str, self.account["groups"]))
        identity = [str(self.account["uid"]), str(self.account["gid"]), groups]
        try:
            done = subprocess.run(
                [self.python, "-I", "-S", files.__file__, *identity, self.path, *words],
                cwd="/",
                env={"LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_HELPER_SECONDS,
                check=True,
            )
        except ValueError:
            raise InvalidRequest("a path must be without NUL characters") from None
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"the files in {self.path} cannot be read: {error}") from error
        return answered(done.stdout)


@dataclass(frozen=True, slots=True)
class JobFiles:
    """Lists and reads what records tell of; ``python`` runs the helper."""

    python: str

    def find(self, record: Record, path: str, limit: int) -> FileList:
        """Return files at or below a path; none of a replica that has no directory."""
        directory = self._directory(record)
        return FileList(()) if directory is None else directory.find(path, limit)

    def read(self, record: Record, path: str, offset: int, limit: int) -> FilePart:
        """Return bytes of a file; raise NotFound, or InvalidRequest for what is none."""
        directory = self._directory(record)
        if directory is None:
            raise NotFound(f"there is no file {path}: the job has not started")
        return directory.read(path, offset, limit)

    def heard_at(self, record: Record) -> datetime | None:
        """Return when a replica wrote last: output, or anything in its job's log directory."""
        found = [record.output_changed_at(), self._logs_changed_at(record)]
        return max((at for at in found if at is not None), default=None)

    def delete(self, records: Sequence[Record], names: Iterable[str]) -> None:
        """Delete directories of these names where those of the records are, and the records.

        Raises Conflict if a replica is not over.
        """
        refuse_live(records)
        found = {
            Path(record.top(), checked_id(name)): record
            for name in names
            for record in records
            if record.top()
        }
        for path, record in found.items():
            Directory(str(path), record.account(), self.python).delete()
        for record in records:
            record.delete()

    def _logs_changed_at(self, record: Record) -> datetime | None:
        directory = self._directory(record)
        if directory is None:
            return None
        try:
            changed = directory.newest(_LOGS)
        except NimbusError:
            return None  # A home that does not answer has nothing to tell.
        return _moment(changed) if changed else None

    def _directory(self, record: Record) -> Directory | None:
        path = record.directory()
        return Directory(path, record.account(), self.python) if path else None


def find_own(directory: str, path: str, limit: int) -> FileList:
    """Return files at or below a path in a job's directory that is the service's own."""
    found, is_whole = _guarded(lambda: files.find(directory, path, limit))
    return FileList(tuple(_file(*each) for each in found), is_whole)


def read_own(directory: str, path: str, offset: int, limit: int) -> FilePart:
    """Return bytes of a file in a job's directory that is the service's own."""
    size, changed, data = _guarded(lambda: files.read(directory, path, offset, limit))
    return FilePart(_file(path, size, changed), data)


def answered(printed: bytes) -> tuple[dict[str, Any], bytes]:
    """Return what the helper printed and its bytes; raise the error that it tells of."""
    line, _, data = printed.partition(b"\n")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise _ERRORS.get(answer["error"], Unavailable)(answer["message"])
    return answer, data


def listed(answer: Mapping[str, Any]) -> FileList:
    """Return the files that the helper lists."""
    return FileList(tuple(_file(*each) for each in answer["files"]), answer["is_whole"])


def part(path: str, answer: Mapping[str, Any], data: bytes) -> FilePart:
    """Return the bytes that the helper has read."""
    return FilePart(_file(path, answer["size"], answer["changed"]), data)


def _guarded(call: Callable[[], R]) -> R:
    """Do it here, with the errors of this side."""
    try:
        return call()
    except files.Refused as error:
        raise _ERRORS[error.kind](str(error)) from error


def _file(path: str, size: int, changed: int) -> JobFile:
    return JobFile(path, size, _moment(changed), f"{changed:x}-{size:x}")


def _moment(changed: int) -> datetime:
    return datetime.fromtimestamp(changed / 1e9, UTC)
