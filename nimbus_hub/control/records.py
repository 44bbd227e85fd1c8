"""Records: the store as the event loop sees it.

Every write goes through here: it runs in the store's one thread, and when it is committed
the bus hears of it and the reconciler is woken. Writes of the same moment share one
transaction, and so one wait for the disk; each of them is still all or nothing on its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar, overload

from nimbus_hub.clock import Clock
from nimbus_hub.control.bus import Bus
from nimbus_hub.control.joined import Joined
from nimbus_hub.control.living import Living
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.replica import Replica, Usage
from nimbus_hub.store.store import GangRecord, JobRecord, Live, Outcome, Store, Write

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
        self._listeners: list[Callable[[Lease | Job], None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nimbus-store")
        self._living = Living()
        self._is_current = False
        self._writes = Joined[Write, tuple[Record, ...]](self._write_each)
        self._leases = Joined[tuple[str, str | None], Lease](
            lambda wanted: self.read(self.store.lease_each, wanted, self._living.known)
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
        saved = await self._writes(Write(changed, tuple(new), self.clock.now()))
        self.wake()
        return saved

    async def note(self, job: Job) -> Job:
        """Write what nobody acts on, like a job's progress: the reconciler sleeps on."""
        (saved,) = await self._writes(Write((job,), (), self.clock.now()))
        assert isinstance(saved, Job)
        return saved

    async def note_usage(self, leases: Mapping[str, Usage], replicas: Mapping[str, Usage]) -> None:
        """Write what leases and replicas used, by id: no news to anybody."""
        await self.read(self.store.note_usage, leases, replicas)
        self._living.note_usage(leases, replicas)

    async def lease(self, lease_id: str, owner: str | None = None) -> Lease:
        """Return a lease; raise NotFound, with ``owner`` also for another's."""
        return await self._leases((lease_id, owner))

    def known(self, lease_id: str) -> Lease | None:
        """Return a lease as it was last read or written here, to be changed and saved.

        It saves a look into the store; should it have changed since, saving it is refused.
        """
        return self._living.known.leases.get(lease_id)

    async def job_record(self, job_id: str) -> JobRecord:
        """Return a job with all that belongs to it; raise NotFound if there is none.

        One that is live comes from memory; should that be behind, saving it is refused.
        """
        if not self._is_current:
            await self.refresh()
        found = self._living.of_job(job_id)
        return await self.read(self.store.job_record, job_id) if found is None else found

    def concerned(self, written: Lease | Job) -> Collection[Job]:
        """Return the jobs to which a write is news that they wait for."""
        return self._living.mates.concerned(written)

    def known_job(self, job_id: str) -> Job | None:
        """Return a job that is not long over, as it was last read or written here."""
        return self._living.known.jobs.get(job_id)

    async def session(self, owner: str, name: str) -> Lease | None:
        """Return the live lease of a session, if it has one."""
        return await self._sessions((owner, name))

    async def live(self) -> Live:
        """Return all that is not over, from memory: every write goes through here."""
        if not self._is_current:
            await self.refresh()
        return self._living.live()

    async def queued(self) -> tuple[Lease, ...]:
        """Return the leases that wait."""
        if not self._is_current:
            await self.refresh()
        return tuple(self._living.queued.values())

    async def refresh(self) -> None:
        """Read what is not over from the store, should anybody else have written there."""
        # Reads and writes come back in the order they were made, so nothing newer is lost.
        self._living.begin(await self.read(self.store.live, self._living.known))
        self._is_current = True

    async def job(self, job_id: str, owner: str | None = None) -> Job:
        """Return a job; raise NotFound, with ``owner`` also for another's."""
        return await self.read(self.store.job, job_id, owner)

    async def gang(self, lease_id: str, owner: str | None = None) -> GangRecord:
        """Return a debug gang; raise NotFound, with ``owner`` also for another's."""
        return await self.read(self.store.gang, lease_id, owner)

    async def replicas(self, job_id: str, attempt: int | None = None) -> tuple[Replica, ...]:
        """Return the replicas of a job's attempt, or of all attempts."""
        return await self.read(self.store.replicas, job_id, attempt)

    def close(self) -> None:
        """Wait for the last write and end the thread."""
        self._thread.shutdown(wait=True)
        self.store.close()

    async def _write_each(self, writes: Sequence[Write]) -> list[Outcome]:
        """Write, and tell of what was written, also if who asked for it was cancelled since."""
        try:
            outcomes = await self.read(self.store.write_each, writes)
        except Exception:
            self._is_current = False
            raise
        for write, outcome in zip(writes, outcomes, strict=True):
            if isinstance(outcome, Exception):
                # Another process may have written, or the answer was lost on its way.
                self._is_current = False
            else:
                self._tell((*write.new, *outcome))
        return outcomes

    def _tell(self, objects: Iterable[Record]) -> None:
        told = tuple(objects)
        for written in told:
            self._living.put(written)
        for written in told:
            if not isinstance(written, Replica):
                for listener in self._listeners:
                    listener(written)
                self.bus.publish(written)
