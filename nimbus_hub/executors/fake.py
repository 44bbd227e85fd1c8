"""Replicas that exist in memory only, driven by hand: for simulations and tests."""

from __future__ import annotations

import signal
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from nimbus_hub.clock import Clock, SystemClock
from nimbus_hub.errors import Conflict, Ended, NotFound, Unavailable
from nimbus_hub.executors.base import OnChange
from nimbus_hub.model.file import FileList, FilePart, JobFile
from nimbus_hub.model.host import HeldMemory, Host
from nimbus_hub.model.replica import LogChunk, ReplicaSpec, ReplicaState, ReplicaStatus, Usage

__all__ = ["FakeExecutor"]


@dataclass(slots=True)
class _Fake:
    status: ReplicaStatus
    spec: ReplicaSpec | None = None
    input: bytearray = field(default_factory=bytearray)
    output: bytearray = field(default_factory=bytearray)
    heard_at: datetime | None = None
    files: dict[str, tuple[bytes, datetime]] = field(default_factory=dict)


class FakeExecutor:
    """Keeps the contract of `Executor`; run, exit, lose, write, say and use tell what happens.

    ``started`` holds the spec of each replica that was started, in order; ``stopped`` each
    replica asked to stop, with its grace. With ``auto_run`` a started replica runs when it
    is next polled, and with ``auto_warm`` a holder; with ``auto_stop`` one asked to stop ends
    at once, by SIGTERM. While ``unreachable`` is set every call raises Unavailable.
    """

    def __init__(
        self,
        hosts: Sequence[Host] = (),
        *,
        auto_run: bool = True,
        auto_stop: bool = True,
        clock: Clock | None = None,
    ) -> None:
        """Offer these hosts."""
        self.auto_run = auto_run
        self.auto_warm = auto_run
        self.auto_stop = auto_stop
        self.unreachable = False
        self.started: list[ReplicaSpec] = []
        self.stopped: list[tuple[str, float]] = []
        self._hosts = tuple(hosts)
        self._clock = clock or SystemClock()
        self._replicas: dict[str, _Fake] = {}
        self._used: dict[str, Usage] = {}
        self._held: dict[str, dict[int, HeldMemory]] = {}
        self._on_change: OnChange = lambda replica_id: None

    async def hosts(self) -> tuple[Host, ...]:
        """Return the hosts given."""
        self._reach()
        return self._hosts

    async def start(self, spec: ReplicaSpec) -> None:
        """Note the spec, once."""
        self._reach()
        if spec.id not in self._replicas:
            self.started.append(spec)
            status = ReplicaStatus(ReplicaState.STARTING, directory=f"/fake/nimbus/{spec.job_id}")
            self._replicas[spec.id] = _Fake(status, spec)
            self._on_change(spec.id)

    async def poll(self, replica_id: str) -> ReplicaStatus:
        """Return the status; with ``auto_run`` what was starting runs now."""
        self._reach()
        found = self._replicas.get(replica_id)
        if found is None:
            return ReplicaStatus(ReplicaState.CREATED)
        is_holder = found.spec is not None and found.spec.modules is not None
        runs_by_itself = self.auto_warm if is_holder else self.auto_run
        if runs_by_itself and found.status.state is ReplicaState.STARTING:
            self.run(replica_id)
        return found.status

    async def stop(self, replica_id: str, grace_seconds: float) -> None:
        """Note the request; with ``auto_stop`` end the replica."""
        self._reach()
        found = self._replicas.get(replica_id)
        if found is None:
            status = ReplicaStatus(ReplicaState.EXITED, reason="stopped before it was started")
            self._replicas[replica_id] = _Fake(replace(status, ended_at=self._clock.now()))
            self._on_change(replica_id)
        elif not found.status.state.is_end:
            self.stopped.append((replica_id, grace_seconds))
            if self.auto_stop:
                self.exit(replica_id, -int(signal.SIGTERM), "stopped")

    async def read_output(self, replica_id: str, offset: int, limit: int) -> LogChunk:
        """Return what was written."""
        self._reach()
        found = self._replicas.get(replica_id)
        if found is None:
            return LogChunk(max(0, offset), b"", False)
        size = len(found.output)
        start = max(0, size + offset) if offset < 0 else offset
        data = bytes(found.output[start : start + limit])
        return LogChunk(start, data, found.status.state.is_end and start + len(data) >= size)

    def keeps(self, replica_id: str) -> bool:
        """Tell whether it was asked to start or stop it."""
        return replica_id in self._replicas

    async def measure(self, replica_ids: Collection[str]) -> dict[str, Usage]:
        """Return what :meth:`use` said."""
        self._reach()
        return {key: self._used[key] for key in replica_ids if key in self._used}

    async def heard(self, replica_ids: Collection[str]) -> dict[str, datetime]:
        """Return when something was last written by :meth:`write` or :meth:`log`."""
        self._reach()
        found = {key: self._replicas[key].heard_at for key in replica_ids if key in self._replicas}
        return {key: at for key, at in found.items() if at is not None}

    async def find_files(self, replica_id: str, path: str, limit: int) -> FileList:
        """Return what :meth:`put` wrote."""
        self._reach()
        files = self._replicas[replica_id].files if replica_id in self._replicas else {}
        found = [
            _file(name, *files[name])
            for name in sorted(files)
            if not path or name == path or name.startswith(f"{path}/")
        ]
        if path and not found:
            raise NotFound(f"there is no file {path}")
        return FileList(tuple(found[:limit]), len(found) <= limit)

    async def read_file(self, replica_id: str, path: str, offset: int, limit: int) -> FilePart:
        """Return bytes that :meth:`put` wrote."""
        self._reach()
        files = self._replicas[replica_id].files if replica_id in self._replicas else {}
        if path not in files:
            raise NotFound(f"there is no file {path}")
        data, changed_at = files[path]
        return FilePart(_file(path, data, changed_at), data[offset : offset + limit])

    async def write_input(self, replica_id: str, data: bytes) -> None:
        """Keep what a replica that takes input is given."""
        self._reach()
        found = self._replicas.get(replica_id)
        if found is None or found.spec is None or not found.spec.has_input:
            raise Conflict(f"replica {replica_id} takes no input")
        if found.status.state.is_end:
            raise Ended(f"replica {replica_id} is over and reads nothing any more")
        found.input.extend(data)

    async def delete(
        self, job_id: str, replica_ids: Collection[str], workspace: str | None = None
    ) -> None:
        """Forget replicas that are over."""
        self._reach()
        found = [self._replicas[each] for each in replica_ids if each in self._replicas]
        if not all(each.status.state.is_end for each in found):
            raise Conflict(f"job {job_id} is not over: what it leaves stays")
        for replica_id in replica_ids:
            self._replicas.pop(replica_id, None)

    async def gpu_memory(self, name: str) -> dict[int, HeldMemory]:
        """Return what :meth:`hold` said."""
        self._reach()
        return dict(self._held.get(name, {}))

    def watch(self, on_change: OnChange) -> None:
        """Call back at each change, on the caller's stack."""
        self._on_change = on_change

    def run(self, replica_id: str) -> None:
        """Let a replica run."""
        status = replace(self._of(replica_id).status, state=ReplicaState.RUNNING)
        self._change(replica_id, replace(status, started_at=self._clock.now()))

    def exit(self, replica_id: str, code: int, reason: str = "") -> None:
        """Let a replica end by itself with an exit code, or minus a signal."""
        status = replace(self._of(replica_id).status, state=ReplicaState.EXITED, exit_code=code)
        self._change(replica_id, replace(status, reason=reason, ended_at=self._clock.now()))

    def lose(self, replica_id: str, reason: str = "its host went away") -> None:
        """Let a replica vanish."""
        status = replace(self._of(replica_id).status, state=ReplicaState.LOST, reason=reason)
        self._change(replica_id, replace(status, ended_at=self._clock.now()))

    def write(self, replica_id: str, data: bytes) -> None:
        """Let a replica write to its output."""
        self._of(replica_id).output.extend(data)
        self.log(replica_id)

    def log(self, replica_id: str) -> None:
        """Let a replica write into its job's log directory."""
        self._of(replica_id).heard_at = self._clock.now()

    def put(self, replica_id: str, path: str, data: bytes) -> None:
        """Let a replica write a file of its job."""
        self._of(replica_id).files[path] = (data, self._clock.now())

    def use(
        self, replica_id: str, cpu_seconds: float, gpu_seconds: float = 0.0, **more: int
    ) -> None:
        """Let a replica have used that much since its start; ``more`` are fields of `Usage`."""
        self._of(replica_id)
        self._used[replica_id] = Usage(cpu_seconds, gpu_seconds=gpu_seconds, **more)

    def hold(self, host: str, index: int, memory: HeldMemory) -> None:
        """Let programs hold memory of a device."""
        self._held.setdefault(host, {})[index] = memory

    def say(self, replica_id: str, reason: str) -> None:
        """Let a replica say why it is as it is."""
        self._change(replica_id, replace(self._of(replica_id).status, reason=reason))

    def input(self, replica_id: str) -> bytes:
        """Return what a replica was given as input."""
        return bytes(self._of(replica_id).input)

    def _change(self, replica_id: str, status: ReplicaStatus) -> None:
        self._of(replica_id).status = status
        self._on_change(replica_id)

    def _of(self, replica_id: str) -> _Fake:
        if replica_id not in self._replicas:
            raise NotFound(f"replica {replica_id} was never started")
        return self._replicas[replica_id]

    def _reach(self) -> None:
        if self.unreachable:
            raise Unavailable("the fake executor does not answer")


def _file(path: str, data: bytes, changed_at: datetime) -> JobFile:
    version = f"{changed_at.timestamp():.6f}-{len(data)}"
    return JobFile(path, len(data), changed_at, version)
