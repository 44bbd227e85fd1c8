"""The API's JSON on its way out. The OpenAPI file is generated from these classes.

Numbers carry their unit in the name. Datetimes are ISO 8601 in UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = [
    "ActivityTerms",
    "DataUse",
    "Error",
    "Gang",
    "GangList",
    "Gpu",
    "Group",
    "Health",
    "Host",
    "HostCheck",
    "HostCheckList",
    "HostList",
    "Job",
    "JobList",
    "Lease",
    "LeaseList",
    "LeaseWarning",
    "LogList",
    "LogText",
    "Plan",
    "PlanHost",
    "Replica",
    "Response",
    "Site",
    "Slot",
    "Snapshot",
]


class Response(BaseModel):
    """Base of all response bodies."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Error(Response):
    """Why a request was refused. ``code`` is stable, ``message`` is a sentence for people."""

    code: str
    message: str


class Health(Response):
    """Whether the service works."""

    status: Literal["ok"] = "ok"
    version: str


class Group(Response):
    """A wish for equal slots; ``gpu_milli`` thousandths of each device, of any of the models."""

    role: str
    count: int
    cpus_milli: int
    memory_bytes: int
    gpus: int
    gpu_milli: int
    gpu_models: list[str]
    topology: str


class Slot(Response):
    """A share of one host, held by a lease; ``gpu_milli`` thousandths of each device."""

    name: str
    role: str
    host: str
    address: str
    cpus_milli: int
    memory_bytes: int
    gpus: list[int]
    gpu_milli: int
    ports: list[int]


class DataUse(Response):
    """Data that is read or written."""

    url: str
    size_bytes: int | None


class Lease(Response):
    """A lease. ``now`` is the service's time; ``warnings_seconds`` the times before the end.

    While it waits ``reason`` says why, ``reason_code`` in one stable word, and ``note`` what
    others did to it meanwhile; ``placement`` says where its slots are and why there.
    ``parent`` is the session's lease that a debug gang belongs to, ``size`` the name of the
    size chosen. ``cpu_seconds`` and ``gpu_seconds`` are how busy what it holds was, ``opened``
    what was open in the session when it ended.

    ``renewable_until`` is the latest end that the ``renewals_left`` can lead to, null if none
    can. ``idle_seconds`` is after what time without activity it ends, or, without
    ``idle_ends``, is only told of; null: never. While that is known, ``idle_since`` is when
    something last happened, ``idle_reason`` what did not since, and ``idle_warns_at`` and
    ``idle_ends_at`` what comes of it unless something does.
    """

    id: str
    kind: str
    owner: str
    name: str
    parent: str | None
    size: str
    state: str
    reason: str
    reason_code: str
    note: str
    environment: str
    groups: list[Group]
    queue: str
    priority: int
    is_preemptible: bool
    datacenter: str | None
    inputs: list[DataUse]
    outputs: list[DataUse]
    expected_seconds: float | None
    step_bytes: int | None
    slots: list[Slot]
    placement: str
    length_seconds: float
    position: int | None
    starts_by: datetime | None
    created_at: datetime
    granted_at: datetime | None
    active_at: datetime | None
    expires_at: datetime | None
    latest_end: datetime | None
    ended_at: datetime | None
    cpu_seconds: float
    gpu_seconds: float
    opened: list[str]
    renewals: int
    is_ended: bool
    can_renew: bool
    renewable_until: datetime | None
    renewals_left: int
    renewal_seconds: float
    warnings_seconds: list[float]
    idle_seconds: float | None
    idle_ends: bool
    idle_since: datetime | None
    idle_warns_at: datetime | None
    idle_ends_at: datetime | None
    idle_reason: str
    now: datetime
    version: int


class LeaseWarning(Response):
    """A lease ends in ``seconds``: its time runs out, or nothing happens on it (``reason``)."""

    lease: Lease
    seconds: int
    kind: Literal["end", "idle"]
    reason: str


class ActivityTerms(Response):
    """What a session is to know for its next report.

    The seconds until it, from what share of a core and of a GPU on these are busy, and the
    debug gangs of the session that do nothing, for its user to hear of.
    """

    next_seconds: float
    cpu_busy: float
    gpu_busy: float
    idle_gangs: list[Lease]


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
    """A job with the replicas of its current attempt. Directories are null before the start.

    What it says of waiting is its lease's; ``preemptions`` of its attempts ended because
    others got its slots. ``gang`` is its lease if that is a debug gang's, which stays after it.
    Files and output were deleted at ``deleted_at``, if they were; ``deletion`` says why.
    ``framework_reason`` says why the framework is this one if nobody named it.
    """

    id: str
    name: str
    owner: str
    lease_id: str
    gang: str | None
    framework: str
    framework_reason: str
    argv: list[str]
    state: str
    reason: str
    reason_code: str
    note: str
    queue: str
    priority: int
    position: int | None
    starts_by: datetime | None
    placement: str
    attempt: int
    attempts: int
    preemptions: int
    progress: float | None
    progress_message: str
    replicas: list[Replica]
    output_dir: str | None
    log_dir: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    deleted_at: datetime | None
    deletion: str
    is_ended: bool
    version: int


class JobList(Response):
    """Jobs, newest first."""

    items: list[Job]


class Gang(Response):
    """A debug gang: slots held for runs, one at a time, with a warm replica on each.

    ``state`` is queued, warming, ready, busy, ending or ended. ``replicas`` are the warm ones,
    of job ``job_id``; ``run`` is the run under way, ``runs`` how many there were with it.
    """

    lease: Lease
    job_id: str
    framework: str
    state: Literal["queued", "warming", "ready", "busy", "ending", "ended"]
    reason: str
    replicas: list[Replica]
    run: Job | None
    runs: int
    version: int


class GangList(Response):
    """Debug gangs, newest first."""

    items: list[Gang]


class PlanHost(Response):
    """A host of a plan and what it would hold of it."""

    name: str
    datacenter: str
    rack: str
    slots: list[str]
    gpus_milli: int


class Site(Response):
    """What speaks for and against a datacenter; ``wait_seconds`` is null where nobody knows."""

    datacenter: str
    bytes_to_move: int
    transfer_seconds: float
    wait_seconds: float | None
    is_chosen: bool
    reason: str


class Plan(Response):
    """What would happen: where the slots would be and why, or why they would wait.

    ``preemptions`` leases would be stopped for it; only administrators are told which.
    ``framework_reason`` says why the framework is this one if nobody named it.
    """

    framework: str
    framework_reason: str
    slots: list[Slot]
    hosts: list[PlanHost]
    placement: str
    would_wait: bool
    position: int | None
    reason: str
    reason_code: str
    starts_by: datetime | None
    sites: list[Site]
    preemptions: int
    preempted_lease_ids: list[str]


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
    """A device, who holds it (``lease_id`` is the first), and why it is out of service."""

    index: int
    model: str
    memory_bytes: int
    free_milli: int
    lease_id: str | None
    lease_ids: list[str]
    fault: str


class Host(Response):
    """A host; ``state_reason`` says why it, or which of its GPUs, takes nothing."""

    name: str
    datacenter: str
    rack: str
    address: str
    state: str
    state_reason: str
    labels: dict[str, str]
    cpus_milli: int
    cpus_free_milli: int
    memory_bytes: int
    memory_free_bytes: int
    gpus: list[Gpu]


class HostCheck(Response):
    """What was found on a host, and what to do about it if it is not as it must be."""

    name: str
    is_ok: bool
    text: str
    remedy: str


class HostCheckList(Response):
    """What works on a host."""

    items: list[HostCheck]


class HostList(Response):
    """Hosts by name.

    Administrators are told why the cluster file is not in force as it is now; empty if it is.
    """

    items: list[Host]
    cluster_file_error: str


class Snapshot(Response):
    """A working directory; ``missing`` are the digests still to be uploaded."""

    digest: str
    missing: list[str]
