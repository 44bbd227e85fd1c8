"""The files of jobs on engines: in before the start, read while it runs, kept after the end.

All replicas of a job on one engine share a volume: ``work``, ``home``, ``output``, ``logs``,
``checkpoints``, and ``lib`` with what runners and user code import of ours. When the last of
them is over, what the job leaves is fetched, and put in again if it should start once more.
Nothing that comes out of a container is followed or trusted. All of it blocks.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import nimbus_hub
from nimbus_hub.errors import InvalidRequest, Unavailable
from nimbus_hub.executors.directories import Snapshots
from nimbus_hub.executors.docker.containers import DIRECTORIES, job_directory
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.executors.files import answered, listed, part
from nimbus_hub.model.file import FileList, FilePart
from nimbus_hub.model.replica import ReplicaSpec

__all__ = ["Inside", "Results", "packed"]

R = TypeVar("R")

HELPER_SECONDS = 60.0
MOST_LISTED_BYTES = 64 * 2**20
MOST_SAID_BYTES = 2**16

_PACKAGE = Path(nimbus_hub.__file__).parent
_RUN_PYTHON = 'exec "$(command -v python3 || command -v python)" -I -S "$@"'


@dataclass(frozen=True, slots=True)
class Results:
    """What jobs have left on engines, below a directory of the service's own."""

    path: Path

    def directory(self, job_id: str, host: str) -> Path:
        """Return where that of a job on a host is kept."""
        return self.path / job_id / host

    def keep(self, job_id: str, host: str, archives: Iterable[Iterable[bytes]]) -> None:
        """Keep what is in archives, in place of what was kept before, all or nothing."""
        target = self.directory(job_id, host)
        fresh = target.with_name(f".{host}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700, parents=True)
        for archive in archives:
            _unpack(archive, fresh)
        shutil.rmtree(target, ignore_errors=True)
        fresh.replace(target)

    def note_volume(self, job_id: str, host: str, image: str) -> None:
        """Note that a job has a volume on a host, which a container of an image can read."""
        note = self._note(job_id, host)
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        note.write_text(image)

    def noted_volumes(self, host: str) -> list[tuple[str, str]]:
        """Return the jobs that have volumes on a host, and the images."""
        notes = list(self.path.glob(f"*/.{host}.volume"))
        return [(note.parent.name, note.read_text()) for note in notes]

    def forget_volume(self, job_id: str, host: str) -> None:
        """Note that there is no volume any more."""
        self._note(job_id, host).unlink(missing_ok=True)

    def _note(self, job_id: str, host: str) -> Path:
        return self.path / job_id / f".{host}.volume"

    def trees(self, job_id: str, host: str) -> Iterator[tuple[str, Path]]:
        """Yield what a job is to find again on a host, and checkpoints of all, older first.

        By when they were written: a host that was cut off gives its own last.
        """
        job = self.path / job_id
        names = [path.name for path in job.iterdir()] if job.is_dir() else []
        hosts = [name for name in names if not name.startswith(".")]
        for name in sorted(hosts, key=lambda name: _newest(job / name / "checkpoints")):
            yield "checkpoints", job / name / "checkpoints"
        for directory in DIRECTORIES:
            if directory != "checkpoints":
                yield directory, job / host / directory


def _newest(path: Path) -> int:
    """Return when the newest file below a directory was written, in nanoseconds."""
    return max((each.stat().st_mtime_ns for each in path.rglob("*") if each.is_file()), default=0)


def packed(
    spec: ReplicaSpec, user: tuple[int, int], snapshots: Snapshots, results: Results, staging: Path
) -> IO[bytes]:
    """Return the archive of a job's directory, in a file that is gone when it is closed."""
    staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=staging) as folder:
        if spec.snapshot is not None:
            snapshots.unpack(spec.owner, spec.snapshot, Path(folder))
        # Closed by whoever sends it.
        file: IO[bytes] = tempfile.TemporaryFile(dir=staging)  # noqa: SIM115
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name in ("work", "home", *DIRECTORIES):
                archive.addfile(_directory(name, user))
            for path in _library():
                archive.add(path, f"lib/{path.relative_to(_PACKAGE.parent)}", filter=_owned((0, 0)))
            _add(archive, "work", Path(folder), user)
            for name, path in results.trees(spec.job_id, spec.host):
                _add(archive, name, path, user)
    file.seek(0)
    return file


@dataclass(frozen=True, slots=True)
class Inside:
    """The files of a job as a running container of it sees them, with its user's rights."""

    client: EngineClient
    container: str
    job_id: str

    def find(self, path: str, limit: int) -> FileList:
        """Return files at or below a path."""
        return self._told(lambda: listed(self._ask(MOST_LISTED_BYTES, "list", path, limit)[0]))

    def read(self, path: str, offset: int, limit: int) -> FilePart:
        """Return bytes of a file."""
        return self._told(
            lambda: part(path, *self._ask(limit + MOST_SAID_BYTES, "read", path, offset, limit))
        )

    def newest(self, path: str) -> int:
        """Return when something last changed there, in nanoseconds since the epoch."""
        return self._told(lambda: int(self._ask(MOST_SAID_BYTES, "newest", path)[0]["changed"]))

    def _told(self, call: Callable[[], R]) -> R:
        try:
            return call()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable(
                f"the files of job {self.job_id} cannot be read while it runs; "
                "that needs Python in its image"
            ) from error

    def _ask(self, most: int, verb: str, *words: object) -> tuple[dict[str, Any], bytes]:
        """Have the helper answer; it is the user's container that says it."""
        if any("\0" in str(word) for word in words):
            raise InvalidRequest("a path must be without NUL characters")
        directory = job_directory(self.job_id)
        helper = f"{directory}/lib/nimbus_hub/replica/files.py"
        argv = ["/bin/sh", "-c", _RUN_PYTHON, "sh", helper, "", "", "", directory, verb]
        _, stream = self.client.execute(self.container, [*argv, *map(str, words)])
        watch = threading.Timer(HELPER_SECONDS, stream.close)
        watch.daemon = True
        watch.start()
        printed = bytearray()
        try:
            for data in stream:
                printed += data
                if len(printed) > most:
                    break
        finally:
            watch.cancel()
            stream.close()
        return answered(bytes(printed))


def _library() -> Iterator[Path]:
    """Yield what replicas import of ours; it is the same for every Python from 3.6."""
    yield from (_PACKAGE / "__init__.py", _PACKAGE / "distributed.py")
    for path in sorted((_PACKAGE / "replica").rglob("*.py")):
        if "on_path" not in path.parts:
            yield path


def _add(archive: tarfile.TarFile, name: str, path: Path, user: tuple[int, int]) -> None:
    """Add what is in a directory, links as links."""
    if path.is_dir():
        for inner in sorted(path.iterdir()):
            archive.add(inner, f"{name}/{inner.name}", filter=_owned(user))


def _owned(user: tuple[int, int]) -> Callable[[tarfile.TarInfo], tarfile.TarInfo]:
    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid, member.gid = user
        member.uname = member.gname = ""
        # What the service keeps for itself is the user's again.
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    return owned


def _directory(name: str, user: tuple[int, int]) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return _owned(user)(member)


def _unpack(archive: Iterable[bytes], target: Path) -> None:
    """Unpack plain files and directories; links, devices and the like are left out."""
    with tarfile.open(fileobj=io.BufferedReader(_Pieces(archive)), mode="r|") as members:
        for member in members:
            path = _inner(member.name, target)
            if path is None:
                continue
            if member.isdir():
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif member.isreg():
                _write(members, member, path)
            elif member.islnk():
                # Another name of a file that came before.
                source = _inner(member.linkname, target)
                if source is not None and source.is_file():
                    with suppress(FileExistsError):
                        path.hardlink_to(source)


def _write(members: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = members.extractfile(member)
    assert content is not None
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)
    path.chmod(0o700 if member.mode & 0o100 else 0o600)
    changed = int(member.mtime * 10**9)
    os.utime(path, ns=(changed, changed))


def _inner(name: str, target: Path) -> Path | None:
    """Return where a member goes; None for one that would be elsewhere than it should."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] not in DIRECTORIES or ".." in parts:
        return None
    return target.joinpath(*parts)


class _Pieces(io.RawIOBase):
    """A file to read what comes in pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            found = next(self._pieces, None)
            if found is None:
                return 0
            self._rest = found
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
