"""The API's JSON on its way in. The OpenAPI file is generated from these classes.

Amounts are as people write them (``"90m"``, ``"4G"``, ``"A100:2"``) or plain numbers
(seconds, bytes, count). Unknown fields are refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from nimbus_hub.model.engine import BRIDGE, Engine
from nimbus_hub.model.policy import Signal
from nimbus_hub.model.slot import Topology
from nimbus_hub.model.text import one_line
from nimbus_hub.model.wishes import HIGHEST_PRIORITY

__all__ = [
    "ActivityRequest",
    "EndRequest",
    "EngineRequest",
    "GangRequest",
    "GroupRequest",
    "HostRequest",
    "InputRequest",
    "JobRequest",
    "LeaseRequest",
    "ProgressRequest",
    "RenewRequest",
    "Request",
    "SavedRequest",
    "SavingRequest",
    "SnapshotFile",
    "SnapshotRequest",
    "WishesRequest",
]

Amount = Annotated[str | int, Field(union_mode="left_to_right")]
Number = Annotated[str | int | float, Field(union_mode="left_to_right")]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Id = Annotated[str, Field(min_length=1, max_length=100)]
Seconds = Annotated[float, Field(ge=0, le=10**9)]
Datum = Annotated[str, Field(min_length=1, max_length=2100), AfterValidator(one_line)]
# What a process can be given: no NUL, and not more at once than Linux takes (MAX_ARG_STRLEN).
Word = Annotated[str, Field(max_length=2**17 - 1, pattern=r"^[^\x00]*$")]
Env = dict[Annotated[str, Field(max_length=1000, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Word]
# Seen by others than who wrote it, an administrator in a terminal for one.
Line = Annotated[str, AfterValidator(one_line)]
HostText = Annotated[Line, Field(max_length=1000)]


class Request(BaseModel):
    """Base of all request bodies."""

    model_config = ConfigDict(extra="forbid")


class GroupRequest(Request):
    """A wish for ``count`` equal slots of one role; sizes are per slot."""

    role: str = "worker"
    count: int = 1
    cpus: Number = 1
    memory: Amount = "2G"
    gpus: Number = Field(default=0, description="2, a share of one like 0.5, or A100,V100:2")
    topology: Topology | None = Field(default=None, description="none: the role's own")


class WishesRequest(Request):
    """What a request says beside its slots: where, how soon, and at what price."""

    datacenter: Name | None = Field(default=None, description="none: the scheduler chooses")
    inputs: list[Datum] = Field(default_factory=list, description="URL, or URL=SIZE")
    outputs: list[Datum] = Field(default_factory=list, description="URL, or URL=SIZE")
    queue: Name = "default"
    priority: int = Field(default=0, ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY)
    preemptible: bool = False
    expected: Amount | None = Field(default=None, description="how long it will likely take")
    step_bytes: Amount | None = Field(
        default=None, description="what a worker sends the others in each step"
    )


class LeaseRequest(WishesRequest):
    """A wish for a lease. Only administrators may name another owner."""

    kind: Literal["session"] = "session"
    name: str = Field(default="", max_length=100)
    owner: str | None = None
    groups: list[GroupRequest] = Field(min_length=1, max_length=20)
    environment: str = "default"
    duration: Amount | None = None
    wait: Amount | None = Field(default=None, description="patience in the queue; none: for ever")


class ActivityRequest(Request):
    """What a session's server measured.

    ``idle_seconds`` is how long ago each signal last showed, by its name; what could not be
    measured is left out. ``cpu_seconds`` and ``gpu_seconds`` are since the session's start.
    """

    idle_seconds: dict[Signal, Seconds]
    busy_kernels: int = Field(default=0, ge=0, le=10_000)
    cpu_seconds: Seconds = 0
    gpu_seconds: Seconds = 0
    memory_bytes: int = Field(default=0, ge=0, le=2**60)
    open_documents: list[Annotated[Line, Field(max_length=1000)]] = Field(
        default_factory=list, max_length=200, description="paths below the session's home"
    )


class RenewRequest(Request):
    """A wish to move the end of a lease to ``duration`` from now (none: the policy's step)."""

    duration: Amount | None = None


class EndRequest(Request):
    """A wish to end a lease or job. ``is_stopped`` (spawner only): the process is gone already."""

    reason: Line = Field(default="", max_length=1000)
    is_stopped: bool = False


class SavingRequest(Request):
    """The word of an ending session that its before-reclaim script runs ``seconds`` at most."""

    seconds: float = Field(gt=0, le=60)


class SavedRequest(Request):
    """The word of an ending session that a part of it is saved.

    With the ``documents`` comes which were ``opened``, as paths below the session's home; with
    the ``script`` its ``outcome``.
    """

    part: Literal["documents", "script"] = "documents"
    opened: list[Annotated[Line, Field(max_length=4096)]] = Field(
        default_factory=list, max_length=200
    )
    outcome: Line = Field(default="", max_length=200)


class HostRequest(Request):
    """A word about a host."""

    reason: Line = Field(default="", max_length=1000)


class EngineRequest(Request):
    """A Docker engine that is to be a host, as the cluster file describes it."""

    host: HostText = Field(min_length=1)
    endpoint: HostText
    tls: HostText = Field(default="", description="a directory of the service's machine")
    address: HostText = Field(default="", description="empty: that of a tcp endpoint")
    datacenter: HostText = "default"
    rack: HostText = "default"
    labels: dict[HostText, HostText] = Field(default_factory=dict, max_length=100)
    network: HostText = BRIDGE
    subnet: HostText = Field(default="", description="empty: one that is free")

    def engine(self) -> Engine:
        """Return the engine; raise InvalidRequest for what is none."""
        values = self.model_dump()
        if not self.address:
            del values["address"]
        return Engine(**values)


class JobRequest(WishesRequest):
    """A wish to run a command as a job, with a lease of its own or on a debug gang."""

    name: Line = Field(default="", max_length=100)
    framework: str | None = Field(
        default=None, description="none: by the imports, else script; or the gang's"
    )
    imports: list[Annotated[str, Field(max_length=200)]] = Field(
        default_factory=list, max_length=1000, description="the packages that the script imports"
    )
    groups: list[GroupRequest] | None = Field(
        default=None, min_length=1, max_length=20, description="none: one worker, or the gang's"
    )
    argv: list[Word] = Field(min_length=1, max_length=10_000)
    env: Env = Field(default_factory=dict)
    snapshot: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    environment: str | None = Field(default=None, description="none: default, or the gang's")
    duration: Amount | None = Field(default=None, description="not on a gang: it has its own")
    retries: int = Field(default=0, ge=0, le=100)
    stall: Amount | None = Field(
        default=None,
        description="an attempt without a sign of life for this time fails, or `off`; "
        "none: as the operator has set it",
    )
    gang: Id | None = Field(default=None, description="lease of a debug gang to run on")
    pdb: bool = Field(
        default=False, description="a replica that fails waits in its debugger (on a gang)"
    )
    options: dict[str, Line] = Field(
        default_factory=dict, max_length=100, description="the framework's own, by name"
    )


class InputRequest(Request):
    """Text for the standard input of a replica, like ``worker-0``; an empty one is its end."""

    replica: str = Field(min_length=1, max_length=100)
    text: str = Field(max_length=2**16)


class GangRequest(Request):
    """A wish to hold a debug gang; ``session`` is the session's lease that it belongs to."""

    framework: str = "script"
    groups: list[GroupRequest] = Field(
        default_factory=lambda: [GroupRequest()], min_length=1, max_length=20
    )
    environment: str = "default"
    name: Line = Field(default="", max_length=100)
    duration: Amount | None = None
    wait: Amount | None = Field(default=None, description="patience in the queue; none: for ever")
    session: Id | None = Field(default=None, description="none: it belongs to no session")


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
