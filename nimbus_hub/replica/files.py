"""Reads a job's files under its owner's account, and never through a link.

Called by a service that runs as root as ``python -I -S files.py UID GID GROUPS JOB VERB ...``,
where JOB is the job's directory:

- ``list PATH LIMIT`` prints the files at or below a path,
- ``read PATH OFFSET LIMIT`` prints a line about a file, and bytes of it,
- ``newest PATH`` prints when something last changed there,
- ``delete ""`` deletes the directory.

An empty UID, as in a container of that user's, is the account that it runs under.

Each step of a path is opened by itself, without following links, after the rights of root are
given up. The answer is JSON; an error is ``{"error": its kind, "message": a sentence}``.

Python 3.6 and later, standard library only.
"""

# ruff: noqa: PTH101, PTH112, PTH114, PTH118

import errno
import json
import os
import shutil
import stat
import sys

__all__ = ["ROOTS", "Refused", "delete", "find", "newest", "read"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Tuple

    File = Tuple[str, int, int]
    # A path, its size in bytes and when it changed, in nanoseconds since the epoch.
    Answer = Dict[str, Any]

ROOTS = ("output", "logs", "checkpoints")
"""The directories of a job whose files may be read."""

MOST_LOOKED_AT = 20000
MOST_READ = 16 * 2**20
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Refused(Exception):
    """There is no such file, or it may not be read: ``kind`` says which."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def main(arguments: "List[str]") -> int:
    """Become the account and answer."""
    uid, gid, groups, job, verb, path = arguments[1:7]
    if uid:
        os.setgroups([int(group) for group in groups.split(",") if group])
        os.setgid(int(gid))
        os.setuid(int(uid))
    data = b""
    try:
        if verb == "list":
            files, is_whole = find(job, path, int(arguments[7]))
            answer = {"files": files, "is_whole": is_whole}  # type: Answer
        elif verb == "read":
            size, changed, data = read(job, path, int(arguments[7]), int(arguments[8]))
            answer = {"size": size, "changed": changed}
        elif verb == "delete":
            delete(job)
            answer = {}
        else:
            answer = {"changed": newest(job, path)}
    except Refused as error:
        answer = {"error": error.kind, "message": str(error)}
    except OSError as error:
        answer = {"error": "unavailable", "message": str(error)}
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + data)
    return 0


def find(job: str, path: str, limit: int) -> "Tuple[List[File], bool]":
    """Return at most so many files at or below a path, and whether these are all.

    An empty path is all of ROOTS. Links, and names that are no UTF-8, are left out.
    """
    found = []  # type: List[File]
    if path:
        status = _status(job, path)
        if stat.S_ISREG(status.st_mode):
            return [(path, status.st_size, status.st_mtime_ns)], True
    for looked_at, (name, status) in enumerate(_below(job, [path] if path else list(ROOTS))):
        is_file = stat.S_ISREG(status.st_mode) and _is_text(name)
        if looked_at >= MOST_LOOKED_AT or (is_file and len(found) >= limit):
            return found, False
        if is_file:
            found.append((name, status.st_size, status.st_mtime_ns))
    return found, True


def read(job: str, path: str, offset: int, limit: int) -> "Tuple[int, int, bytes]":
    """Return the size of a file, when it changed, and bytes of it from an offset."""
    descriptor = _open(job, path)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("invalid", "%s is no file; list what is in it" % path)
        parts = []
        while limit > 0:
            part = os.pread(descriptor, min(limit, MOST_READ), offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            limit -= len(part)
    finally:
        os.close(descriptor)
    return status.st_size, status.st_mtime_ns, b"".join(parts)


def newest(job: str, path: str) -> int:
    """Return when something last changed at or below a path, 0 if there is nothing."""
    try:
        changed = _status(job, path).st_mtime_ns
    except Refused:
        return 0
    for looked_at, (_, status) in enumerate(_below(job, [path])):
        if looked_at >= MOST_LOOKED_AT:
            break
        changed = max(changed, status.st_mtime_ns)
    return changed


def delete(job: str) -> None:
    """Delete a job's directory with all that is in it; no link is followed.

    May be repeated: what is gone, or is no directory any more, is left alone.
    """
    if os.path.islink(job) or not os.path.isdir(job):
        return
    # What a program has closed to its own user would stay.
    os.chmod(job, 0o700)
    for folder, names, _ in os.walk(job):
        for name in names:
            inner = os.path.join(folder, name)
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)
    shutil.rmtree(job)


def _below(job: str, pending: "List[str]") -> "Iterator[Tuple[str, os.stat_result]]":
    """Yield what is below directories, in order, and what the system says of it."""
    pending = pending[::-1]
    while pending:
        path = pending.pop()
        try:
            descriptor = _open(job, path)
        except Refused:
            continue
        try:
            entries = _entries(descriptor)
        finally:
            os.close(descriptor)
        folders = []
        for name, status in entries:
            inner = "%s/%s" % (path, name)
            yield inner, status
            if stat.S_ISDIR(status.st_mode):
                folders.append(inner)
        pending += folders[::-1]


def _entries(directory: int) -> "List[Tuple[str, os.stat_result]]":
    found = []
    try:
        names = os.listdir(directory)
    except NotADirectoryError:
        return []
    # One more than is looked at, so that it is known that there are more.
    for name in sorted(names)[: MOST_LOOKED_AT + 1]:
        try:
            found.append((name, os.stat(name, dir_fd=directory, follow_symlinks=False)))
        except FileNotFoundError:
            continue
    return found


def _status(job: str, path: str) -> os.stat_result:
    descriptor = _open(job, path)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _open(job: str, path: str) -> int:
    """Open what is at a path within a job's directory, step by step."""
    steps = path.split("/")
    if steps[0] not in ROOTS or not all(steps) or "." in steps or ".." in steps or "\0" in path:
        known = ", ".join(ROOTS)
        raise Refused("invalid", "a job's files are in %s, got %r" % (known, path))
    try:
        opened = os.open(job, FLAGS | os.O_DIRECTORY)
        for step in steps:
            outer = opened
            try:
                opened = os.open(step, FLAGS, dir_fd=outer)
            finally:
                os.close(outer)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused("invalid", "%s is a link, which is not followed" % path) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.ENXIO):
            raise Refused("invalid", "%s cannot be read: %s" % (path, error.strerror)) from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise Refused("not_found", "there is no file %s" % path) from error
        raise
    return opened


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv))
