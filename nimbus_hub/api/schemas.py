"""The API's JSON, both ways. The OpenAPI file is generated from these classes.

Requests take amounts as people write them (``"90m"``, ``"4G"``, ``"A100:2"``) or as plain
numbers (seconds, bytes, count); responses always carry numbers with their unit in the
name. Datetimes are ISO 8601 in UTC. Unknown fields are refused.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from nimbus_hub.model.text import one_line

__all__ = [
    "EndRequest",
    "Environment",
    "Error",
    "Gpu",
    "GpuCount",
    "Group",
    "GroupRequest",
    "Health",
    "Host",
    "HostList",
    "Job",
    "JobList",
    "JobRequest",
    "Lease",
    "LeaseList",
    "LeaseRequest",
    "LeaseWarning",
    "LogList",
    "LogText",
    "Options",
    "Plan",
    "ProgressRequest",
    "RenewRequest",
    "Replica",
    "Request",
    "Response",
    "Size",
    "Slot",
    "Snapshot",
    "SnapshotFile",
    "SnapshotRequest",
]

Amount = Annotated[str | int, Field(union_mode="left_to_right")]
Cpus = Annotated[str | float, Field(union_mode="left_to_right")]
Name = Annotated[str, Field(min_length=1, max_length=100)]
# What a process can be given: no NUL, and not more at once than Linux takes (MAX_ARG_STRLEN).
Word = Annotated[str, Field(max_length=2**17 - 1, pattern=r"^[^\x00]*$")]
Env = dict[Annotated[str, Field(max_length=1000, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Word]
# Seen by others than who wrote it, an administrator in a terminal for one.
Line = Annotated[str, AfterValidator(one_line)]


class Request(BaseModel):
    """Base of all request bodies."""

    model_config = ConfigDict(extra="forbid")


class Response(BaseModel):
    """Base of all response bodies."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# Requests


class GroupRequest(Request):
    """A wish for ``count`` equal slots of one role; sizes are per slot."""

    role: str = "worker"
    count: int = 1
    cpus: Cpus = 1
    memory: Amount = "2G"
    gpus: Amount = 0


class LeaseRequest(Request):
    """A wish for a lease. Only administrators may name another owner."""

    kind: Literal["session"] = "session"
    name: str = Field(default="", max_length=100)
    owner: str | None = None
    groups: list[GroupRequest] = Field(min_length=1, max_length=20)
    environment: str = "default"
    duration: Amount | None = None
    wait: Amount | None = Field(default=None, description="patience in the queue; none: for ever")


class RenewRequest(Request):
    """A wish to move the end of a lease to ``duration`` from now (none: the policy's step)."""

    duration: Amount | None = None


class EndRequest(Request):
    """A wish to end a lease or job. ``is_stopped`` (spawner only): the process is gone already."""

    reason: Line = Field(default="", max_length=1000)
    is_stopped: bool = False


class JobRequest(Request):
    """A wish to run a command as a job with a lease of its own."""

    name: Line = Field(default="", max_length=100)
    framework: str = "script"
    groups: list[GroupRequest] = Field(
        default_factory=lambda: [GroupRequest()], min_length=1, max_length=20
    )
    argv: list[Word] = Field(min_length=1, max_length=10_000)
    env: Env = Field(default_factory=dict)
    snapshot: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    environment: str = "default"
    duration: Amount | None = None
    retries: int = Field(default=0, ge=0, le=100)


class ProgressRequest(Request):
    """How far a job is, told by the job itself."""

    fraction: float = Field(ge=0, le=1)
    message: Line = Field(default="", max_length=200)


class SnapshotFile(Request):
    """One file of a working directory; ``digest`` is the SHA-256 of its content."""

    path: str = Field(min_length=1, max_length=4096)
    size: int = Field(ge=0, le=2**53)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    is_executable: bool = False


class SnapshotRequest(Request):
    """The manifest of a working directory."""

    files: list[SnapshotFile] = Field(max_length=100_000)


# Responses


class Error(Response):
    """Why a request was refused. ``code`` is stable, ``message`` is a sentence for people."""

    code: str
    message: str


class Health(Response):
    """Whether the service works."""

    status: Literal["ok"] = "ok"
    version: str


class Group(Response):
    """A wish for equal slots."""

    role: str
    count: int
    cpus_milli: int
    memory_bytes: int
    gpus: int
    gpu_model: str | None


class Slot(Response):
    """A share of one host, held by a lease."""

    name: str
    role: str
    host: str
    address: str
    cpus_milli: int
    memory_bytes: int
    gpus: list[int]
    ports: list[int]


class Lease(Response):
    """A lease. ``now`` is the service's time; ``warnings_seconds`` the times before the end."""

    id: str
    kind: str
    owner: str
    name: str
    state: str
    reason: str
    environment: str
    groups: list[Group]
    slots: list[Slot]
    length_seconds: float
    position: int | None
    starts_by: datetime | None
    created_at: datetime
    granted_at: datetime | None
    active_at: datetime | None
    expires_at: datetime | None
    latest_end: datetime | None
    ended_at: datetime | None
    renewals: int
    is_ended: bool
    can_renew: bool
    renewal_seconds: float
    warnings_seconds: list[float]
    now: datetime
    version: int


class LeaseWarning(Response):
    """A lease ends in ``seconds``."""

    lease: Lease
    seconds: int


class LeaseList(Response):
    """Leases, newest first."""

    items: list[Lease]


class Replica(Response):
    """A process of a job; ``reason`` says more where the exit code does not."""

    id: str
    name: str
    role: str
    rank: int
    attempt: int
    host: str
    state: str
    exit_code: int | None
    reason: str
    started_at: datetime | None
    ended_at: datetime | None


class Job(Response):
    """A job with the replicas of its current attempt. Directories are null before the start."""

    id: str
    name: str
    owner: str
    lease_id: str
    framework: str
    argv: list[str]
    state: str
    reason: str
    position: int | None
    starts_by: datetime | None
    attempt: int
    attempts: int
    progress: float | None
    progress_message: str
    replicas: list[Replica]
    output_dir: str | None
    log_dir: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    is_ended: bool
    version: int


class JobList(Response):
    """Jobs, newest first."""

    items: list[Job]


class Plan(Response):
    """What would happen: where the slots would be, or why they would wait."""

    slots: list[Slot]
    would_wait: bool
    reason: str
    starts_by: datetime | None


class LogText(Response):
    """Output of a replica; bytes that are no UTF-8 are replaced. Offsets are in bytes."""

    replica: str
    attempt: int
    offset: int
    next_offset: int
    text: str
    is_complete: bool


class LogList(Response):
    """Output of replicas of a job."""

    items: list[LogText]


class Gpu(Response):
    """A device of a host and the lease that holds it."""

    index: int
    model: str
    memory_bytes: int
    lease_id: str | None


class Host(Response):
    """A host and what of it is free."""

    name: str
    datacenter: str
    rack: str
    address: str
    state: str
    cpus_milli: int
    cpus_free_milli: int
    memory_bytes: int
    memory_free_bytes: int
    gpus: list[Gpu]


class HostList(Response):
    """Hosts by name."""

    items: list[Host]


class Size(Response):
    """A ready-made choice of the spawn form."""

    name: str
    cpus_milli: int
    memory_bytes: int
    gpus: int


class Environment(Response):
    """Software that sessions and jobs can run in."""

    name: str
    description: str


class GpuCount(Response):
    """How many devices of a model there are, and are free."""

    model: str
    total: int
    free: int


class Options(Response):
    """What may be asked for: environments, sizes, GPUs, largest host, lease bounds."""

    environments: list[Environment]
    sizes: list[Size]
    gpus: list[GpuCount]
    frameworks: list[str]
    largest_cpus_milli: int
    largest_memory_bytes: int
    largest_gpus: int
    default_length_seconds: float
    longest_length_seconds: float
    renewal_seconds: float
    latest_end_seconds: float


class Snapshot(Response):
    """A working directory; ``missing`` are the digests still to be uploaded."""

    digest: str
    missing: list[str]
