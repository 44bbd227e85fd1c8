"""What is known of a directory's files from the last time they were read.

A file whose size, times and inode are as they were has the digest it had. One that changed
shortly before it was read is read again: it may have changed once more within the same tick
of its file system's clock. All of this can be lost, and costs nothing but time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

__all__ = ["Digests"]

_SETTLED_NANOSECONDS = 2 * 10**9
_MOST_DIRECTORIES = 100
"""So many directories are remembered, those that were last read."""

_Key = list[int]


class Digests:
    """The files of one directory: which are in it by its patterns, and their digests.

    Use it as a context manager, which keeps what was learned if all went well.
    """

    def __init__(self, cache: Path | None, root: Path, patterns: Iterable[str]) -> None:
        """Remember in a directory of the user's, or for this once."""
        self._patterns = hashlib.sha256("\n".join(patterns).encode(errors="replace")).hexdigest()
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
        self._kept = None if cache is None else cache / "digests" / f"{name}.json"
        self._draft: Path | None = None
        self._settled = 0
        self._is_new = False
        self._known = self._load()
        self._found: dict[str, tuple[_Key, str] | None] = {}

    def __enter__(self) -> Self:
        """Begin to read."""
        if self._kept is not None:
            try:
                self._kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                draft = self._kept.with_suffix(f".{os.urandom(8).hex()}")
                draft.touch(mode=0o600, exist_ok=False)
                # The file system's own clock, which times of files are told by.
                self._settled = draft.stat().st_mtime_ns - _SETTLED_NANOSECONDS
                self._draft = draft
            except OSError:
                self._kept = None
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Keep what is new."""
        if self._draft is None or self._kept is None:
            return
        try:
            if error is None and self._is_new:
                self._draft.write_text(json.dumps([self._patterns, self._found]))
                self._draft.replace(self._kept)
                self._forget_oldest(self._kept.parent)
        except OSError:
            return
        finally:
            self._draft.unlink(missing_ok=True)

    def has(self, path: str) -> bool:
        """Tell whether a path, a directory's with a slash at its end, is known to be in it."""
        return path in self._known

    def add_directory(self, path: str) -> None:
        """Note that a directory, with a slash at its end, is in it."""
        self._found[path] = None

    def find(self, path: str, stats: os.stat_result) -> str | None:
        """Return the digest of a file, None if it has to be read."""
        known = self._known.get(path)
        if known is None or known[0] != _key(stats):
            return None
        self._found[path] = known
        return known[1]

    def add(self, path: str, stats: os.stat_result, digest: str) -> None:
        """Note the digest of a file that was read; ``stats`` are from before."""
        if max(stats.st_mtime_ns, stats.st_ctime_ns) < self._settled:
            self._found[path] = (_key(stats), digest)
            self._is_new = True

    def _load(self) -> dict[str, tuple[_Key, str] | None]:
        if self._kept is None:
            return {}
        try:
            patterns, known = json.loads(self._kept.read_bytes())
            if patterns != self._patterns:
                return {}
            return {path: each and (list(each[0]), str(each[1])) for path, each in known.items()}
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return {}  # Not there, or not as we write it.

    @staticmethod
    def _forget_oldest(cache: Path) -> None:
        kept = sorted(cache.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[:-_MOST_DIRECTORIES]:
            path.unlink(missing_ok=True)


def _key(stats: os.stat_result) -> _Key:
    return [stats.st_size, stats.st_mtime_ns, stats.st_ctime_ns, stats.st_ino, stats.st_dev]
