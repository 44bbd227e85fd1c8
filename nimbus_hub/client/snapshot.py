"""The working directory as a manifest of its files.

Left out are: what the built-in patterns name, what `.nimbusignore` (or, without one,
`.gitignore`) in the directory itself names, links to directories and links that leave the
directory, and whatever is no regular file. A link to a file inside is kept as that file's
content. Patterns mean what they mean to git; `!pattern` brings back what a built-in one
leaves out.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nimbus_hub.client.digests import Digests
from nimbus_hub.client.ignore import Patterns
from nimbus_hub.errors import InvalidRequest, TooLarge
from nimbus_hub.model.quantities import format_memory

__all__ = ["BUILT_IN_PATTERNS", "File", "Manifest", "scan", "unreadable"]

BUILT_IN_PATTERNS = (
    ".git",
    ".hg",
    ".svn",
    "__pycache__",
    "*.pyc",
    ".ipynb_checkpoints",
    ".venv",
    "node_modules",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".DS_Store",
    # Where jobs keep their output in the owner's home.
    "/nimbus/",
    # What a home directory holds besides work, keys and installed packages among it.
    "/.cache/",
    "/.conda/",
    "/.config/",
    "/.gnupg/",
    "/.ipython/",
    "/.jupyter/",
    "/.local/",
    "/.npm/",
    "/.ssh/",
)
LIMIT_BYTES = 500 * 2**20
LIMIT_FILES = 100_000
_IGNORE_FILES = (".nimbusignore", ".gitignore")
_NAMED = 5


@dataclass(frozen=True, slots=True)
class File:
    """One file: ``path`` within the directory, and where or what its content is."""

    path: str
    size: int
    digest: str
    is_executable: bool
    source: Path | bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """A working directory: its files by path, and the links that were left out."""

    root: Path
    files: tuple[File, ...]
    left_out: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files)

    def has(self, path: str) -> bool:
        """Tell whether there is a file at a path."""
        return any(file.path == path for file in self.files)

    def body(self) -> dict[str, object]:
        """Return the JSON to send, the same for the same content."""
        return {
            "files": [
                {
                    "path": file.path,
                    "size": file.size,
                    "digest": file.digest,
                    "is_executable": file.is_executable,
                }
                for file in self.files
            ]
        }


def scan(
    directory: Path,
    *,
    extra: Mapping[str, str] | None = None,
    cache: Path | None = None,
    limit_bytes: int = LIMIT_BYTES,
    limit_files: int = LIMIT_FILES,
) -> Manifest:
    """Read a working directory; ``extra`` are texts by path that go before its files.

    With a ``cache``, a directory of the user's, files that did not change are not read again.
    Raises TooLarge, with the largest files and what to do, and InvalidRequest for what
    cannot be read.
    """
    if not directory.is_dir():
        raise InvalidRequest(f"workdir must be a directory, and {str(directory)!r} is none")
    root = directory.resolve()
    texts = {path: text.encode() for path, text in (extra or {}).items()}
    walk = _Walk(root, limit_files, cache)
    with walk.digests as digests:
        found = {path: stats for path, stats in walk.files() if path not in texts}
        sizes = {path: stats.st_size for path, stats in found.items()}
        sizes |= {path: len(text) for path, text in texts.items()}
        _check_size(root, sizes, limit_bytes, walk.ignore_file)
        files = [_file(root, path, stats, digests) for path, stats in found.items()]
    files += [_text(path, text) for path, text in texts.items()]
    return Manifest(root, tuple(sorted(files, key=lambda f: f.path)), tuple(walk.left_out))


class _Walk:
    """One way through a directory, without what the patterns leave out."""

    def __init__(self, root: Path, limit_files: int, cache: Path | None) -> None:
        self._root = root
        self._limit_files = limit_files
        self.ignore_file = next(
            (name for name in _IGNORE_FILES if (root / name).is_file()), _IGNORE_FILES[0]
        )
        patterns = [*BUILT_IN_PATTERNS, *self._own_patterns()]
        self._patterns = Patterns(patterns)
        self.digests = Digests(cache, root, patterns)
        self.left_out: list[str] = []

    def _own_patterns(self) -> list[str]:
        path = self._root / self.ignore_file
        return path.read_text(errors="replace").splitlines() if path.is_file() else []

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the path of each file within the directory and what the system says of it."""
        counts: Counter[str] = Counter()
        pending = [""]
        while pending:
            for entry, path in self._entries(pending.pop()):
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                    self.digests.add_directory(f"{path}/")
                elif (stats := self._stats(entry, path)) is not None:
                    counts[path.partition("/")[0]] += 1
                    self._check_count(counts)
                    yield path, stats

    def _entries(self, prefix: str) -> list[tuple[os.DirEntry[str], str]]:
        """Return the entries of a directory that no pattern leaves out."""
        try:
            with os.scandir(self._root / prefix) as entries:
                named = [(entry, prefix + entry.name) for entry in entries]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unreadable(prefix, error) from error
        return [
            (entry, path)
            for entry, path in named
            if self._is_in(f"{path}/" if entry.is_dir(follow_symlinks=False) else path)
        ]

    def _is_in(self, path: str) -> bool:
        # To match a path takes longer than all else about it.
        return self.digests.has(path) or not self._patterns.leave_out(path)

    def _stats(self, entry: os.DirEntry[str], path: str) -> os.stat_result | None:
        """Return a file's stats, or None where the rules leave it out or it is gone."""
        try:
            stats = entry.stat()
        except OSError:
            self.left_out.append(path)
            return None
        is_inside = not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(self._root)
        if stat.S_ISREG(stats.st_mode) and is_inside:
            return stats
        self.left_out.append(path)
        return None

    def _check_count(self, counts: Counter[str]) -> None:
        if counts.total() <= self._limit_files:
            return
        most = ", ".join(f"{name} ({count})" for name, count in counts.most_common(_NAMED))
        raise TooLarge(
            f"the working directory {self._root} has more than {self._limit_files} files; "
            f"most are in: {most}; name what the job does not need in {self.ignore_file}, "
            "or choose another directory with --workdir"
        )

    def _unreadable(self, path: str, error: OSError) -> InvalidRequest:
        return unreadable(path, error, self.ignore_file)


def _check_size(root: Path, sizes: Mapping[str, int], limit_bytes: int, ignore_file: str) -> None:
    total = sum(sizes.values())
    if total <= limit_bytes:
        return
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:_NAMED]
    named = ", ".join(f"{path} ({format_memory(size)})" for path, size in largest)
    raise TooLarge(
        f"the working directory {root} has {format_memory(total)}, "
        f"the limit is {format_memory(limit_bytes)}; "
        f"the largest files are: {named}; name what the job does not need in {ignore_file}, "
        "or choose another directory with --workdir"
    )


def _file(root: Path, path: str, stats: os.stat_result, digests: Digests) -> File:
    source = root / path
    is_executable = bool(stats.st_mode & stat.S_IXUSR)
    known = digests.find(path, stats)
    if known is not None:
        return File(path, stats.st_size, known, is_executable, source)
    try:
        path.encode()
        with source.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            size = content.tell()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"the file name {path!r} is no UTF-8; rename the file") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if size == stats.st_size:
        digests.add(path, stats, digest)
    return File(path, size, digest, is_executable, source)


def _text(path: str, content: bytes) -> File:
    return File(path, len(content), hashlib.sha256(content).hexdigest(), False, content)


def unreadable(path: str, error: OSError, ignore_file: str = _IGNORE_FILES[0]) -> InvalidRequest:
    """Return what is told of a file that cannot be read."""
    return InvalidRequest(
        f"cannot read {path} in the working directory: {error.strerror}; "
        f"name it in {ignore_file} if the job does not need it"
    )
