"""Replicas: the processes of a job, what they run and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Self

__all__ = [
    "REPLICA_MOVES",
    "LogChunk",
    "Replica",
    "ReplicaSpec",
    "ReplicaState",
    "ReplicaStatus",
    "Usage",
    "last_of_each",
]


class ReplicaState(StrEnum):
    """Where a replica is on its way; the last two are ends."""

    CREATED = "created"
    PULLING = "pulling"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    LOST = "lost"

    @property
    def is_end(self) -> bool:
        """Tell whether the process is gone."""
        return not REPLICA_MOVES[self]


_GONE = frozenset({ReplicaState.EXITED, ReplicaState.LOST})
REPLICA_MOVES: dict[ReplicaState, frozenset[ReplicaState]] = {
    ReplicaState.CREATED: frozenset(
        {ReplicaState.PULLING, ReplicaState.STARTING, ReplicaState.RUNNING}
    )
    | _GONE,
    ReplicaState.PULLING: frozenset({ReplicaState.STARTING, ReplicaState.RUNNING}) | _GONE,
    ReplicaState.STARTING: frozenset({ReplicaState.RUNNING}) | _GONE,
    ReplicaState.RUNNING: _GONE,
    ReplicaState.EXITED: frozenset(),
    ReplicaState.LOST: frozenset(),
}
"""The states each state may be followed by."""


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """All an executor needs to run one replica: a value, computed before it is sent.

    ``env`` is complete but for what only the host knows (HOME, PATH, USER and the
    directories NIMBUS_OUTPUT_DIR, NIMBUS_LOG_DIR, NIMBUS_CHECKPOINT_DIR), which the
    executor adds. ``argv[0]`` is looked up on the environment's PATH. ``snapshot`` is the
    digest of the working directory, which replicas of a job on one host share.

    ``modules`` (not None): a holder. It imports them, runs nothing of the user's, and waits
    for replicas that name it as their ``holder``, one at a time, which run in a process forked
    from it. ``workspace``: a working directory of this name is brought up to date instead of
    made anew. ``has_input``: standard input is what :meth:`Executor.write_input` writes.

    ``address`` is that of the replica's slot on the lease ``lease_id``; replicas of another lease
    need not reach it. ``interfaces`` are variables that get the name of the network interface
    that has ``address``, unless ``env`` has them.
    """

    id: str
    job_id: str
    owner: str
    host: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    environment: str = "default"
    snapshot: str | None = None
    cpus_milli: int = 1000
    memory_bytes: int = 2**30
    gpus: tuple[int, ...] = ()
    modules: tuple[str, ...] | None = None
    holder: str | None = None
    workspace: str | None = None
    has_input: bool = False
    address: str = ""
    lease_id: str = ""
    interfaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a replica used since its start: CPU time, busy GPU time and network, and memory now.

    ``gpu_seconds`` is GPUs times seconds, weighed by how busy they were. Times and what came and
    went over the network never fall; that is told of replicas alone that have a network of theirs.
    """

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    gpu_seconds: float = 0.0
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """What an executor knows of a replica.

    ``exit_code`` is the process's, or minus the signal that ended it (as subprocess does);
    None unless the state is exited. ``reason`` is a sentence for people where there is
    more to say (could not start; ended by the memory limit). ``directory`` is where the
    job's files are: ``work``, ``output``, ``logs`` and ``checkpoints`` are below it.
    """

    state: ReplicaState
    exit_code: int | None = None
    reason: str = ""
    directory: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None

    def by_clock(self, seen: Callable[[datetime], datetime]) -> Self:
        """Return it with its moments by another clock; ``seen`` says what that showed at one."""
        started_at = None if self.started_at is None else seen(self.started_at)
        ended_at = None if self.ended_at is None else seen(self.ended_at)
        return replace(self, started_at=started_at, ended_at=ended_at)


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of a replica's output from ``offset``; the next read starts at ``next_offset``.

    ``is_complete`` says that the replica is gone and this reaches its last byte.
    """

    offset: int
    data: bytes
    is_complete: bool

    @property
    def next_offset(self) -> int:
        """Return where the next read starts."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica of one attempt of a job, as it is recorded. Ranks count from 0.

    ``restarts`` is how many there were before it in its place, in the same attempt.
    ``cpu_seconds`` and ``gpu_seconds`` are what of its use is in its lease's figures already.
    """

    id: str
    job_id: str
    attempt: int
    role: str
    role_rank: int
    rank: int
    host: str
    state: ReplicaState = ReplicaState.CREATED
    exit_code: int | None = None
    reason: str = ""
    directory: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    restarts: int = 0

    @property
    def name(self) -> str:
        """Return the name within the job, ``worker-0``."""
        return f"{self.role}-{self.role_rank}"

    @property
    def has_failed(self) -> bool:
        """Tell whether it ended in another way than with exit code 0."""
        return self.state.is_end and self.exit_code != 0


def last_of_each(replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    """Return the newest replica of each rank of one attempt, in order of rank."""
    newest: dict[int, Replica] = {}
    for replica in sorted(replicas, key=lambda each: (each.rank, each.restarts)):
        newest[replica.rank] = replica
    return tuple(newest.values())
