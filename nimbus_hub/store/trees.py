"""Trees: files written below a directory that somebody else may be changing meanwhile.

The directory may be in a user's home while we run as root, so nothing here follows a
symbolic link: every step goes from an open directory to a name in it.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nimbus_hub.errors import Conflict
from nimbus_hub.model.snapshot import SnapshotFile

__all__ = ["make_tree"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_A_DIRECTORY = frozenset({errno.ENOTDIR, errno.ELOOP})


def make_tree(target: Path, files: Iterable[tuple[SnapshotFile, Path]]) -> None:
    """Copy files from where they are kept to where they belong below ``target``.

    Raises Conflict if the target is not a directory or a directory has a file's name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        top = _enter(None, str(target))
    except OSError as error:
        if error.errno not in _NOT_A_DIRECTORY:
            raise
        raise Conflict(f"{target} must be a directory, and not a link to one") from error
    try:
        for file, source in files:
            with _directory_of(top, file.path) as directory:
                _copy(source, directory, file)
    finally:
        os.close(top)


@contextmanager
def _directory_of(top: int, path: str) -> Iterator[int]:
    """Open the directory that a path is in, made where it is not there."""
    current = os.dup(top)
    try:
        for name in path.split("/")[:-1]:
            below = _enter_or_replace(current, name)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _enter_or_replace(parent: int, name: str) -> int:
    """Open a directory; a file or link that has its name makes way."""
    try:
        return _enter(parent, name)
    except OSError as error:
        if error.errno not in _NOT_A_DIRECTORY:
            raise
    os.unlink(name, dir_fd=parent)
    return _enter(parent, name)


def _enter(parent: int | None, name: str) -> int:
    """Open a directory, made if there is nothing of its name."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _copy(source: Path, directory: int, file: SnapshotFile) -> None:
    """Copy a file under another name first, so that its own is never on half of it."""
    name, draft = file.path.rpartition("/")[2], f".nimbus-{uuid.uuid4().hex}"
    handle = os.open(draft, _NEW_FILE, 0o600, dir_fd=directory)
    try:
        with os.fdopen(handle, "wb") as output, source.open("rb") as content:
            shutil.copyfileobj(content, output)
            os.fchmod(output.fileno(), 0o755 if file.is_executable else 0o644)
        os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    except IsADirectoryError as error:
        os.unlink(draft, dir_fd=directory)
        raise Conflict(f"{file.path} cannot be written: a directory has its name") from error
    except BaseException:
        os.unlink(draft, dir_fd=directory)
        raise
