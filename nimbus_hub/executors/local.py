"""Replicas as processes of this machine, each under a supervisor that outlives the service.

The truth is in each replica's record (see `records` and `nimbus_hub.replica.supervisor`);
what this object holds in memory only makes it faster: a service that was killed finds
everything again by polling. Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from nimbus_hub.errors import Ended, NimbusError, Unavailable
from nimbus_hub.executors.accounts import Account, Accounts
from nimbus_hub.executors.base import OnChange
from nimbus_hub.executors.directories import JobDirectories, Snapshots
from nimbus_hub.executors.files import JobFiles
from nimbus_hub.executors.gpus import held_memory
from nimbus_hub.executors.holders import HeldRun
from nimbus_hub.executors.inputs import write_input
from nimbus_hub.executors.limits import Limits, find_limits
from nimbus_hub.executors.machine import this_machine
from nimbus_hub.executors.places import Place, Places
from nimbus_hub.executors.processes import boot_id, kill_members
from nimbus_hub.executors.records import Reading, Record, checked_id
from nimbus_hub.executors.supervisors import exit_code, until_closed
from nimbus_hub.executors.usage import UsageReader
from nimbus_hub.executors.watches import Watches
from nimbus_hub.model.file import FileList, FilePart
from nimbus_hub.model.host import HeldMemory, Host
from nimbus_hub.model.replica import LogChunk, ReplicaSpec, ReplicaState, ReplicaStatus, Usage

__all__ = ["LocalExecutor"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

log = logging.getLogger(__name__)

MARGIN_SECONDS = 2.0
"""How much longer than the grace a supervisor may take before it is taken for hung."""

HAND_OVER_SECONDS = 5.0
"""How long a holder may take to begin; then a replica is started like any other."""

KILL_ROUNDS = 200
_CREATED = ReplicaStatus(ReplicaState.CREATED)
_STARTING = ReplicaStatus(ReplicaState.STARTING)


class LocalExecutor:
    """The executor ``local``; `Executor` says what each method means."""

    def __init__(
        self,
        state: Path,
        environments: Mapping[str, Path],
        snapshots: Snapshots,
        hosts: Sequence[Host] = (),
        cpu_overcommit: float = 2.0,
        *,
        accounts: Accounts | None = None,
        limits: Limits | None = None,
        seen: Callable[[datetime], datetime] = lambda moment: moment,
    ) -> None:
        """Keep records below ``state``; find programs in ``environments`` (name to bin).

        Without ``hosts`` this machine is the one host, ``local``, with ``cpu_overcommit``
        times its CPUs. ``accounts`` and ``limits`` are what the system has unless given.
        ``seen`` says when it was for the service that the system clock showed a moment.
        """
        self._records = state / "replicas"
        self._declared, self._overcommit = tuple(hosts), cpu_overcommit
        accounts = accounts or Accounts(Account.current())
        directories = JobDirectories(state / "staging", snapshots, accounts.service, sys.executable)
        self._places = Places(accounts, environments, directories, limits or find_limits())
        self._seen = seen
        self._pool = ThreadPoolExecutor(8, "local-executor")
        self._start_pool = ThreadPoolExecutor(4, "local-executor-start")
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._launches: dict[str, asyncio.Task[None]] = {}
        self._stops: dict[str, asyncio.Task[None]] = {}
        self._watches = Watches(self._tell, self._ended)
        self._known: set[str] = set()
        self._on_change: OnChange = lambda replica_id: None
        self._usage = UsageReader()
        self._files = JobFiles(sys.executable)

    async def hosts(self) -> tuple[Host, ...]:
        """Return the declared hosts, or this machine."""
        return self._declared or (await self._in_pool(this_machine, self._overcommit),)

    async def start(self, spec: ReplicaSpec) -> None:
        """Start a replica, at most once, whoever asks and however often."""
        record = self._record(spec.id)
        if spec.id in self._launches:
            return
        try:
            record.make()
        except OSError as error:
            raise Unavailable(f"replicas cannot be recorded: {error}") from error
        self._known.add(spec.id)
        self._launches[spec.id] = asyncio.create_task(self._launch(spec, record))

    async def poll(self, replica_id: str) -> ReplicaStatus:
        """Return what the record says, after a look at who is alive."""
        return (await self._look(replica_id)).by_clock(self._seen)

    async def _look(self, replica_id: str) -> ReplicaStatus:
        record = self._record(replica_id)
        reading = await self._in_pool(record.read)
        if reading.status is not None and reading.is_over:
            return reading.status
        if reading.supervisor is not None:
            self._known.add(replica_id)
            if not reading.is_supervised:
                return await self._lost(replica_id, record)
            if replica_id not in self._launches:
                self._observe(replica_id, record, reading)
            return reading.status or _STARTING
        if replica_id in self._launches:
            return _STARTING
        if replica_id in self._known and not record.exists():
            return ReplicaStatus(ReplicaState.LOST, reason="its record is gone from the disk")
        return _CREATED

    async def stop(self, replica_id: str, grace_seconds: float) -> None:
        """Tell the supervisor to end it, and see to it that this happens."""
        record = self._record(replica_id)
        if (await self._in_pool(record.read)).is_over:
            return
        await self._in_pool(record.make)
        await self._in_pool(record.write_stop, grace_seconds)
        reading = await self._in_pool(record.read)
        if reading.supervisor is not None:
            # Its holder is not meant.
            is_own = reading.holder is None
            reading.supervisor.send(signal.SIGTERM if is_own else signal.SIGUSR1)
            if replica_id not in self._stops:
                enforcement = self._enforce(replica_id, record, grace_seconds)
                self._stops[replica_id] = asyncio.create_task(enforcement)
        elif replica_id not in self._launches:
            await self._in_pool(record.write_end, "stopped before it was started")
            self._on_change(replica_id)

    async def read_output(self, replica_id: str, offset: int, limit: int) -> LogChunk:
        """Return bytes of the replica's log."""
        record = self._record(replica_id)
        chunk = await self._in_pool(record.read_output, offset, limit)
        if not chunk.is_complete and replica_id in self._known and not record.exists():
            return LogChunk(chunk.offset, b"", True)
        return chunk

    def keeps(self, replica_id: str) -> bool:
        """Tell whether there is a record."""
        return self._record(replica_id).exists()

    async def write_input(self, replica_id: str, data: bytes) -> None:
        """Write to the pipe it reads from, or have its supervisor end that."""
        record = self._record(replica_id)
        reading = await self._in_pool(record.read)
        if reading.is_over:
            raise Ended(f"replica {replica_id} is over and reads nothing any more")
        # One after the other: a long text is written in pieces.
        async with self._locks.setdefault(replica_id, asyncio.Lock()):
            if data:
                await write_input(record, data)
                return
            await self._in_pool(record.write_input_end)
        # Its supervisor was there before and is told, or has yet to look for that.
        reading = await self._in_pool(record.read)
        if reading.supervisor is not None:
            reading.supervisor.send(signal.SIGUSR1)

    async def measure(self, replica_ids: Collection[str]) -> dict[str, Usage]:
        """Return what the kernel, the driver and the records tell of use."""
        records = {replica_id: self._record(replica_id) for replica_id in replica_ids}
        return await self._in_pool(self._usage.read, records)

    async def heard(self, replica_ids: Collection[str]) -> dict[str, datetime]:
        """Return what the file system tells of logs."""
        records = [self._record(replica_id) for replica_id in replica_ids]
        found = [await self._in_pool(self._files.heard_at, record) for record in records]
        return {
            replica_id: self._seen(at)
            for replica_id, at in zip(replica_ids, found, strict=True)
            if at is not None
        }

    async def find_files(self, replica_id: str, path: str, limit: int) -> FileList:
        """Return what is in the job's directories now."""
        return await self._in_pool(self._files.find, self._record(replica_id), path, limit)

    async def read_file(self, replica_id: str, path: str, offset: int, limit: int) -> FilePart:
        """Return bytes of a file in the job's directories."""
        return await self._in_pool(self._files.read, self._record(replica_id), path, offset, limit)

    async def delete(
        self, job_id: str, replica_ids: Collection[str], workspace: str | None = None
    ) -> None:
        """Delete directories in the owner's home, as the owner, and records."""
        records = [self._record(replica_id) for replica_id in replica_ids]
        names = [job_id] if workspace is None else [job_id, workspace]
        await self._in_pool(self._files.delete, records, names)
        self._known.difference_update(replica_ids)

    async def gpu_memory(self, name: str) -> dict[int, HeldMemory]:
        """Return what this machine's driver tells."""
        return await self._in_pool(held_memory)

    def watch(self, on_change: OnChange) -> None:
        """Call back within milliseconds of a replica's start and end."""
        self._on_change = on_change

    async def close(self) -> None:
        """Let go of everything here; replicas go on."""
        tasks = [*self._launches.values(), *self._stops.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._watches.close()
        self._usage.close()
        self._pool.shutdown(wait=False)
        self._start_pool.shutdown(wait=False)

    async def _launch(self, spec: ReplicaSpec, record: Record) -> None:
        """Bring a replica from its spec to a running program, or record why not."""
        try:
            reading = await self._in_pool(record.read)
            if reading.supervisor is None and reading.status is None:
                await self._begin(spec, record)
        except NimbusError as error:
            await self._refuse(spec.id, record, error.message)
        except OSError as error:
            await self._refuse(spec.id, record, f"it cannot be started: {error}")
        except Exception as error:
            # Whatever an unpacker raises: a replica must not stay in `starting` for ever.
            log.exception("replica %s could not be started", spec.id)
            await self._refuse(spec.id, record, f"{type(error).__name__}: {error}")
        finally:
            del self._launches[spec.id]
        self._on_change(spec.id)

    async def _begin(self, spec: ReplicaSpec, record: Record) -> None:
        is_taken = False
        async with self._locks.setdefault(spec.workspace or spec.job_id, asyncio.Lock()):
            place = await self._in_start_pool(self._places.prepare, spec)
            if record.is_stopping():
                await self._in_pool(record.write_end, "stopped before it was started")
                return
            if spec.holder is not None:
                # One after the other, as asked: the first of a gang listens where the others
                # will connect, and who finds nobody there waits long to try again.
                is_taken = await self._hand_over(spec, place, record, self._record(spec.holder))
        if not is_taken:
            await self._supervise(spec, place, record)

    async def _supervise(self, spec: ReplicaSpec, place: Place, record: Record) -> None:
        """Start a supervisor, and wait until the replica runs or is over."""
        pid, ready = await self._in_start_pool(self._places.spawn, spec, place, record)
        log.info("replica %s has the supervisor %d", spec.id, pid)
        await until_closed(ready)
        reading = await self._in_pool(record.read)
        if reading.supervisor is not None:
            is_observed = self._observe(spec.id, record, reading)
            if not is_observed or reading.holder is not None:
                # Over already, a kernel that cannot tell, or its holder was first after all:
                # a child must be collected.
                threading.Thread(target=exit_code, args=(pid,), daemon=True).start()
            if reading.holder is not None:
                # It is within that one's limits; those made for a supervisor are nobody's.
                groups = await self._in_pool(record.groups)
                holder = self._record(reading.holder)
                await self._in_pool(self._places.write, spec, place, record, holder)
                _remove(groups)
            return
        # 0: another supervisor was first, started by a service that has been killed since.
        if not reading.is_over and await self._in_pool(exit_code, pid) != 0:
            words = await self._in_pool(record.last_words)
            await self._refuse(spec.id, record, f"its supervisor failed: {words}")

    async def _hand_over(
        self, spec: ReplicaSpec, place: Place, record: Record, holder: Record
    ) -> bool:
        """Have a replica run in its holder's place; tell whether that has taken it."""
        await self._in_pool(self._places.write, spec, place, record, holder)
        run = await HeldRun.begin(holder, record)
        if run is None:
            return False
        is_taken = False
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HAND_OVER_SECONDS):
                    await run.has_changed()
            reading = await self._in_pool(record.read)
            is_taken = reading.supervisor is not None or reading.status is not None
        finally:
            if is_taken:
                self._watches.follow(spec.id, run)
            else:
                run.close()
        how = "runs in the place of" if is_taken else "starts anew, for it is not ready:"
        log.info("replica %s %s %s", spec.id, how, spec.holder)
        return is_taken

    async def _refuse(self, replica_id: str, record: Record, reason: str) -> None:
        log.info("replica %s cannot run: %s", replica_id, reason)
        try:
            await self._in_pool(record.write_end, reason)
            _remove(await self._in_pool(record.groups))
        except Unavailable as error:
            log.warning("replica %s: the end cannot be recorded: %s", replica_id, error)

    async def _enforce(self, replica_id: str, record: Record, grace_seconds: float) -> None:
        """End a replica whose supervisor hangs."""
        await asyncio.sleep(grace_seconds + MARGIN_SECONDS)
        reading = await self._in_pool(record.read)
        if reading.is_over or reading.supervisor is None:
            return
        log.warning("replica %s: its supervisor does not answer, killing it", replica_id)
        await self._kill(replica_id, record, reading)
        # Recorded before the supervisor is gone: without a record it would count as lost.
        reason = "stopped; killed together with its supervisor, which did not answer"
        await self._in_pool(record.write_end, reason, -int(signal.SIGKILL))
        reading.supervisor.send(signal.SIGKILL)

    async def _lost(self, replica_id: str, record: Record) -> ReplicaStatus:
        """Record a replica whose supervisor is gone without a word, and leave nothing of it."""
        reading = await self._in_pool(record.read)
        reason = "its supervisor was killed, and so it was ended"
        if reading.supervisor is not None and reading.supervisor.boot_id != boot_id():
            reason = "the host was restarted while it ran"
        elif not await self._kill(replica_id, record, reading):
            reason = "its supervisor was killed; some of its processes cannot be ended"
        log.warning("replica %s is lost: %s", replica_id, reason)
        return await self._in_pool(partial(record.write_end, reason, state=ReplicaState.LOST))

    async def _kill(self, replica_id: str, record: Record, reading: Reading) -> bool:
        """Kill all processes of a replica, however fast they fork; tell whether all are gone.

        One that ran in its holder's place has no supervisor without that: both end.
        """
        ids = [replica_id] if reading.holder is None else [replica_id, reading.holder]
        groups = await self._in_pool(record.groups)
        for _ in range(KILL_ROUNDS):
            if not await self._in_pool(kill_members, ids, reading.session, groups):
                break
            await asyncio.sleep(0.01)
        else:
            return False
        _remove(groups)
        return True

    def _observe(self, replica_id: str, record: Record, reading: Reading) -> bool:
        """Have changes, or at least the end, noticed at once; tell whether that can be done."""
        assert reading.supervisor is not None
        if reading.holder is None:
            return self._watches.watch(replica_id, reading.supervisor)
        self._watches.find(replica_id, record, self._record(reading.holder))
        return True

    def _tell(self, replica_id: str) -> None:
        self._on_change(replica_id)

    def _ended(self, replica_id: str) -> None:
        """Take note of an end: whoever was to enforce it need not."""
        enforcement = self._stops.pop(replica_id, None)
        if enforcement is not None:
            enforcement.cancel()
        self._on_change(replica_id)

    def _record(self, replica_id: str) -> Record:
        return Record(self._records / checked_id(replica_id))

    async def _in_pool(self, call: Callable[[*Ts], R], *args: *Ts) -> R:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)
        except OSError as error:
            raise Unavailable(f"the local executor's records cannot be used: {error}") from error

    async def _in_start_pool(self, call: Callable[[*Ts], R], *args: *Ts) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._start_pool, call, *args)


def _remove(groups: Iterable[Path]) -> None:
    """Take control groups away; one that is in use or gone already is left alone."""
    for group in groups:
        with contextlib.suppress(OSError):
            group.rmdir()
