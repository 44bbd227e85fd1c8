"""Files: what jobs have written below their directories, found and read through executors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.records import Records
from nimbus_hub.errors import Conflict, NotFound, Unavailable
from nimbus_hub.executors.base import Executor
from nimbus_hub.model.file import FilePart, JobFile
from nimbus_hub.model.job import Job
from nimbus_hub.model.replica import Replica

__all__ = ["Files", "FoundFile"]

_PART_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a job and the host it is on."""

    file: JobFile
    host: str


class Files:
    """Reads the files of jobs; those of several hosts are seen as one directory.

    Where hosts have a file of the same path, that of the lowest rank of the last attempt is
    meant, or that of the replica that is named.
    """

    def __init__(self, records: Records, inventory: Inventory) -> None:
        self._records = records
        self._inventory = inventory

    async def find(
        self, job: Job, path: str = "", replica: str | None = None, limit: int = 1000
    ) -> tuple[list[FoundFile], bool]:
        """Return files at or below a path, in its order, and whether these are all.

        Raises NotFound for a path that is nowhere, and Unavailable, naming the host, if one
        that may have some cannot be asked.
        """
        found: dict[str, FoundFile] = {}
        is_whole, missing = True, None
        places = await self._places(job, replica)
        if not places and "/" in path:
            raise _not_started(job, path)
        for each in places:
            try:
                part = await self._executor(each).find_files(each.id, path, limit)
            except NotFound as error:
                missing = missing or error
                continue
            is_whole = is_whole and part.is_whole
            for file in part.files:
                found.setdefault(file.path, FoundFile(file, each.host))
        if missing is not None and not found:
            raise missing
        ordered = sorted(found.values(), key=lambda one: one.file.path)
        return ordered[:limit], is_whole and len(ordered) <= limit

    async def read(
        self,
        job: Job,
        path: str,
        *,
        replica: str | None = None,
        offset: int = 0,
        limit: int | None = None,
        version: str | None = None,
    ) -> AsyncIterator[FilePart]:
        """Yield a file from ``offset`` on, in parts, at least one.

        Raises NotFound for a file that is not there, Unavailable if its host does not answer,
        and Conflict if it is not the ``version`` that is wanted, or changes meanwhile.
        """
        place, part = await self._first(job, path, replica, offset, _step(limit))
        wanted, left = version or part.file.version, limit
        while True:
            if part.file.version != wanted:
                raise Conflict(f"{path} has changed since; read it again from its beginning")
            yield part
            offset += len(part.data)
            left = None if left is None else left - len(part.data)
            if not part.data or offset >= part.file.size_bytes or left == 0:
                return
            part = await self._executor(place).read_file(place.id, path, offset, _step(left))

    async def _first(
        self, job: Job, path: str, replica: str | None, offset: int, limit: int
    ) -> tuple[Replica, FilePart]:
        missing = _not_started(job, path)
        for each in await self._places(job, replica):
            try:
                return each, await self._executor(each).read_file(each.id, path, offset, limit)
            except NotFound as error:
                missing = error
        raise missing

    async def _places(self, job: Job, name: str | None) -> list[Replica]:
        """Return a replica for each directory that the job has, on whatever host."""
        replicas = await self._records.replicas(job.id)
        if name is not None:
            replicas = tuple(each for each in replicas if each.name == name)
            if not replicas:
                raise NotFound(f"job {job.id} has no replica {name!r}")
        places: dict[tuple[str, str], Replica] = {}
        for each in sorted(replicas, key=lambda one: (-one.attempt, one.rank, -one.restarts)):
            if each.directory:
                places.setdefault((each.host, each.directory), each)
        return list(places.values())

    def _executor(self, replica: Replica) -> Executor:
        try:
            return self._inventory.keeper(replica.host, replica.id)
        except Unavailable as error:
            raise Unavailable(
                f"the files of {replica.name} cannot be read: {error.message}"
            ) from error


def _not_started(job: Job, path: str) -> NotFound:
    return NotFound(f"there is no file {path}: job {job.id} has not started")


def _step(left: int | None) -> int:
    return _PART_BYTES if left is None else min(left, _PART_BYTES)
