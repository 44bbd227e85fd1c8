"""The files of jobs on this machine, read under their owners' accounts.

A home may be a file system of its user's own making, which answers as it likes or never, so a
service that runs as root leaves all of that to a helper that is the user (see
`nimbus_hub.replica.files`) and waits for it with a bound. All of it blocks.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from nimbus_hub.errors import InvalidRequest, NimbusError, NotFound, Unavailable
from nimbus_hub.executors.records import Record
from nimbus_hub.model.file import FileList, FilePart, JobFile
from nimbus_hub.replica import files

__all__ = ["JobFiles", "answered", "find_own", "listed", "part", "read_own"]

R = TypeVar("R")

_HELPER_SECONDS = 60.0
_LOGS = "logs"
_ERRORS: Mapping[str, type[NimbusError]] = {"not_found": NotFound, "invalid": InvalidRequest}


@dataclass(frozen=True, slots=True)
class JobFiles:
    """Lists and reads; ``python`` runs the helper."""

    python: str

    def find(self, record: Record, path: str, limit: int) -> FileList:
        """Return files at or below a path; none of a replica that has no directory."""
        directory = record.directory()
        if not directory:
            return FileList(())
        if (account := record.account()) is None:
            return find_own(directory, path, limit)
        return listed(self._ask(account, directory, "list", path, str(limit))[0])

    def read(self, record: Record, path: str, offset: int, limit: int) -> FilePart:
        """Return bytes of a file; raise NotFound, or InvalidRequest for what is none."""
        directory = record.directory()
        if not directory:
            raise NotFound(f"there is no file {path}: the job has not started")
        if (account := record.account()) is None:
            return read_own(directory, path, offset, limit)
        answer, data = self._ask(account, directory, "read", path, str(offset), str(limit))
        return part(path, answer, data)

    def heard_at(self, record: Record) -> datetime | None:
        """Return when a replica wrote last: output, or anything in its job's log directory."""
        found = [record.output_changed_at(), self._logs_changed_at(record)]
        return max((at for at in found if at is not None), default=None)

    def _logs_changed_at(self, record: Record) -> datetime | None:
        directory = record.directory()
        if not directory:
            return None
        try:
            if (account := record.account()) is None:
                changed = _guarded(lambda: files.newest(directory, _LOGS))
            else:
                changed = self._ask(account, directory, "newest", _LOGS)[0]["changed"]
        except NimbusError:
            return None  # A home that does not answer has nothing to tell.
        return _moment(changed) if changed else None

    def _ask(
        self, account: Mapping[str, Any], directory: str, *words: str
    ) -> tuple[dict[str, Any], bytes]:
        """Have the helper answer under an account; return what it says, and its bytes."""
        groups = ",".join(map(str, account["groups"]))
        identity = [str(account["uid"]), str(account["gid"]), groups]
        try:
            done = subprocess.run(
                [self.python, "-I", "-S", files.__file__, *identity, directory, *words],
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
            raise Unavailable(f"the files in {directory} cannot be read: {error}") from error
        return answered(done.stdout)


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
