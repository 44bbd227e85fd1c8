"""Replicas as containers: the executor ``docker``; see `executors.base.Executor`.

The truth is in the engines and in the records below the state directory, so a service that was
killed finds everything again by polling. An engine that does not answer says nothing of its
replicas: that is Unavailable, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from nimbus_hub.clock import SystemClock
from nimbus_hub.errors import Conflict, Ended, NimbusError, NotFound, Unavailable
from nimbus_hub.executors.base import OnChange
from nimbus_hub.executors.directories import Snapshots
from nimbus_hub.executors.docker.checks import check_engine
from nimbus_hub.executors.docker.containers import container_name
from nimbus_hub.executors.docker.disks import Disks
from nimbus_hub.executors.docker.ends import is_over
from nimbus_hub.executors.docker.engine import EngineClient, Engines
from nimbus_hub.executors.docker.files import Inside, Results
from nimbus_hub.executors.docker.gpus import query_memory
from nimbus_hub.executors.docker.images import Images
from nimbus_hub.executors.docker.networks import Networks
from nimbus_hub.executors.docker.policy import Policy
from nimbus_hub.executors.docker.runs import Runs
from nimbus_hub.executors.docker.sessions import remove_session, sessions
from nimbus_hub.executors.docker.usage import EngineUsage
from nimbus_hub.executors.docker.volumes import Volumes
from nimbus_hub.executors.files import Directory
from nimbus_hub.executors.records import Record, checked_id, refuse_live
from nimbus_hub.model.check import HostCheck
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.file import FileList, FilePart
from nimbus_hub.model.host import HeldMemory, Host
from nimbus_hub.model.replica import LogChunk, ReplicaSpec, ReplicaState, ReplicaStatus, Usage

__all__ = ["DockerExecutor", "FindHosts"]

FindHosts = Callable[[Sequence[EngineClient]], Awaitable[tuple[Host, ...]]]
"""Returns the hosts that engines are, those that do not answer as down."""

R = TypeVar("R")

log = logging.getLogger(__name__)

WRITE_SECONDS = 5.0
FRESH_SECONDS = 10
"""Output that is so new is a sign of life; files are not looked at then."""
_CREATED = ReplicaStatus(ReplicaState.CREATED)


class DockerExecutor:
    """The executor ``docker``; `Executor` says what each method means."""

    def __init__(
        self,
        state: Path,
        engines: Callable[[], Sequence[Engine]],
        environments: Mapping[str, str],
        snapshots: Snapshots,
        find_hosts: FindHosts,
        policy: Policy | None = None,
        *,
        seen: Callable[[datetime], datetime] = lambda moment: moment,
    ) -> None:
        """Keep records and results below ``state``, which no other executor uses.

        ``environments`` are images by name. ``engines`` are asked for again and again: the
        cluster may change. ``seen`` says when it was for the service that the system clock
        showed a moment.
        """
        policy = policy or Policy()
        self._records = state / "replicas"
        self._engines = Engines(engines)
        self._images = Images(policy.credentials)
        results = Results(state / "results")
        volumes = Volumes(snapshots, results, state / "staging", self._record, policy.storage)
        self.disks = Disks()
        self._runs = Runs(
            self._engines,
            self._images,
            volumes,
            Networks(self._engines),
            self.disks,
            policy,
            environments,
            self._record,
        )
        self._usage = EngineUsage()
        self._runs.cpu_seconds = self._usage.cpu_seconds
        self._find_hosts = find_hosts
        self._environments = environments
        self._credentials = policy.credentials
        self._seen = seen
        self._known: set[str] = set()
        self._sweeps: set[asyncio.Task[None]] = set()
        self._input_locks: dict[str, asyncio.Lock] = {}

    async def hosts(self) -> tuple[Host, ...]:
        """Return the hosts that the engines are; what an earlier service left there is removed."""
        clients = self._engines.all()
        hosts = await self._find_hosts(clients)
        for client in clients:
            task = asyncio.create_task(self._sweep(client))
            self._sweeps.add(task)
            task.add_done_callback(self._sweeps.discard)
        return tuple(map(self.disks.marked, hosts))

    async def _sweep(self, client: EngineClient) -> None:
        try:
            await self._runs.sweep(client)
        except NimbusError as error:
            log.info("host %s is swept another time: %s", client.engine.host, error)

    async def check_host(self, name: str) -> tuple[HostCheck, ...]:
        """Return what works on an engine's host."""
        return await self._check(self._engines.of(name))

    async def check_engine(self, engine: Engine) -> tuple[HostCheck, ...]:
        """Return what works on an engine that no host is of yet."""
        client = EngineClient(engine)
        try:
            return await self._check(client)
        finally:
            client.close()

    async def _check(self, client: EngineClient) -> tuple[HostCheck, ...]:
        images = tuple(dict.fromkeys(self._environments.values()))
        now = SystemClock().now
        checks = await client.carry(check_engine, client, images, self._credentials, now)
        return (*checks, *await self._runs.networks.check(client))

    def engine(self, name: str) -> Engine:
        """Return the engine of a host."""
        return self._engines.of(name).engine

    async def sessions(self, name: str) -> frozenset[str]:
        """Return the leases of sessions that are on a host."""
        client = self._engines.of(name)
        return await client.call(sessions, client)

    async def remove_session(self, name: str, lease_id: str) -> None:
        """Remove the container of a session."""
        client = self._engines.of(name)
        await client.carry(remove_session, client, lease_id)

    async def start(self, spec: ReplicaSpec) -> None:
        """Start a replica, at most once, whoever asks and however often."""
        record = self._record(spec.id)
        checked_id(spec.job_id)
        try:
            record.make()
        except OSError as error:
            raise Unavailable(f"replicas cannot be recorded: {error}") from error
        self._known.add(spec.id)
        status = record.read().status
        # In `starting` a service may have been killed just before the container was started.
        if status is None or status.state is ReplicaState.STARTING:
            self._runs.start(spec)

    async def poll(self, replica_id: str) -> ReplicaStatus:
        """Return what the record says, after a look at the container."""
        return (await self._look(replica_id)).by_clock(self._seen)

    async def _look(self, replica_id: str) -> ReplicaStatus:
        record = self._record(replica_id)
        status = record.read().status
        if status is not None and status.state.is_end:
            return status
        launching = self._runs.launching(replica_id)
        if launching is not None:
            return launching
        if status is None:
            if replica_id in self._known and not record.exists():
                return ReplicaStatus(ReplicaState.LOST, reason="its record is gone from the disk")
            # If its start was cut off, it is asked for again.
            return _CREATED
        client = self._engines.of(record.spec()["host"])
        found = await client.call(client.inspect, container_name(replica_id))
        if found is not None and found["State"]["Status"] == "created":
            return await self._not_begun(replica_id, record)
        self._runs.note_running(replica_id, found)
        self._runs.observe(replica_id, found is None or is_over(found))
        return record.read().status or _CREATED

    async def _not_begun(self, replica_id: str, record: Record) -> ReplicaStatus:
        """Tell of a container that a service made and was killed before it started it."""
        launching = self._runs.launching(replica_id)
        if launching is not None or not record.is_stopping():
            return launching or _CREATED
        return await self._never(replica_id, record)

    async def stop(self, replica_id: str, grace_seconds: float) -> None:
        """Record that it is to end, and have that happen."""
        record = self._record(replica_id)
        status = record.read().status
        if status is not None and status.state.is_end:
            return
        record.make()
        record.write_stop(grace_seconds)
        if status is None and not self._runs.is_launching(replica_id):
            await self._never(replica_id, record)
            self._runs.on_change(replica_id)
        else:
            self._runs.stop(replica_id, grace_seconds)

    async def _never(self, replica_id: str, record: Record) -> ReplicaStatus:
        """Record that a replica will not start, and take away what was made of it."""
        status = record.write_end("stopped before it was started")
        if spec := record.spec():
            with suppress(NimbusError):
                await self._runs.clear(replica_id, spec["host"], spec["job_id"])
        return status

    async def read_output(self, replica_id: str, offset: int, limit: int) -> LogChunk:
        """Return bytes of what was followed."""
        record = self._record(replica_id)
        chunk = record.read_output(offset, limit)
        if not chunk.is_complete and replica_id in self._known and not record.exists():
            return LogChunk(chunk.offset, b"", True)
        return chunk

    def keeps(self, replica_id: str) -> bool:
        """Tell whether there is a record."""
        return self._record(replica_id).exists()

    async def write_input(self, replica_id: str, data: bytes) -> None:
        """Write to the connection that was made before the start."""
        record = self._record(replica_id)
        reading = record.read()
        if reading.is_over:
            raise Ended(f"replica {replica_id} is over and reads nothing any more")
        connection = self._runs.inputs.get(replica_id)
        if connection is None or reading.status is None:
            raise Conflict(f"replica {replica_id} takes no input, or does not read it now")
        client = self._engines.of(record.spec()["host"])
        # One after the other: a long text is written in pieces.
        async with self._input_locks.setdefault(replica_id, asyncio.Lock()):
            if not data:
                connection.close()
                self._runs.inputs.pop(replica_id, None)
                return
            try:
                await client.carry(connection.write, data, WRITE_SECONDS)
            except OSError as error:
                words = f"replica {replica_id} does not read what was written before"
                raise Conflict(words) from error

    async def measure(self, replica_ids: Collection[str]) -> dict[str, Usage]:
        """Return what engines tell of those that run, and what was seen of the others."""
        running: dict[str, EngineClient] = {}
        over: dict[str, Usage] = {}
        for replica_id in replica_ids:
            record = self._record(replica_id)
            reading, seconds = record.read(), record.cpu_seconds()
            if reading.is_over and seconds is not None:
                over[replica_id] = Usage(seconds)
            elif reading.status is not None and not reading.is_over:
                with suppress(Unavailable):
                    running[replica_id] = self._engines.of(record.spec()["host"])
        return {**await self._usage.read(running), **over}

    async def heard(self, replica_ids: Collection[str]) -> dict[str, datetime]:
        """Return when output came, and when a log directory changed."""
        found = await asyncio.gather(*map(self._heard_at, replica_ids))
        return {
            replica_id: self._seen(at)
            for replica_id, at in zip(replica_ids, found, strict=True)
            if at is not None
        }

    async def _heard_at(self, replica_id: str) -> datetime | None:
        record = self._record(replica_id)
        output_at = record.output_changed_at()
        now = SystemClock().now()
        if output_at is not None and now - output_at < timedelta(seconds=FRESH_SECONDS):
            return output_at
        logs_at = None
        with suppress(NimbusError):
            files = await self._shared(record) or await self._inside(record.spec())
            if files is not None:
                changed = await self._ask(files, lambda found: found.newest("logs"))
                logs_at = datetime.fromtimestamp(changed / 1e9, UTC) if changed else None
        return max((at for at in (output_at, logs_at) if at is not None), default=None)

    async def find_files(self, replica_id: str, path: str, limit: int) -> FileList:
        """Return what is in the job's directory, or was kept of it."""
        record = self._record(replica_id)
        if record.read().status is None:
            return FileList(())
        return await self._ask(await self._files(record), lambda files: files.find(path, limit))

    async def read_file(self, replica_id: str, path: str, offset: int, limit: int) -> FilePart:
        """Return bytes of a file in the job's directory, or of what was kept of it."""
        record = self._record(replica_id)
        if record.read().status is None:
            raise NotFound(f"there is no file {path}: the job has not started")
        files = await self._files(record)
        return await self._ask(files, lambda found: found.read(path, offset, limit))

    async def delete(
        self, job_id: str, replica_ids: Collection[str], workspace: str | None = None
    ) -> None:
        """Delete directories on storage, what was kept, and records; there are no workspaces."""
        records = [self._record(replica_id) for replica_id in replica_ids]
        refuse_live(records)
        await self._runs.volumes.delete(self._engines.all(), checked_id(job_id), records)
        for record in records:
            await asyncio.to_thread(record.delete)
        self._known.difference_update(replica_ids)

    async def gpu_memory(self, name: str) -> dict[int, HeldMemory]:
        """Return what the driver of an engine's host tells."""
        client = self._engines.of(name)
        image = next(iter(self._environments.values()), "")
        return await client.carry(query_memory, client, image, self._credentials)

    def watch(self, on_change: OnChange) -> None:
        """Call back within milliseconds of a replica's start and end."""
        self._runs.on_change = on_change

    async def close(self) -> None:
        """Let go of everything here; containers go on."""
        for task in self._sweeps:
            task.cancel()
        await asyncio.gather(*self._sweeps, return_exceptions=True)
        await self._runs.close()
        await self.disks.close()
        await self._images.close()
        self._engines.close()

    async def _files(self, record: Record) -> Inside | Directory:
        """Return where a job's files are read: on storage, in a container, or as they were kept."""
        shared = await self._shared(record)
        return shared or await self._inside_or_kept(record) or await self._kept(record.spec())

    async def _ask(self, files: Inside | Directory, ask: Callable[[Inside | Directory], R]) -> R:
        if isinstance(files, Inside):
            return await files.client.carry(ask, files)
        return await asyncio.to_thread(ask, files)

    async def _shared(self, record: Record) -> Directory | None:
        """Return a job's directory on storage that the service has, too."""
        return await asyncio.to_thread(self._runs.volumes.shared, record)

    async def _inside(self, spec: Mapping[str, Any]) -> Inside | None:
        """Return a running container of a job on the replica's host."""
        if not spec:
            return None
        client = self._engines.of(spec["host"])
        for each in await client.call(client.containers, spec["job_id"]):
            if each["State"] == "running":
                return Inside(client, each["Id"], spec["job_id"])
        return None

    async def _inside_or_kept(self, record: Record) -> Inside | None:
        """Return the same; nothing for a silent engine if all was kept that there was then."""
        spec = record.spec()
        try:
            return await self._inside(spec)
        except Unavailable:
            kept = self._runs.volumes.kept(spec["job_id"], spec["host"])
            if record.read().is_over and kept.is_dir():
                return None
            raise

    async def _kept(self, spec: Mapping[str, Any]) -> Directory:
        """Return where what a job left is, when it is all there."""
        volumes = self._runs.volumes
        async with volumes.lock(spec["host"], spec["job_id"]):
            return Directory(str(volumes.kept(spec["job_id"], spec["host"])))

    def _record(self, replica_id: str) -> Record:
        return Record(self._records / checked_id(replica_id))
