"""What an engine has to do for a replica, from its start to the end that is recorded.

Each step may be cut off at any instant and be done again: names say what is there already. An
end is recorded when the output is whole and, for the last of a job on its engine, when what
the job leaves is kept; only then is the container removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nimbus_hub.errors import InvalidRequest, NimbusError, NotFound, Unavailable
from nimbus_hub.executors.docker.containers import (
    JOB_LABEL,
    REPLICA_LABEL,
    container,
    container_name,
    job_directory,
)
from nimbus_hub.executors.docker.disks import Disks, is_full
from nimbus_hub.executors.docker.ends import belongs_to, by_signal, end_of, moment
from nimbus_hub.executors.docker.engine import EngineClient, Engines, Input, Pieces
from nimbus_hub.executors.docker.following import Container, followed
from nimbus_hub.executors.docker.images import Images
from nimbus_hub.executors.docker.logs import Follower
from nimbus_hub.executors.docker.networks import Networks
from nimbus_hub.executors.docker.policy import Policy
from nimbus_hub.executors.docker.stops import Stops
from nimbus_hub.executors.docker.volumes import Volumes
from nimbus_hub.executors.records import Record
from nimbus_hub.model.replica import ReplicaSpec, ReplicaState, ReplicaStatus

__all__ = ["Runs"]

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
DEAD_SECONDS = 10.0
"""How long a connection may give nothing of a container that is over."""

_NEVER = "stopped before it was started"


@dataclass(slots=True)
class _Launch:
    """A start that goes on; ``image`` is what is being pulled for it, if it is not there yet."""

    spec: ReplicaSpec
    task: asyncio.Task[None] | None = None
    image: str = ""
    has_image: bool = False


@dataclass(slots=True)
class _Watch:
    follower: Follower
    task: asyncio.Task[None] | None = None
    is_hurried: bool = False
    is_ending: bool = False


@dataclass(slots=True)
class Runs:
    """Starts, watches and ends containers, each in tasks of its own."""

    engines: Engines
    images: Images
    volumes: Volumes
    networks: Networks
    disks: Disks
    policy: Policy
    environments: Mapping[str, str]
    record: Callable[[str], Record]
    on_change: Callable[[str], None] = lambda replica_id: None
    cpu_seconds: Callable[[str], float | None] = lambda replica_id: None
    inputs: dict[str, Input] = field(default_factory=dict)
    _launches: dict[str, _Launch] = field(default_factory=dict)
    _failures: dict[str, Unavailable] = field(default_factory=dict)
    _watches: dict[str, _Watch] = field(default_factory=dict)
    _is_closing: bool = False
    _stops: Stops = field(init=False)

    def __post_init__(self) -> None:
        """Have the stops reach containers."""
        self._stops = Stops(self._send)

    def start(self, spec: ReplicaSpec) -> None:
        """Begin to start a replica, unless that has begun."""
        if spec.id not in self._launches:
            launch = self._launches[spec.id] = _Launch(spec)
            launch.task = asyncio.create_task(self._launch(launch))

    def is_launching(self, replica_id: str) -> bool:
        """Tell whether a start goes on."""
        return replica_id in self._launches

    def launching(self, replica_id: str) -> ReplicaStatus | None:
        """Return how far a start is, None if none goes on; raise why the last one could not."""
        launch = self._launches.get(replica_id)
        if launch is None:
            if replica_id in self._failures:
                raise self._failures.pop(replica_id)
            return None
        if launch.has_image:
            return ReplicaStatus(ReplicaState.STARTING)
        # Also before it is known whether there is something to pull: no start is followed by that.
        known = self.images.progress(launch.spec.host, launch.image) if launch.image else ""
        return ReplicaStatus(ReplicaState.PULLING, reason=known)

    async def is_only_created(self, replica_id: str) -> bool:
        """Tell whether the service was killed just before it started a container."""
        host = self.record(replica_id).spec().get("host")
        if host is None:
            return False
        client = self.engines.of(host)
        found = await client.call(client.inspect, container_name(replica_id))
        return found is not None and found["State"]["Status"] == "created"

    def observe(self, replica_id: str, is_over: bool) -> None:
        """See to it that the end of a started replica will be noticed, and its stop enforced."""
        watch = self._watches.get(replica_id)
        if watch is None:
            self._watch(replica_id, None)
            grace = self.record(replica_id).grace_seconds()
            if grace is not None and not is_over:
                self.stop(replica_id, grace)
        elif is_over and not watch.is_hurried:
            watch.is_hurried = True
            asyncio.get_running_loop().call_later(DEAD_SECONDS, watch.follower.again)

    def stop(self, replica_id: str, grace_seconds: float) -> None:
        """Have a replica end within a grace; of two the shorter holds."""
        launch = self._launches.get(replica_id)
        if launch is not None:
            if launch.image and launch.task is not None:
                launch.task.cancel()
            return
        self._stops.stop(replica_id, grace_seconds)

    async def close(self) -> None:
        """Let go of everything here; containers go on. What ends just now is seen through."""
        self._is_closing = True
        launches = [launch.task for launch in self._launches.values()]
        watches = [watch.task for watch in self._watches.values() if not watch.is_ending]
        endings = [watch.task for watch in self._watches.values() if watch.is_ending]
        tasks = [*launches, *watches]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, [*tasks, *endings]), return_exceptions=True)
        await self._stops.close()
        await self.networks.close()
        for connection in self.inputs.values():
            connection.close()

    async def _launch(self, launch: _Launch) -> None:
        """Bring a replica from its spec to a running container, or record why not."""
        spec = launch.spec
        try:
            await self._begin(launch)
        except Unavailable as error:
            # Told to who asks next; who asks again after that finds it not started.
            self._failures[spec.id] = error
        except NimbusError as error:
            if is_full(error.message):
                self.disks.note_full(self.engines.of(spec.host))
            await self._refuse(spec, error.message)
        except asyncio.CancelledError:
            if not self.record(spec.id).is_stopping():
                raise
            await self._refuse(spec, _NEVER)
        except OSError as error:
            await self._refuse(spec, f"it cannot be started: {error}")
        except Exception as error:
            # Whatever an unpacker raises: a replica must not stay in `starting` for ever.
            log.exception("replica %s could not be started", spec.id)
            await self._refuse(spec, f"{type(error).__name__}: {error}")
        finally:
            del self._launches[spec.id]
        self.on_change(spec.id)

    async def _begin(self, launch: _Launch) -> None:
        spec, record = launch.spec, self.record(launch.spec.id)
        client = self.engines.of(spec.host)
        if record.read().status is not None and not await self.is_only_created(spec.id):
            return
        image = await self._image(launch, client)
        uid, gid = self.policy.users(spec.owner)
        launch.has_image = True
        record.write_spec(
            {
                "host": spec.host,
                "job_id": spec.job_id,
                "lease_id": spec.lease_id,
                "image": image,
                "memory_bytes": spec.memory_bytes,
                "gpus": list(spec.gpus),
                "account": {"uid": uid, "gid": gid, "groups": []},
            }
        )
        async with self.volumes.lock(spec.host, spec.job_id):
            is_new = await self._create(client, spec, image)
            if record.is_stopping():
                raise InvalidRequest(_NEVER)
            is_holder = spec.modules is not None
            directory = "" if is_holder else job_directory(spec.job_id)
            record.write_status(ReplicaState.STARTING, directory=directory)
            # One that has run already, whoever started it, is not started again.
            if is_new:
                await self._run(client, spec)
        grace = record.grace_seconds()
        if grace is not None:
            # Asked for while it was started.
            asyncio.get_running_loop().call_soon(self.stop, spec.id, grace)

    async def _image(self, launch: _Launch, client: EngineClient) -> str:
        known = self.environments
        reference = known.get(launch.spec.environment)
        if reference is None:
            names = ", ".join(sorted(known)) or "none"
            raise InvalidRequest(
                f"there is no environment {launch.spec.environment!r} of containers; known: {names}"
            )
        found = await self.images.find(client, reference)
        if self.record(launch.spec.id).is_stopping():
            raise InvalidRequest(_NEVER)
        if found is None:
            launch.image = reference
            self.on_change(launch.spec.id)
            try:
                found = await self.images.pull(client, reference)
            finally:
                launch.image = ""
        return found

    async def _create(self, client: EngineClient, spec: ReplicaSpec, image: str) -> bool:
        """Have the container be there, with the job's files; tell whether it has not run yet."""
        name = container_name(spec.id)
        at = await self.networks.find(client, spec)
        terms = self.policy.terms(spec, at, image)
        await self.volumes.prepare(client, spec, terms)
        await client.carry(client.create, name, container(spec, terms))
        found = await client.call(client.inspect, name)
        if found is None or not belongs_to(found, spec.id):
            raise InvalidRequest(f"another container of host {spec.host} has the name {name}")
        if found["State"]["Status"] != "created":
            return False
        making = asyncio.ensure_future(self.networks.ensure(client, at, spec.lease_id))
        try:
            await self.volumes.fill(client, spec, terms)
        finally:
            await making
        return True

    async def _run(self, client: EngineClient, spec: ReplicaSpec) -> None:
        """Start the container, with ears on it and a hand on what it reads."""
        name = container_name(spec.id)
        attached = await client.call(client.attach, name)
        try:
            if spec.has_input:
                self.inputs[spec.id] = await client.call(client.attach_input, name)
            await client.carry(client.start, name)
        except NotFound as error:
            attached.close()
            # Its network was just removed: the next start makes it anew.
            raise Unavailable(error.message) from error
        except BaseException:
            attached.close()
            raise
        self._watch(spec.id, attached)
        self.note_running(spec.id, await client.call(client.inspect, name))
        log.info("replica %s runs on host %s", spec.id, spec.host)

    def note_running(self, replica_id: str, found: Mapping[str, Any] | None) -> None:
        """Record that it runs, or did."""
        record = self.record(replica_id)
        status = record.read().status
        started_at = None if found is None else moment(found["State"]["StartedAt"])
        if started_at is not None and status and status.state is ReplicaState.STARTING:
            record.write_status(ReplicaState.RUNNING, started_at=started_at.timestamp())

    async def _refuse(self, spec: ReplicaSpec, reason: str) -> None:
        """Record that a replica does not run, and leave nothing of it."""
        log.info("replica %s cannot run: %s", spec.id, reason)
        self._close_input(spec.id)
        with suppress(NimbusError):
            await self.clear(spec.id, spec.host, spec.job_id)
        self.record(spec.id).write_end(reason)

    async def clear(self, replica_id: str, host: str, job_id: str) -> None:
        """Leave no container of a replica that is over, or never ran."""
        client = self.engines.of(host)
        async with self.volumes.lock(host, job_id):
            found = await client.call(client.inspect, container_name(replica_id))
            if found is None or belongs_to(found, replica_id):
                await self.volumes.clear(client, replica_id, job_id)
                self.networks.leave(client, self.record(replica_id).spec().get("lease_id", ""))

    def _watch(self, replica_id: str, attached: Pieces | None) -> None:
        record = self.record(replica_id)
        host = record.spec()["host"]
        policy = self.policy
        source = Container(self.engines.of(host), container_name(replica_id))
        path = record.path / "output.log"
        follower = Follower(source, path, policy.output_bytes, policy.engine_log_bytes)
        watch = self._watches[replica_id] = _Watch(follower)
        watch.task = asyncio.create_task(self._see(replica_id, host, watch, attached))

    async def _see(
        self, replica_id: str, host: str, watch: _Watch, attached: Pieces | None
    ) -> None:
        """See a replica to its end, and the end through, however long the engine is silent."""
        try:
            await self._retried(lambda: self._read(replica_id, watch, attached))
            if not watch.is_ending:
                return
            await self._retried(lambda: self._end(replica_id, host))
            self.on_change(replica_id)
            job_id = self.record(replica_id).spec()["job_id"]
            await self._retried(lambda: self.clear(replica_id, host, job_id))
        finally:
            del self._watches[replica_id]
            self._close_input(replica_id)

    async def _retried(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step until an engine has answered, or everything here is let go of."""
        said = ""
        while True:
            try:
                return await step()
            except (Unavailable, OSError) as error:
                if self._is_closing:
                    raise
                if not said:
                    said = str(error)
                    log.warning("the end of a replica waits: %s", said)
            await asyncio.sleep(RETRY_SECONDS)

    async def _read(self, replica_id: str, watch: _Watch, attached: Pieces | None) -> None:
        """Read all output."""
        watch.is_ending = await followed(watch.follower, attached, replica_id)

    async def _end(self, replica_id: str, host: str) -> None:
        """Record the end, when what is left is kept."""
        record, client = self.record(replica_id), self.engines.of(host)
        spec, name = record.spec(), container_name(replica_id)
        found = await client.call(client.inspect, name)
        self.note_running(replica_id, found)
        async with self.volumes.lock(host, spec["job_id"]):
            await self.volumes.keep(client, replica_id, spec)
            was_stopped = record.is_stopping() and await self._stops.was_heard(replica_id)
            is_puzzling = found is None or (not was_stopped and by_signal(found))
            events = await client.call(client.events, name) if is_puzzling else ()
            end = end_of(
                found,
                events,
                was_stopped=was_stopped,
                memory_bytes=spec["memory_bytes"],
                output=record.read_output(-512, 512).data,
            )
            used = self.cpu_seconds(replica_id)
            values = {} if used is None else {"cpu_seconds": used}
            record.write_end(end.reason, end.exit_code, end.state, end.ended_at, **values)
        log.info("replica %s has ended: %s %s", replica_id, end.exit_code, end.reason)
        self._stops.forget(replica_id)

    async def sweep(self, client: EngineClient) -> None:
        """Remove what a service that was killed has left of replicas that are over."""
        for each in await client.call(client.containers):
            labels = each["Labels"]
            replica_id, job_id = labels[REPLICA_LABEL], labels[JOB_LABEL]
            is_seen_to = replica_id in self._watches or replica_id in self._launches
            if not is_seen_to and self.record(replica_id).read().is_over:
                await self.clear(replica_id, client.engine.host, job_id)
        await self.volumes.sweep(client)
        await self.networks.sweep(client)

    async def _send(self, replica_id: str, number: int) -> bool:
        client = self.engines.of(self.record(replica_id).spec()["host"])
        return await client.call(client.kill, container_name(replica_id), number)

    def _close_input(self, replica_id: str) -> None:
        connection = self.inputs.pop(replica_id, None)
        if connection is not None:
            connection.close()
