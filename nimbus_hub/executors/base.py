"""The contract between the reconciler and whatever runs replicas.

Executors never wait for a replica and never decide: every method returns as soon as the
engine has taken the request, and each may be repeated. The reconciler asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Protocol, runtime_checkable

from nimbus_hub.model.check import HostCheck
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.file import FileList, FilePart
from nimbus_hub.model.host import HeldMemory, Host
from nimbus_hub.model.replica import LogChunk, ReplicaSpec, ReplicaStatus, Usage

__all__ = ["Executor", "GpuReader", "HostChecker", "OnChange", "SessionHost"]

OnChange = Callable[[str], None]
"""Called with a replica's id, on the event loop, when its status may have changed."""


class Executor(Protocol):
    """Runs replicas on hosts of one kind. Errors of the engine are raised as Unavailable."""

    async def hosts(self) -> tuple[Host, ...]:
        """Return the hosts and what they have, as found now. Called at start and then rarely."""
        ...

    async def start(self, spec: ReplicaSpec) -> None:
        """Start a replica; starting one that was ever started does nothing.

        A replica that cannot be started (no such program, no such account) is recorded as
        exited with a reason, not raised: asking again would not help. One with a ``holder``
        runs in its place, unless another does; if that is not there, it is started like any.
        """
        ...

    async def poll(self, replica_id: str) -> ReplicaStatus:
        """Return what is known of a replica; one that was never started is ``created``.

        One that was started and of which nothing is left, not even a record, is ``lost``.
        """
        ...

    async def stop(self, replica_id: str, grace_seconds: float) -> None:
        """Ask every process of a replica to end, and kill what is left after the grace.

        Returns at once. Stopping what is gone, or already stopping, succeeds. One that was
        never started is recorded as exited and will not start any more.
        """
        ...

    async def read_output(self, replica_id: str, offset: int, limit: int) -> LogChunk:
        """Return at most ``limit`` bytes of standard output and error from ``offset``.

        A negative offset counts from the end. Works as long as the record is kept, also
        after the end; a replica without output gives no bytes.
        """
        ...

    def keeps(self, replica_id: str) -> bool:
        """Tell whether it keeps a record of a replica, wherever that ran. Returns at once."""
        ...

    async def measure(self, replica_ids: Collection[str]) -> dict[str, Usage]:
        """Return what replicas used since their start, by id, also after their end.

        Asked every few seconds for all that are of interest, in one call. Left out is one of
        which nothing is known, and one that runs in its holder's processes, whose figures have
        it in them. A replica's times never fall.
        """
        ...

    async def heard(self, replica_ids: Collection[str]) -> dict[str, datetime]:
        """Return when replicas gave their last signs of life, by id.

        Signs are output, and what is written below the log directory of their job, of which a
        part is looked at if it is very large; what they compute is none. Left out is one of
        which there is none. By the service's clock; it may tell of times to come.
        """
        ...

    async def find_files(self, replica_id: str, path: str, limit: int) -> FileList:
        """Return at most ``limit`` files that a replica's job has on its host, in order of paths.

        Those at or below a path like ``output/model``; an empty one is all of output, logs and
        checkpoints. Links are left out. None for a replica that has not started. Works as long
        as the record is kept, also after the end. Raises NotFound for a path that is not there,
        and InvalidRequest for one that leaves these directories or is a link.
        """
        ...

    async def read_file(self, replica_id: str, path: str, offset: int, limit: int) -> FilePart:
        """Return at most ``limit`` bytes of such a file from ``offset``; fewer only at its end.

        It is read with the rights of the job's owner, and no step of its path is a link. Raises
        NotFound for a file that is not there, and InvalidRequest for what is no such file.
        """
        ...

    async def write_input(self, replica_id: str, data: bytes) -> None:
        """Write to the standard input of a replica; no bytes at all are its end.

        Raises Conflict if it takes no input, does not read it, is not yet running or is over.
        What is written while it does something else waits until it reads, up to 64 KiB.
        """
        ...

    async def delete(
        self, job_id: str, replica_ids: Collection[str], workspace: str | None = None
    ) -> None:
        """Delete what a job that is over has left: its files, output and records.

        ``replica_ids`` are all that it ever had here, ``workspace`` is that of a debug gang, if
        it held one. Returns when all is gone, and may be repeated. Raises Conflict if a replica
        is not over, and Unavailable if a host that has something does not answer.
        """
        ...

    def watch(self, on_change: OnChange) -> None:
        """Call ``on_change`` from now on when a replica changed. A hint: it may be missed."""
        ...


@runtime_checkable
class HostChecker(Protocol):
    """An executor that can say what works on a host, beside whether it answers."""

    async def check_host(self, name: str) -> tuple[HostCheck, ...]:
        """Return what was looked at, now; a host that does not answer is one such fault."""
        ...

    async def check_engine(self, engine: Engine) -> tuple[HostCheck, ...]:
        """Return the same of an engine that is no host yet; nothing is kept of it."""
        ...


@runtime_checkable
class GpuReader(Protocol):
    """An executor that can ask the drivers of its hosts' GPUs."""

    async def gpu_memory(self, name: str) -> Mapping[int, HeldMemory]:
        """Return what is held of a host's devices, by index; those it cannot ask are left out.

        What a display holds does not count. May take seconds.
        """
        ...


@runtime_checkable
class SessionHost(Protocol):
    """An executor on whose hosts the hub's spawner runs sessions as containers."""

    def engine(self, name: str) -> Engine:
        """Return the engine of a host; raise Unavailable if it has none now."""
        ...

    async def sessions(self, name: str) -> frozenset[str]:
        """Return the leases of the sessions whose containers on a host have not ended."""
        ...

    async def remove_session(self, name: str, lease_id: str) -> None:
        """Remove the container of a session, running or not. May be repeated."""
        ...
