"""Records: the store as the event loop sees it.

Every write goes through here: it runs in the store's one thread, and when it is committed
the bus hears of it and the reconciler is woken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar, overload

from nimbus_hub.clock import Clock
from nimbus_hub.control.bus import Bus
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.replica import Replica
from nimbus_hub.store.store import Store

__all__ = ["Records"]

P = ParamSpec("P")
T = TypeVar("T")
Record = Lease | Job | Replica
A = TypeVar("A", bound=Record)
B = TypeVar("B", bound=Record)


class Records:
    """Reads and writes records; tells the bus and the reconciler of every write."""

    def __init__(self, store: Store, bus: Bus, clock: Clock) -> None:
        self.store = store
        self.bus = bus
        self.clock = clock
        self.wake: Callable[[], None] = lambda: None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nimbus-store")

    async def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a method of the store in its thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: call(*args, **kwargs))

    async def add(self, *objects: Record) -> None:
        """Insert records, all or none; raise Conflict if one exists."""
        await self.read(self.store.add, *objects, now=self.clock.now())
        self._tell(objects)

    @overload
    async def save(self, one: A, /, *, new: Iterable[Record] = ()) -> tuple[A]: ...
    @overload
    async def save(self, one: A, other: B, /, *, new: Iterable[Record] = ()) -> tuple[A, B]: ...
    @overload
    async def save(self, *changed: A, new: Iterable[Record] = ()) -> tuple[A, ...]: ...
    async def save(self, *changed: Record, new: Iterable[Record] = ()) -> tuple[Record, ...]:
        """Write records, all or none; return them with their new versions.

        Raises Conflict when one was written meanwhile: read again and decide again.
        """
        now = self.clock.now()
        saved = await self.read(lambda: self.store.save(*changed, new=tuple(new), now=now))
        self._tell(saved)
        return saved

    async def lease(self, lease_id: str, owner: str | None = None) -> Lease:
        """Return a lease; raise NotFound, with ``owner`` also for another's."""
        return await self.read(self.store.lease, lease_id, owner)

    async def job(self, job_id: str, owner: str | None = None) -> Job:
        """Return a job; raise NotFound, with ``owner`` also for another's."""
        return await self.read(self.store.job, job_id, owner)

    async def replicas(self, job_id: str, attempt: int | None = None) -> tuple[Replica, ...]:
        """Return the replicas of a job's attempt, or of all attempts."""
        return await self.read(self.store.replicas, job_id, attempt)

    def close(self) -> None:
        """Wait for the last write and end the thread."""
        self._thread.shutdown(wait=True)
        self.store.close()

    def _tell(self, objects: Iterable[object]) -> None:
        for written in objects:
            if isinstance(written, (Lease, Job)):
                self.bus.publish(written)
        self.wake()
