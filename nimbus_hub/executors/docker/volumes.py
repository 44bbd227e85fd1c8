"""Volumes: where the replicas of a job on one engine have their files.

One is filled for the first of them and fetched and removed with the last. Both, and each
start, are done under the lock of job and host.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nimbus_hub.errors import NotFound
from nimbus_hub.executors.directories import Snapshots
from nimbus_hub.executors.docker.containers import (
    DIRECTORIES,
    JOB_LABEL,
    REPLICA_LABEL,
    Terms,
    container_name,
    job_directory,
    volume_name,
)
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.executors.docker.files import Results, packed
from nimbus_hub.executors.records import Record
from nimbus_hub.model.replica import ReplicaSpec

__all__ = ["Volumes"]

_Locks = weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock]


@dataclass(frozen=True, slots=True)
class Volumes:
    """Fills them, and takes out what jobs leave."""

    snapshots: Snapshots
    results: Results
    staging: Path
    record: Callable[[str], Record]
    _locks: _Locks = field(default_factory=weakref.WeakValueDictionary)

    def lock(self, host: str, job_id: str) -> asyncio.Lock:
        """Return what is held while a job's files on a host are put in or taken out."""
        return self._locks.setdefault((host, job_id), asyncio.Lock())

    async def fill(self, client: EngineClient, spec: ReplicaSpec, terms: Terms) -> None:
        """Put a job's files into the container just made, unless another has run with them."""
        mates = await client.call(client.containers, spec.job_id)
        if any(each["State"] != "created" for each in mates):
            return
        self.results.note_volume(spec.job_id, spec.host, terms.image)
        user = terms.uid, terms.gid

        def fill() -> None:
            with packed(spec, user, self.snapshots, self.results, self.staging) as archive:
                client.put(container_name(spec.id), job_directory(spec.job_id), archive)

        await client.carry(fill)

    async def keep(self, client: EngineClient, replica_id: str, spec: Mapping[str, Any]) -> None:
        """Keep what a job leaves on a host, if a replica is its last there."""
        if await self._is_last(client, replica_id, spec["job_id"]):
            await client.carry(self._keep, client, container_name(replica_id), spec)

    async def clear(self, client: EngineClient, replica_id: str, job_id: str) -> None:
        """Remove the container of a replica that is over, and with the last one the volume."""
        is_last = await self._is_last(client, replica_id, job_id)
        await client.carry(client.remove, container_name(replica_id))
        if is_last:
            await self._remove(client, job_id)

    async def sweep(self, client: EngineClient) -> None:
        """Keep and remove volumes that no container has any more, whose service was killed."""
        for job_id, image in self.results.noted_volumes(client.engine.host):
            async with self.lock(client.engine.host, job_id):
                if not await client.call(client.containers, job_id):
                    spec = {"job_id": job_id, "image": image}
                    await client.carry(self._keep, client, "", spec)
                    await self._remove(client, job_id)

    async def _remove(self, client: EngineClient, job_id: str) -> None:
        await client.carry(client.remove_volume, volume_name(job_id))
        self.results.forget_volume(job_id, client.engine.host)

    async def _is_last(self, client: EngineClient, replica_id: str, job_id: str) -> bool:
        mates = await client.call(client.containers, job_id)
        ids = {each["Labels"][REPLICA_LABEL] for each in mates} - {replica_id}
        return all(self.record(each).read().is_over for each in ids)

    def _keep(self, client: EngineClient, name: str, spec: Mapping[str, Any]) -> None:
        """Fetch what a job leaves; out of a container made for it if its last one is gone."""
        source, job_id, volume = name, spec["job_id"], volume_name(spec["job_id"])
        if not name or client.inspect(name) is None:
            if not client.has_volume(volume):
                return
            source = f"{volume}-results"
            client.create(source, _reader(spec, volume))
        directory = job_directory(job_id)
        with suppress(NotFound):
            archives = (client.get(source, f"{directory}/{each}") for each in DIRECTORIES)
            self.results.keep(job_id, client.engine.host, archives)
        if source != name:
            client.remove(source)


def _reader(spec: Mapping[str, Any], volume: str) -> dict[str, Any]:
    """Return a container that is never started: files are read out of it."""
    mount = {"Type": "volume", "Source": volume, "Target": job_directory(spec["job_id"])}
    return {
        "Image": spec["image"],
        "Entrypoint": [],
        "Cmd": ["true"],
        "Labels": {JOB_LABEL: spec["job_id"]},
        "HostConfig": {"Mounts": [mount]},
    }
