"""Volumes: where the replicas of a job on one engine have their files.

One is filled for the first of them and fetched and removed with the last. Both, and each
start, are done under the lock of job and host. On shared storage all hosts have the same
directory, which is made and filled once and stays.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nimbus_hub.errors import InvalidRequest, NotFound, Unavailable
from nimbus_hub.executors.directories import Snapshots
from nimbus_hub.executors.docker.containers import (
    DIRECTORIES,
    JOB_LABEL,
    REPLICA_LABEL,
    Mount,
    Terms,
    container_name,
    job_directory,
    mounted,
    volume_name,
)
from nimbus_hub.executors.docker.engine import LONG_SECONDS, EngineClient
from nimbus_hub.executors.docker.files import Results, packed
from nimbus_hub.executors.docker.storage import (
    MADE_VOLUME,
    ROOT,
    Root,
    Storage,
    new_directory,
    shut_to,
)
from nimbus_hub.executors.files import Directory
from nimbus_hub.executors.records import Record
from nimbus_hub.model.replica import ReplicaSpec

__all__ = ["Volumes"]

_Locks = weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock]

_ALL_HOSTS = "storage"
"""In place of a host's name for what all hosts share."""


@dataclass(frozen=True, slots=True)
class Volumes:
    """Fills them, and takes out what jobs leave."""

    snapshots: Snapshots
    results: Results
    staging: Path
    record: Callable[[str], Record]
    storage: Storage
    _homes: set[tuple[str, str]] = field(default_factory=set)
    _locks: _Locks = field(default_factory=weakref.WeakValueDictionary)

    def lock(self, host: str, job_id: str) -> asyncio.Lock:
        """Return what is held while a job's files on a host are put in or taken out."""
        return self._locks.setdefault((host, job_id), asyncio.Lock())

    def shared(self, record: Record) -> Directory | None:
        """Return a job's directory as the service itself has it, where it has the storage. Blocks.

        Raises Unavailable if the job's user may not go there, in whose name it is read.
        """
        job_id = record.spec().get("job_id")
        if not self.storage.service_path or job_id is None:
            return None
        path = Path(self.storage.service_path) / job_id
        # Only root can read as somebody else; others are refused what is not theirs.
        account = record.account() if os.geteuid() == 0 else None
        try:
            if not path.is_dir():
                return None
            shut = account and shut_to(path, account["uid"], account["gid"])
        except OSError as error:
            raise Unavailable(f"the files of job {job_id} cannot be read: {error}") from error
        if account and shut:
            raise Unavailable(
                f"the files of job {job_id} cannot be read, for user {account['uid']} may not pass "
                f"{shut}; chmod o+x {shut}"
            )
        return Directory(str(path), account)

    def kept(self, job_id: str, host: str) -> Path:
        """Return where what a job left on a host is, if it was fetched."""
        of_all = self.results.directory(job_id, _ALL_HOSTS)
        return of_all if of_all.is_dir() else self.results.directory(job_id, host)

    async def prepare(self, client: EngineClient, spec: ReplicaSpec, terms: Terms) -> None:
        """Note that a host has something of a job, and make what it is to mount on storage."""
        self.results.note_volume(spec.job_id, spec.host, terms.image)
        job, home = self.storage.job(spec.job_id), self.storage.home(spec.owner)
        if job is not None and not self.results.is_filled(spec.job_id):
            self.results.note_shared(spec.job_id)
            await client.carry(_make, client, spec.job_id, job, terms)
        if home is not None and (spec.host, home.name) not in self._homes:
            await client.carry(_make, client, spec.job_id, home, terms)
            self._homes.add((spec.host, home.name))

    async def fill(self, client: EngineClient, spec: ReplicaSpec, terms: Terms) -> None:
        """Put a job's files into the container just made, unless another has run with them."""
        if self.storage.jobs is None:
            mates = await client.call(client.containers, spec.job_id)
            if all(each["State"] == "created" for each in mates):
                await client.carry(self._fill, client, spec, terms)
            return
        async with self.lock(_ALL_HOSTS, spec.job_id):
            if not self.results.is_filled(spec.job_id):
                await client.carry(self._fill, client, spec, terms)
                self.results.note_filled(spec.job_id)

    def _fill(self, client: EngineClient, spec: ReplicaSpec, terms: Terms) -> None:
        user = terms.uid, terms.gid
        with packed(spec, user, self.snapshots, self.results, self.staging) as archive:
            client.put(container_name(spec.id), job_directory(spec.job_id), archive)

    async def keep(self, client: EngineClient, replica_id: str, spec: Mapping[str, Any]) -> None:
        """Keep what a job leaves on a host, if a replica is its last there."""
        if await self._is_last(client, replica_id, spec["job_id"]):
            await self._keep(client, container_name(replica_id), spec)

    async def clear(self, client: EngineClient, replica_id: str, job_id: str) -> None:
        """Remove the container of a replica that is over, and with the last one the volume."""
        is_last = await self._is_last(client, replica_id, job_id)
        await client.carry(_remove_container, client, container_name(replica_id))
        if is_last:
            await self._remove(client, job_id)

    async def sweep(self, client: EngineClient) -> None:
        """Keep and remove volumes that no container has any more, whose service was killed."""
        for job_id, image in self.results.noted_volumes(client.engine.host):
            async with self.lock(client.engine.host, job_id):
                if not await client.call(client.containers, job_id):
                    await self._keep(client, "", {"job_id": job_id, "image": image})
                    await self._remove(client, job_id)

    async def delete(
        self, clients: Sequence[EngineClient], job_id: str, records: Sequence[Record]
    ) -> None:
        """Delete what a job that is over has left, on engines, on storage and here."""
        engines = {client.engine.host: client for client in clients}
        for host in self.results.volume_hosts(job_id):
            # What was on a host that has left has left with it.
            if (client := engines.get(host)) is not None:
                async with self.lock(host, job_id):
                    if await client.call(client.containers, job_id):
                        raise Unavailable(f"containers of job {job_id} are still on host {host}")
                    await self._remove(client, job_id)
        shared = self.storage.job(job_id)
        if shared is not None and self.results.is_shared(job_id):
            for spec in filter(None, (record.spec() for record in records)):
                if (client := engines.get(spec["host"])) is not None:
                    await client.carry(_delete, client, job_id, shared, spec["image"])
                    break
            else:
                raise Unavailable(f"no host is there to delete the directory of job {job_id}")
        await asyncio.to_thread(self.results.delete, job_id)

    async def _remove(self, client: EngineClient, job_id: str) -> None:
        """Remove the volume of a job; of shared storage it takes nothing away."""
        await client.carry(_remove_container, client, _maker(job_id))
        await client.carry(client.remove_volume, volume_name(job_id))
        self.results.forget_volume(job_id, client.engine.host)

    async def _is_last(self, client: EngineClient, replica_id: str, job_id: str) -> bool:
        mates = await client.call(client.containers, job_id)
        ids = {each["Labels"][REPLICA_LABEL] for each in mates} - {replica_id}
        return all(self.record(each).read().is_over for each in ids)

    async def _keep(self, client: EngineClient, name: str, spec: Mapping[str, Any]) -> None:
        """Fetch what a job leaves, unless the service has it by itself."""
        if self.storage.service_path:
            return
        if self.storage.jobs is None:
            await client.carry(self._fetch, client, name, spec, client.engine.host)
            return
        async with self.lock(_ALL_HOSTS, spec["job_id"]):
            await client.carry(self._fetch, client, name, spec, _ALL_HOSTS)

    def _fetch(self, client: EngineClient, name: str, spec: Mapping[str, Any], place: str) -> None:
        """Fetch it; out of a container made for it if its last one is gone."""
        job_id = spec["job_id"]
        shared = self.storage.job(job_id)
        if name and client.inspect(name) is not None:
            self._take(client, name, job_id, place)
        elif shared is not None and self.results.is_filled(job_id):
            with _idle(client, _maker(job_id), job_id, spec["image"], shared.part) as source:
                self._take(client, source, job_id, place)
        elif shared is None and client.has_volume(volume_name(job_id)):
            own = Mount(volume_name(job_id), job_directory(job_id), is_read_only=False)
            with _idle(client, _maker(job_id), job_id, spec["image"], own) as source:
                self._take(client, source, job_id, place)

    def _take(self, client: EngineClient, source: str, job_id: str, place: str) -> None:
        directory = job_directory(job_id)
        with suppress(NotFound):
            archives = (client.get(source, f"{directory}/{each}") for each in DIRECTORIES)
            self.results.keep(job_id, place, archives)


def _maker(job_id: str) -> str:
    return f"{volume_name(job_id)}-files"


@contextmanager
def _idle(
    client: EngineClient, name: str, job_id: str, image: str, mount: Mount, **more: Any
) -> Iterator[str]:
    """Give a container that is not started: files are put into it and read out of it."""
    made = {
        "Image": image,
        "Entrypoint": [],
        "Cmd": ["true"],
        "Labels": {JOB_LABEL: job_id},
        "HostConfig": {"Mounts": [mounted(mount)]},
        **more,
    }
    _remove_container(client, name)
    client.create(name, made)
    try:
        yield name
    finally:
        _remove_container(client, name)


def _make(client: EngineClient, job_id: str, root: Root, terms: Terms) -> None:
    """Make a directory on storage, unless it is there, for its user alone."""
    with _idle(client, _maker(job_id), job_id, terms.image, root.whole) as name:
        if not _has(client, name, f"{ROOT}/{root.name}"):
            client.put(name, ROOT, new_directory(root.name, terms.uid, terms.gid))


def _delete(client: EngineClient, job_id: str, root: Root, image: str) -> None:
    """Delete a directory on storage, as root who follows no link, where nothing else is."""
    host = {
        "Mounts": [mounted(root.whole)],
        "NetworkMode": "none",
        "CapDrop": ["ALL"],
        "CapAdd": ["DAC_OVERRIDE", "FOWNER"],
        "SecurityOpt": ["no-new-privileges:true"],
    }
    argv = ["/bin/sh", "-c", 'exec rm -rf -- "$1" 2>&1', "sh", f"{ROOT}/{root.name}"]
    with _idle(
        client, _maker(job_id), job_id, image, root.whole, Cmd=argv, User="0:0", HostConfig=host
    ) as name:
        client.start(name)
        code = client.use(lambda sdk: sdk.wait(name)["StatusCode"], LONG_SECONDS)
        if code != 0:
            said: bytes = client.use(lambda sdk: sdk.logs(name))
            words = said.decode(errors="replace").strip()[-500:]
            raise Unavailable(f"the directory of job {job_id} was not deleted: {words}")


def _has(client: EngineClient, name: str, path: str) -> bool:
    try:
        next(client.get(name, path))
    except NotFound:
        return False
    return True


def _remove_container(client: EngineClient, name: str) -> None:
    """Remove a container, and volumes that were made for it and hold nothing themselves."""
    found = client.inspect(name)
    client.remove(name)
    for mount in (found or {}).get("Mounts", ()):
        if mount.get("Name", "").startswith(MADE_VOLUME):
            # One that is in use just now goes with who uses it.
            with suppress(InvalidRequest):
                client.remove_volume(mount["Name"])
