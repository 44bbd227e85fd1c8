"""Snapshots of working directories, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import BinaryIO, ParamSpec, TypeVar

from nimbus_hub.model.snapshot import SnapshotFile
from nimbus_hub.store.snapshots import SnapshotStore

__all__ = ["Snapshots"]

P = ParamSpec("P")
T = TypeVar("T")


class Snapshots:
    """The snapshot store in threads of its own: hashing files must not hold up leases."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="nimbus-snapshots")

    @property
    def size_limit_bytes(self) -> int:
        """Return how large a working directory may be."""
        return self._store.size_limit_bytes

    async def commit(
        self, owner: str, files: Sequence[SnapshotFile]
    ) -> tuple[str, tuple[str, ...]]:
        """Keep a manifest if all its files are here; return its digest and what is missing."""
        return await self._run(self._store.commit, owner, files)

    async def add_tar(self, owner: str, tar: BinaryIO) -> None:
        """Keep the files of an upload, each under its digest."""
        await self._run(self._store.add_tar, owner, tar)

    async def check(self, owner: str, digest: str) -> None:
        """Raise NotFound unless the owner has this snapshot."""
        await self._run(self._store.files, owner, digest)

    async def remove_unneeded(self, needed: Mapping[str, Collection[str]], before: datetime) -> int:
        """Remove those that nobody needs and that are older; return how many bytes."""
        return await self._run(self._store.remove_unneeded, needed, before)

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown(wait=True)

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: call(*args, **kwargs))
