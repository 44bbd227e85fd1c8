"""The upload of files that the service does not have: an archive, made as it is sent."""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterable, Iterator

from nimbus_hub.client.snapshot import File, Manifest, unreadable
from nimbus_hub.errors import InvalidRequest

__all__ = ["tar_chunks", "tar_size"]

_CHUNK_BYTES = 2**20


def tar_size(manifest: Manifest, digests: Collection[str]) -> int:
    """Return the length of the archive that ``tar_chunks`` makes."""
    blocks = sum(1 + _blocks(file.size) for file in _wanted(manifest, digests))
    return (blocks + 2) * tarfile.BLOCKSIZE


def tar_chunks(manifest: Manifest, digests: Collection[str]) -> Iterator[bytes]:
    """Yield an archive of the files with these digests, each named by its digest."""
    for file in _wanted(manifest, digests):
        header = tarfile.TarInfo(file.digest)
        header.size = file.size
        yield header.tobuf(tarfile.GNU_FORMAT)
        yield from _content(file)
        yield bytes(_blocks(file.size) * tarfile.BLOCKSIZE - file.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _wanted(manifest: Manifest, digests: Collection[str]) -> Iterable[File]:
    """Return one file for each digest."""
    wanted = set(digests)
    return {file.digest: file for file in manifest.files if file.digest in wanted}.values()


def _blocks(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE)


def _content(file: File) -> Iterator[bytes]:
    """Yield exactly the bytes the manifest promised."""
    if isinstance(file.source, bytes):
        yield file.source
        return
    left = file.size
    try:
        with file.source.open("rb") as content:
            while left and (chunk := content.read(min(left, _CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise unreadable(file.path, error) from error
    if left:
        raise InvalidRequest(f"{file.path} became shorter while it was uploaded; run it again")
