"""Snapshots: the files of a working directory, named by what is in them.

A snapshot is its manifest, the list of its files; the manifest's digest names it. Paths
are relative, with ``/`` between names, and never lead out of the directory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nimbus_hub.errors import InvalidRequest, TooLarge
from nimbus_hub.model.quantities import format_memory

__all__ = [
    "SNAPSHOT_LIMIT_BYTES",
    "SnapshotFile",
    "check_snapshot",
    "is_digest",
    "snapshot_digest",
    "snapshot_from_json",
    "snapshot_to_json",
]

SNAPSHOT_LIMIT_BYTES = 500 * 2**20
"""How large a snapshot may be unless the service is told otherwise."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST_NAME_BYTES = 255
_LONGEST_PATH_BYTES = 2048
_LARGEST_NAMED = 5


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """One file; ``digest`` is the SHA-256 of its content, ``size`` is in bytes."""

    path: str
    size: int
    digest: str
    is_executable: bool = False

    def __post_init__(self) -> None:
        """Refuse what could not be a file inside the directory."""
        problem = _path_problem(self.path)
        if problem:
            raise InvalidRequest(f"a path in a snapshot must {problem}, got {self.path!r}")
        if self.size < 0:
            raise InvalidRequest(f"the size of {self.path} must be at least 0, got {self.size}")
        if not is_digest(self.digest):
            raise InvalidRequest(
                f"the digest of {self.path} must be 64 hexadecimal digits, got {self.digest!r}"
            )


def is_digest(text: str) -> bool:
    """Tell whether a text is a SHA-256 as we write it: 64 hexadecimal digits in lower case."""
    return _DIGEST.fullmatch(text) is not None


def snapshot_digest(files: Iterable[SnapshotFile]) -> str:
    """Return the digest that names a snapshot of these files, in whatever order they come."""
    return hashlib.sha256(snapshot_to_json(files)).hexdigest()


def snapshot_to_json(files: Iterable[SnapshotFile]) -> bytes:
    """Return the manifest in the one form that is hashed and kept: ordered, without spaces."""
    rows = sorted([file.path, file.size, file.digest, file.is_executable] for file in files)
    return json.dumps(rows, separators=(",", ":")).encode("ascii")


def snapshot_from_json(manifest: bytes) -> tuple[SnapshotFile, ...]:
    """Return the files of a manifest that :func:`snapshot_to_json` wrote."""
    return tuple(SnapshotFile(*row) for row in json.loads(manifest))


def check_snapshot(files: Sequence[SnapshotFile], size_limit_bytes: int) -> None:
    """Raise InvalidRequest for files that cannot be together, TooLarge for too much of them."""
    sizes: dict[str, int] = {}
    paths: set[str] = set()
    for file in files:
        if file.path in paths:
            raise InvalidRequest(f"a snapshot must name each file once, got {file.path!r} twice")
        paths.add(file.path)
        if sizes.setdefault(file.digest, file.size) != file.size:
            raise InvalidRequest(
                f"files with the same content must have the same size, got {file.size} bytes "
                f"for {file.path!r} and {sizes[file.digest]} for another"
            )
    # In this order what a directory holds follows right after a file of its name.
    ordered = sorted(paths, key=lambda path: path.replace("/", "\0"))
    for path, following in pairwise(ordered):
        if following.startswith(f"{path}/"):
            raise InvalidRequest(f"{path!r} cannot be a file and hold {following!r}")
    _check_size(files, size_limit_bytes)


def _check_size(files: Sequence[SnapshotFile], limit_bytes: int) -> None:
    total = sum(file.size for file in files)
    if total <= limit_bytes:
        return
    largest = sorted(files, key=lambda file: (-file.size, file.path))[:_LARGEST_NAMED]
    named = ", ".join(f"{file.path} ({format_memory(file.size)})" for file in largest)
    raise TooLarge(
        f"the working directory has {format_memory(total)} and may have "
        f"{format_memory(limit_bytes)}; the largest files are {named}: "
        "name what is not needed in .nimbusignore"
    )


def _path_problem(path: str) -> str:
    """Return what is wrong with a path, as the end of a sentence, or nothing."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "be valid Unicode"
    names = encoded.split(b"/")
    if b"\0" in encoded:
        return "have no NUL in it"
    if any(name in (b"", b".", b"..") for name in names):
        return "be relative and normal, without //, . or .."
    if len(encoded) > _LONGEST_PATH_BYTES or max(map(len, names)) > _LONGEST_NAME_BYTES:
        return f"have at most {_LONGEST_PATH_BYTES} bytes and {_LONGEST_NAME_BYTES} in each name"
    return ""
