"""Snapshots on disk: files by their SHA-256, apart for each owner.

``ROOT/OWNER/files/ab/abcd...`` are contents, ``ROOT/OWNER/manifests/abcd...`` are lists of
them. Each owner has a store of their own: who knows the digest of somebody else's file
neither gets it nor learns whether it is there. A file gets its name when all of it is
written, so a process may die at any instant; what a loss of power cut short is found by its
size and asked for again. Methods block; threads and processes may share.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, BinaryIO, Self

from nimbus_hub.errors import InvalidRequest, NotFound, TooLarge
from nimbus_hub.model.quantities import format_memory
from nimbus_hub.model.snapshot import (
    SNAPSHOT_LIMIT_BYTES,
    SnapshotFile,
    check_snapshot,
    is_digest,
    snapshot_digest,
    snapshot_from_json,
    snapshot_to_json,
)
from nimbus_hub.store.trees import make_tree

__all__ = ["SnapshotStore"]

_CHUNK_BYTES = 2**20
_PLAIN_TYPES = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


class SnapshotStore:
    """Keeps the working directories that jobs start from."""

    def __init__(self, root: Path, size_limit_bytes: int = SNAPSHOT_LIMIT_BYTES) -> None:
        """Keep below ``root``, which is made if it is not there, for our account alone."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = root
        self.size_limit_bytes = size_limit_bytes

    def missing(self, owner: str, digests: Iterable[str]) -> tuple[str, ...]:
        """Return those digests, each once, whose files the owner has to upload."""
        home = self._home(owner)
        return tuple(
            digest for digest in dict.fromkeys(digests) if not _blob(home, digest).is_file()
        )

    def add(self, owner: str, digest: str, chunks: Iterable[bytes] | BinaryIO) -> None:
        """Keep a file; raise InvalidRequest and keep nothing if the digest is not its own.

        Raises TooLarge as soon as it is larger than a whole snapshot may be.
        """
        self._add(owner, digest, _chunks(chunks), self.size_limit_bytes)

    def add_tar(self, owner: str, tar: BinaryIO) -> None:
        """Keep the files of an uncompressed tar archive, whose names are their digests.

        It is read once, front to back. Raises InvalidRequest at the first member that is
        not a plain file with its digest as name; those before it are kept.
        """
        left_bytes = self.size_limit_bytes
        try:
            with tarfile.open(fileobj=tar, mode="r|", tarinfo=_PlainInfo) as archive:
                for member in archive:
                    content = _content(archive, member)
                    left_bytes -= self._add(owner, member.name, _chunks(content), left_bytes)
        # Broken headers make tarfile raise more than its own errors.
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise InvalidRequest(f"the upload must be a tar archive: {error}") from error

    def commit(self, owner: str, files: Sequence[SnapshotFile]) -> tuple[str, tuple[str, ...]]:
        """Keep a manifest if all its files are here; return its digest and what is missing.

        A file of another size than the manifest says is missing, too. Raises InvalidRequest
        for files that cannot be together and TooLarge, with the largest files named.
        """
        check_snapshot(files, self.size_limit_bytes)
        home = self._home(owner)
        missing = [file.digest for file in files if not _has_file(home, file)]
        digest = snapshot_digest(files)
        manifest = _manifest(home, digest)
        if missing:
            # The others are counted upon when these have come.
            _touch(_blob(home, file.digest) for file in files)
        elif not _touch([manifest]):
            with _new_file(home, manifest) as output:
                output.write(snapshot_to_json(files))
        return digest, tuple(dict.fromkeys(missing))

    def files(self, owner: str, digest: str) -> tuple[SnapshotFile, ...]:
        """Return the files of a snapshot by path; raise NotFound if the owner has none such."""
        if not is_digest(digest):
            raise NotFound(f"there is no snapshot {digest}")
        try:
            manifest = _manifest(self._home(owner), digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there is no snapshot {digest}") from None
        return snapshot_from_json(manifest)

    def has(self, owner: str, digest: str) -> bool:
        """Tell whether the owner has a snapshot of this digest."""
        return is_digest(digest) and _manifest(self._home(owner), digest).is_file()

    def unpack(
        self, owner: str, digest: str, target: Path, some: Iterable[SnapshotFile] | None = None
    ) -> None:
        """Copy a snapshot's files into a directory, which is made if it is not there.

        With ``some`` only these of its files.
        Files get mode 0644 or 0755 and take the place of what has their name; other files
        stay. A symbolic link in the way is replaced, never followed. May be repeated. Raises
        NotFound for an unknown snapshot, Conflict if a directory has a file's name.
        """
        files = self.files(owner, digest) if some is None else tuple(some)
        home = self._home(owner)
        damaged = [file.path for file in files if not _has_file(home, file)]
        if damaged:
            raise NotFound(f"snapshot {digest} has lost {damaged[0]!r}: submit it again")
        make_tree(target, ((file, _blob(home, file.digest)) for file in files))

    def remove_unneeded(self, needed: Mapping[str, Collection[str]], before: datetime) -> int:
        """Remove snapshots that are not needed, by owner, and files of none; return how many bytes.

        What was committed or uploaded after a moment stays: a job may be about to need it.
        """
        homes = {self._home(owner): digests for owner, digests in needed.items()}
        oldest = before.timestamp()
        return sum(
            _remove_unneeded(home, homes.get(home, ()), oldest)
            for home in self._root.iterdir()
            if home.is_dir()
        )

    def remove_leftovers(self) -> None:
        """Remove what was being written when a process died. Only call while nobody writes."""
        for path in self._root.glob("*/tmp/*"):
            path.unlink(missing_ok=True)

    def _add(self, owner: str, digest: str, chunks: Iterable[bytes], limit_bytes: int) -> int:
        """Keep a file; return its size."""
        home = self._home(owner)
        path = _blob(home, digest)
        seen, size = hashlib.sha256(), 0
        with _new_file(home, path) as output:
            for chunk in chunks:
                size += len(chunk)
                if size > limit_bytes:
                    limit = format_memory(self.size_limit_bytes)
                    raise TooLarge(f"the files of a snapshot may have {limit} together")
                seen.update(chunk)
                output.write(chunk)
            if seen.hexdigest() != digest:
                raise InvalidRequest(f"the file {digest} has another digest: {seen.hexdigest()}")
        return size

    def _home(self, owner: str) -> Path:
        """Return the owner's directory: a hash for safety, letters for whoever looks."""
        name = hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self._root / f"{_UNSAFE.sub('_', owner)[:32]}-{name}"


class _PlainInfo(tarfile.TarInfo):
    """A member that is a plain file, or is refused before anything of it is read.

    Headers of other kinds have contents too, which tarfile takes into memory whole.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header; raise InvalidRequest unless a plain file follows."""
        info = super().frombuf(buf, encoding, errors)
        if info.type not in _PLAIN_TYPES:
            raise InvalidRequest(f"the upload must hold plain files alone, got {info.name!r}")
        return info


def _blob(home: Path, digest: str) -> Path:
    """Return where a file is kept; raise InvalidRequest unless it is named by a digest."""
    if not is_digest(digest):
        raise InvalidRequest(f"a file must be named by its SHA-256 digest, got {digest!r}")
    return home / "files" / digest[:2] / digest


def _manifest(home: Path, digest: str) -> Path:
    return home / "manifests" / digest


def _has_file(home: Path, file: SnapshotFile) -> bool:
    # As text: to make paths takes longer than all else, and a manifest may have many files.
    blob = f"{home}/files/{file.digest[:2]}/{file.digest}"
    try:
        return os.stat(blob).st_size == file.size  # noqa: PTH116
    except FileNotFoundError:
        return False


def _touch(paths: Iterable[Path]) -> bool:
    """Have files count as new; tell whether all of them are there."""
    found = True
    for path in paths:
        try:
            os.utime(path)
        except FileNotFoundError:
            found = False
    return found


def _remove_unneeded(home: Path, needed: Collection[str], oldest: float) -> int:
    """Remove manifests of an owner that nobody needs, then files that are in none."""
    used: set[str] = set()
    for manifest in home.glob("manifests/*"):
        if manifest.name in needed or manifest.stat().st_mtime >= oldest:
            used.update(file.digest for file in snapshot_from_json(manifest.read_bytes()))
        else:
            manifest.unlink()
    removed = 0
    for blob in home.glob("files/*/*"):
        status = blob.stat()
        if blob.name not in used and status.st_mtime < oldest:
            blob.unlink()
            removed += status.st_size
    return removed


@contextmanager
def _new_file(home: Path, path: Path) -> Iterator[IO[bytes]]:
    """Open a file that gets its name when the block ends well, and is gone otherwise."""
    drafts = home / "tmp"
    for directory in (drafts, path.parent):
        directory.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=drafts)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as output:
            yield output
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _chunks(source: Iterable[bytes] | IO[bytes]) -> Iterator[bytes]:
    """Yield pieces of a bounded size: lines of a binary file could have any."""
    if hasattr(source, "read"):
        return iter(lambda: source.read(_CHUNK_BYTES), b"")
    return iter(source)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    assert content is not None, "it is a plain file"
    return content
