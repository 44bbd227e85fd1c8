"""Replicas as processes of this machine, each under a supervisor that outlives the service.

The truth is in each replica's record (see `records` and `nimbus_hub.replica.supervisor`);
what this object holds in memory only makes it faster: a service that was killed finds
everything again by polling. Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import psutil

from nimbus_hub.errors import InvalidRequest, NimbusError, Unavailable
from nimbus_hub.executors.accounts import Account, Accounts
from nimbus_hub.executors.base import OnChange
from nimbus_hub.executors.commands import supervisor_spec
from nimbus_hub.executors.directories import JobDirectories, Unpack
from nimbus_hub.executors.gpus import find_gpus
from nimbus_hub.executors.limits import Limits, find_limits
from nimbus_hub.executors.processes import Process, boot_id, kill_members
from nimbus_hub.executors.records import Record, checked_id
from nimbus_hub.model.host import Host
from nimbus_hub.model.replica import LogChunk, ReplicaSpec, ReplicaState, ReplicaStatus
from nimbus_hub.replica import supervisor

__all__ = ["LocalExecutor"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

log = logging.getLogger(__name__)

MARGIN_SECONDS = 2.0
"""How much longer than the grace a supervisor may take before it is taken for hung."""

KILL_ROUNDS = 200
_CREATED = ReplicaStatus(ReplicaState.CREATED)
_STARTING = ReplicaStatus(ReplicaState.STARTING)


class LocalExecutor:
    """The executor ``local``; `Executor` says what each method means."""

    def __init__(
        self,
        state: Path,
        environments: Mapping[str, Path],
        unpack: Unpack,
        hosts: Sequence[Host] = (),
        cpu_overcommit: float = 2.0,
        *,
        accounts: Accounts | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Keep records below ``state``; find programs in ``environments`` (name to bin).

        Without ``hosts`` this machine is the one host, ``local``, with ``cpu_overcommit``
        times its CPUs. ``accounts`` and ``limits`` are what the system has unless given.
        """
        self._records = state / "replicas"
        self._environments = environments
        self._declared = tuple(hosts)
        self._overcommit = cpu_overcommit
        self._accounts = accounts or Accounts(Account.current())
        self._limits = limits or find_limits()
        service = self._accounts.service
        self._directories = JobDirectories(state / "staging", unpack, service, sys.executable)
        self._pool = ThreadPoolExecutor(8, "local-executor")
        self._start_pool = ThreadPoolExecutor(4, "local-executor-start")
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._launches: dict[str, asyncio.Task[None]] = {}
        self._stops: dict[str, asyncio.Task[None]] = {}
        self._watched: dict[str, int] = {}
        self._known: set[str] = set()
        self._on_change: OnChange = lambda replica_id: None

    async def hosts(self) -> tuple[Host, ...]:
        """Return the declared hosts, or this machine."""
        return self._declared or (await self._in_pool(self._discover),)

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
        record = self._record(replica_id)
        reading = await self._in_pool(record.read)
        if reading.status is not None and reading.is_over:
            return reading.status
        if reading.supervisor is not None:
            self._known.add(replica_id)
            if not reading.is_supervised:
                return await self._lost(replica_id, record)
            self._observe(replica_id, reading.supervisor)
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
            reading.supervisor.send(signal.SIGTERM)
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

    def watch(self, on_change: OnChange) -> None:
        """Call back within milliseconds of a replica's start and end."""
        self._on_change = on_change

    async def close(self) -> None:
        """Let go of everything here; replicas go on."""
        tasks = [*self._launches.values(), *self._stops.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for replica_id in list(self._watched):
            self._forget(replica_id)
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
        lock = self._locks.setdefault(spec.job_id, asyncio.Lock())
        async with lock:
            account, directory = await self._in_start_pool(self._prepare, spec)
        if record.is_stopping():
            await self._in_pool(record.write_end, "stopped before it was started")
            return
        pid, ready = await self._in_start_pool(self._spawn, spec, record, account, directory)
        await _until_closed(ready)
        reading = await self._in_pool(record.read)
        if reading.supervisor is not None:
            if not self._observe(spec.id, reading.supervisor):
                # Over already, or a kernel that cannot tell: a child must be collected.
                threading.Thread(target=_exit_code, args=(pid,), daemon=True).start()
            return
        # 0: another supervisor was first, started by a service that has been killed since.
        if not reading.is_over and await self._in_pool(_exit_code, pid) != 0:
            words = await self._in_pool(record.last_words)
            await self._refuse(spec.id, record, f"its supervisor failed: {words}")

    def _prepare(self, spec: ReplicaSpec) -> tuple[Account, Path]:
        """Find the account and make the job's directories; blocks."""
        account = self._accounts.find(spec.owner)
        if spec.environment not in self._environments:
            known = ", ".join(sorted(self._environments)) or "none"
            raise InvalidRequest(f"there is no environment {spec.environment!r}; known: {known}")
        return account, self._directories.prepare(account, spec.owner, spec.job_id, spec.snapshot)

    def _spawn(
        self, spec: ReplicaSpec, record: Record, account: Account, directory: Path
    ) -> tuple[int, int]:
        """Start the supervisor; return its pid and what closes when the program runs."""
        limits = self._limits.create(spec.id, spec.cpus_milli, spec.memory_bytes)
        service, programs = self._accounts.service, self._environments[spec.environment]
        record.write_spec(supervisor_spec(spec, service, account, programs, directory, limits))
        ready, sink = os.pipe()
        # Without a shell, an inherited environment or a controlling terminal.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", supervisor.__file__, str(record.path), "3"],
                {"LANG": "C.UTF-8"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, str(record.path / "supervisor.log"), flags, 0o600),
                    (os.POSIX_SPAWN_DUP2, sink, 3),
                ],
                setsid=True,
                setsigmask=[],
            )
        except OSError:
            os.close(ready)
            raise
        finally:
            os.close(sink)
        log.info("replica %s has the supervisor %d", spec.id, pid)
        return pid, ready

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
        await self._kill(replica_id, record, reading.session)
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
        elif not await self._kill(replica_id, record, reading.session):
            reason = "its supervisor was killed; some of its processes cannot be ended"
        log.warning("replica %s is lost: %s", replica_id, reason)
        return await self._in_pool(partial(record.write_end, reason, state=ReplicaState.LOST))

    async def _kill(self, replica_id: str, record: Record, session: int | None) -> bool:
        """Kill all processes of a replica, however fast they fork; tell whether all are gone."""
        groups = await self._in_pool(record.groups)
        for _ in range(KILL_ROUNDS):
            if not await self._in_pool(kill_members, replica_id, session, groups):
                break
            await asyncio.sleep(0.01)
        else:
            return False
        _remove(groups)
        return True

    def _observe(self, replica_id: str, process: Process) -> bool:
        """Have the end of a supervisor noticed at once; tell whether that can be done."""
        if replica_id in self._watched:
            return True
        try:
            descriptor = process.open()
        except OSError:
            return False
        if descriptor is None:
            return False
        self._watched[replica_id] = descriptor
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, self._ended, replica_id, process.pid)
        return True

    def _ended(self, replica_id: str, pid: int) -> None:
        self._forget(replica_id)
        # If it is a child of this very process, it waits to be collected.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        enforcement = self._stops.pop(replica_id, None)
        if enforcement is not None:
            enforcement.cancel()
        self._on_change(replica_id)

    def _forget(self, replica_id: str) -> None:
        descriptor = self._watched.pop(replica_id)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)

    def _discover(self) -> Host:
        return Host(
            name="local",
            cpus_milli=round((os.cpu_count() or 1) * self._overcommit * 1000),
            memory_bytes=psutil.virtual_memory().total,
            gpus=find_gpus(),
            labels={"hostname": socket.gethostname().partition(".")[0]},
        )

    def _record(self, replica_id: str) -> Record:
        return Record(self._records / checked_id(replica_id))

    async def _in_pool(self, call: Callable[[*Ts], R], *args: *Ts) -> R:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)
        except OSError as error:
            raise Unavailable(f"the local executor's records cannot be used: {error}") from error

    async def _in_start_pool(self, call: Callable[[*Ts], R], *args: *Ts) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._start_pool, call, *args)


async def _until_closed(descriptor: int) -> None:
    """Wait until the other end of a pipe is closed, then close this one."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    loop.add_reader(descriptor, closed.set)
    try:
        await closed.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _remove(groups: Iterable[Path]) -> None:
    """Take control groups away; one that is in use or gone already is left alone."""
    for group in groups:
        with contextlib.suppress(OSError):
            group.rmdir()


def _exit_code(pid: int) -> int:
    """Wait for a child and return its exit code; 0 if it was collected already."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return 0
