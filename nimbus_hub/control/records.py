"""Records: the store as the event loop sees it.

Every write goes through here: it runs in the store's one thread, and when it is committed
the bus hears of it and the reconciler is woken. Writes of the same moment share one
transaction, and so one wait for the disk; each of them is still all or nothing on its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar, overload

from nimbus_hub.clock import Clock
from nimbus_hub.control.bus import Bus
from nimbus_hub.control.joined import Joined
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.replica import Replica
from nimbus_hub.store.store import Known, Live, Store, Write

__all__ = ["Records"]

P = ParamSpec("P")
T = TypeVar("T")
Record = Lease | Job | Replica
A = TypeVar("A", bound=Record)
B = TypeVar("B", bound=Record)
L = TypeVar("L", Lease, Job)


class Records:
    """Reads and writes records; tells the bus and the reconciler of every write."""

    def __init__(self, store: Store, bus: Bus, clock: Clock) -> None:
        self.store = store
        self.bus = bus
        self.clock = clock
        self.wake: Callable[[], None] = lambda: None
        self._listeners: list[Callable[[Lease | Job], None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nimbus-store")
        self._known_leases: dict[str, Lease] = {}
        self._known_jobs: dict[str, Job] = {}
        self._writes = Joined[Write, tuple[Record, ...]](
            lambda writes: self.read(self.store.write_each, writes)
        )
        self._leases = Joined[tuple[str, str | None], Lease](
            lambda wanted: self.read(self.store.lease_each, wanted, self._known)
        )
        self._sessions = Joined[tuple[str, str], Lease | None](
            lambda wanted: self.read(self.store.session_each, wanted)
        )

    def listen(self, listener: Callable[[Lease | Job], None]) -> None:
        """Have a function called with every lease and job that was written, in order."""
        self._listeners.append(listener)

    async def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a method of the store in its thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: call(*args, **kwargs))

    async def add(self, *objects: Record) -> None:
        """Insert records, all or none; raise Conflict if one exists."""
        await self._writes(Write((), objects, self.clock.now()))
        self._tell(objects)
        self.wake()

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
        saved = await self._save(changed, tuple(new))
        self.wake()
        return saved

    async def note(self, job: Job) -> Job:
        """Write what nobody acts on, like a job's progress: the reconciler sleeps on."""
        (saved,) = await self._save((job,), ())
        assert isinstance(saved, Job)
        return saved

    async def lease(self, lease_id: str, owner: str | None = None) -> Lease:
        """Return a lease; raise NotFound, with ``owner`` also for another's."""
        return await self._leases((lease_id, owner))

    def known(self, lease_id: str) -> Lease | None:
        """Return a lease as it was last read or written here, to be changed and saved.

        It saves a look into the store; should it have changed since, saving it is refused.
        """
        return self._known_leases.get(lease_id)

    async def session(self, owner: str, name: str) -> Lease | None:
        """Return the live lease of a session, if it has one."""
        return await self._sessions((owner, name))

    async def live(self) -> Live:
        """Return all that is not over; what was read or written before is not read again."""
        live = await self.read(self.store.live, self._known)
        self._known_leases = _newest(self._known_leases, live.leases)
        self._known_jobs = _newest(self._known_jobs, live.jobs)
        return live

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

    @property
    def _known(self) -> Known:
        return Known(self._known_leases, self._known_jobs)

    async def _save(self, changed: Sequence[Record], new: Sequence[Record]) -> tuple[Record, ...]:
        saved = await self._writes(Write(changed, new, self.clock.now()))
        self._tell((*new, *saved))
        return saved

    def _tell(self, objects: Iterable[object]) -> None:
        for written in objects:
            if isinstance(written, Lease):
                self._known_leases[written.id] = written
            if isinstance(written, Job):
                self._known_jobs[written.id] = written
            if isinstance(written, (Lease, Job)):
                for listener in self._listeners:
                    listener(written)
                self.bus.publish(written)


def _newest(known: Mapping[str, L], found: Iterable[L]) -> dict[str, L]:
    """Return by id what was found, or what was written since it was read."""
    newest = {}
    for each in found:
        kept = known.get(each.id, each)
        newest[each.id] = kept if kept.version > each.version else each
    return newest
