"""A warm holder on the local executor, and runs in its place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nimbus_hub.executors.records import Record
from nimbus_hub.model.replica import ReplicaSpec, ReplicaState, ReplicaStatus

if TYPE_CHECKING:
    from tests.contract.conftest import LocalDriver

__all__ = ["Held", "Until"]

Until = Callable[..., Awaitable[ReplicaStatus]]

_ENV = {"OMP_NUM_THREADS": "1"}


@dataclass
class Held:
    """A holder on the local executor, and runs in its place or anew from the same files."""

    local: LocalDriver
    until: Until
    ended: Until
    files: dict[str, str] = field(default_factory=dict)
    count: int = 0

    async def hold(self, *modules: str, replica_id: str = "h1", **env: str) -> ReplicaStatus:
        spec = ReplicaSpec(
            replica_id,
            "holder",
            self.local.account.name,
            "local",
            ("python",),
            {**_ENV, **env},
            modules=modules,
        )
        await self.local.executor.start(spec)
        return await self.until(
            self.local.executor, replica_id, ReplicaState.RUNNING, ReplicaState.EXITED
        )

    def spec(self, *argv: str, holder: str | None = "h1", **changes: Any) -> ReplicaSpec:
        """Return a run of the files as they are now, in the directory that all share."""
        self.count += 1
        digest = f"version-{self.count}"
        self.local.snapshots.snapshots[digest] = dict(self.files)
        return replace(
            self.local.command(f"r{self.count}", *argv, holder=holder, workspace="gang"),
            job_id=f"job-{self.count}",
            snapshot=digest,
            env={**_ENV, **changes.pop("env", {})},
            **changes,
        )

    async def begin(self, *argv: str, **changes: Any) -> ReplicaSpec:
        spec = self.spec(*argv, **changes)
        await self.local.executor.start(spec)
        await self.until(
            self.local.executor,
            spec.id,
            ReplicaState.RUNNING,
            ReplicaState.EXITED,
            ReplicaState.LOST,
        )
        return spec

    async def run(self, *argv: str, **changes: Any) -> tuple[ReplicaStatus, str]:
        """Run to the end; return status and output."""
        spec = self.spec(*argv, **changes)
        await self.local.executor.start(spec)
        status = await self.ended(self.local.executor, spec.id)
        return status, await self.local.output(spec.id)

    def main(self, replica_id: str) -> int:
        """Return the pid of a replica's main process."""
        session = Record(self.local.record(replica_id)).read().session
        assert session is not None
        return session

    def is_held(self, replica_id: str) -> bool:
        """Tell whether a replica has run in a process that was forked and not started."""
        reading = Record(self.local.record(replica_id)).read()
        return reading.holder is not None
