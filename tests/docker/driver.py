"""The executor for containers under test, with a hand in its puppets and in its engine."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from nimbus_hub.executors.docker.containers import (
    GANG_LABEL,
    Mount,
    container_name,
    job_directory,
    volume_name,
)
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.executors.docker.executor import DockerExecutor
from nimbus_hub.executors.docker.policy import Policy
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.host import Host
from nimbus_hub.model.replica import ReplicaSpec
from tests.contract.conftest import BOUND_SECONDS, HOST, PUPPET, ended, eventually
from tests.contract.snapshots import MemorySnapshots

__all__ = ["BOUND_SECONDS", "DockerDriver"]


@dataclass
class DockerDriver:
    """Drives containers through a named pipe each, in a directory that they have mounted."""

    directory: Path
    engine: Engine
    images: dict[str, str]
    snapshots: MemorySnapshots = field(default_factory=MemorySnapshots)
    policy: Policy = field(default_factory=Policy)
    written: dict[str, int] = field(default_factory=dict)
    pipes: dict[str, int] = field(default_factory=dict)
    others: list[DockerExecutor] = field(default_factory=list)
    lease: str = field(default_factory=lambda: f"l-{uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        self.client = EngineClient(self.engine)
        mount = Mount(str(self.directory), str(self.directory), is_read_only=False)
        self.policy = replace(
            self.policy, users=lambda owner: (os.getuid(), os.getgid()), mounts=lambda _: (mount,)
        )
        self.executor = self.another()

    def use(self, **changes: Any) -> None:
        """Have another policy from now on."""
        self.policy = replace(self.policy, **changes)
        self.executor = self.another()

    async def restarted(self) -> DockerExecutor:
        """Return the executor of the next service, when that of the last one is gone."""
        await self.executor.close()
        self.executor = self.another()
        return self.executor

    def another(self) -> DockerExecutor:
        """Return an executor as the next service would have it, over the same state."""

        async def find_hosts(clients: object) -> tuple[Host, ...]:
            return (HOST,)

        engines: Callable[[], list[Engine]] = lambda: [self.engine]  # noqa: E731
        made = DockerExecutor(
            self.directory / "state",
            engines,
            self.images,
            self.snapshots,
            find_hosts,
            self.policy,
        )
        self.others.append(made)
        return made

    def spec(self, replica_id: str) -> ReplicaSpec:
        pipe = self.directory / replica_id
        if not pipe.exists():
            os.mkfifo(pipe)
        self.pipes.setdefault(replica_id, os.open(pipe, os.O_RDWR))
        return self.command(replica_id, "python", "-I", "-S", "-c", PUPPET, str(pipe))

    def command(self, replica_id: str, *argv: str, **changes: Any) -> ReplicaSpec:
        """Return the spec of any program."""
        made = ReplicaSpec(
            replica_id, "job-1", "ada", "local", argv, memory_bytes=2**28, lease_id=self.lease
        )
        return replace(made, **changes)

    def starts(self, replica_id: str) -> int:
        begun = self.directory / f"{replica_id}.begun"
        return len(begun.read_text()) if begun.exists() else 0

    async def do(self, replica_id: str, line: str) -> None:
        os.write(self.pipes[replica_id], f"{line}\n".encode())

    async def write(self, replica_id: str, data: bytes) -> None:
        await self.do(replica_id, f"os.write(1, {data!r})")
        size = self.written[replica_id] = self.written.get(replica_id, 0) + len(data)
        await self.written_to(replica_id, size)

    async def written_to(self, replica_id: str, size: int) -> None:
        """Wait until so many bytes of output are there."""
        await eventually(lambda: len(self.output(replica_id)) >= size)

    async def gone(self, replica_id: str) -> None:
        """Wait until a container is removed."""
        await eventually(lambda: self.client.inspect(container_name(replica_id)) is None)

    async def exit(self, replica_id: str, code: int) -> None:
        line = f"os._exit({code})" if code >= 0 else f"os.kill(os.getpid(), {-code})"
        await self.do(replica_id, line)

    async def lose(self, replica_id: str) -> None:
        self.client.remove(container_name(replica_id))

    def put(self, replica_id: str, path: str, data: bytes) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as file:
            member = tarfile.TarInfo(path)
            member.size, member.uid, member.gid = len(data), os.getuid(), os.getgid()
            file.addfile(member, io.BytesIO(data))
        archive.seek(0)
        self.client.put(container_name(replica_id), job_directory("job-1"), archive)

    def record(self, replica_id: str) -> Path:
        return self.directory / "state" / "replicas" / replica_id

    def output(self, replica_id: str) -> bytes:
        log = self.record(replica_id) / "output.log"
        return log.read_bytes() if log.exists() else b""

    def inspect(self, replica_id: str) -> dict[str, Any]:
        """Return what the engine says of a replica's container, which must be there."""
        found = self.client.inspect(container_name(replica_id))
        assert found is not None
        return found

    def networks(self, lease: str = "") -> list[str]:
        """Return the names of the networks of a lease, by default its own, on the engine."""
        label = {"label": f"{GANG_LABEL}={lease or self.lease}"}
        return [each["Name"] for each in self.client.use(lambda sdk: sdk.networks(filters=label))]

    async def close(self) -> None:
        """End what still runs, and wait until it is gone; as one service, for there is only one."""
        for executor in self.others:
            await executor.close()
        cleaner = self.another()
        records = self.directory / "state" / "replicas"
        ids = [path.name for path in records.iterdir()] if records.exists() else []
        for replica_id in ids:
            await cleaner.stop(replica_id, 0)
        for replica_id in ids:
            await ended(cleaner, replica_id)
        await cleaner.hosts()
        volume = volume_name("job-1")
        await eventually(
            lambda: (
                not self.client.containers("job-1")
                and not self.client.has_volume(volume)
                and not self.networks()
            )
        )
        await cleaner.close()
        self.client.close()
        for descriptor in self.pipes.values():
            os.close(descriptor)
