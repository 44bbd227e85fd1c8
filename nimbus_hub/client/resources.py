"""What the service answers: frozen dataclasses with the fields of the API's responses.

Times are aware datetimes, lists are tuples.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = [
    "ActivityTerms",
    "DataUse",
    "File",
    "FileList",
    "Gang",
    "Group",
    "Health",
    "Job",
    "Lease",
    "LeaseWarning",
    "LogText",
    "Plan",
    "PlanHost",
    "Replica",
    "Site",
    "Slot",
    "Snapshot",
]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the service works."""

    status: str
    version: str


@dataclass(frozen=True, slots=True)
class Group:
    """A wish for equal slots; ``gpu_milli`` thousandths of each device, of any of the models."""

    role: str
    count: int
    cpus_milli: int
    memory_bytes: int
    gpus: int
    gpu_milli: int
    gpu_models: tuple[str, ...]
    topology: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A share of one host, held by a lease; ``gpu_milli`` thousandths of each device."""

    name: str
    role: str
    host: str
    address: str
    cpus_milli: int
    memory_bytes: int
    gpus: tuple[int, ...]
    gpu_milli: int
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DataUse:
    """Data that is read or written."""

    url: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease. ``now`` is the service's time; ``warnings_seconds`` the times before the end.

    While it waits ``reason`` says why, ``reason_code`` in one stable word, and ``note`` what
    others did to it meanwhile; ``placement`` says where its slots are and why there.
    ``parent`` is the session's lease that a debug gang belongs to, ``size`` the name of the
    size chosen. ``cpu_seconds`` and ``gpu_seconds`` are how busy what it holds was, ``opened``
    what was open in the session when it ended.

    ``renewable_until`` is the latest end that the ``renewals_left`` can lead to, None if none
    can. ``idle_seconds`` is after what time without activity it ends, or, without
    ``idle_ends``, is only told of; None: never. While that is known, ``idle_since`` is when
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
    groups: tuple[Group, ...]
    queue: str
    priority: int
    is_preemptible: bool
    datacenter: str | None
    inputs: tuple[DataUse, ...]
    outputs: tuple[DataUse, ...]
    expected_seconds: float | None
    step_bytes: int | None
    slots: tuple[Slot, ...]
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
    opened: tuple[str, ...]
    renewals: int
    is_ended: bool
    can_renew: bool
    renewable_until: datetime | None
    renewals_left: int
    renewal_seconds: float
    warnings_seconds: tuple[float, ...]
    idle_seconds: float | None
    idle_ends: bool
    idle_since: datetime | None
    idle_warns_at: datetime | None
    idle_ends_at: datetime | None
    idle_reason: str
    now: datetime
    version: int


@dataclass(frozen=True, slots=True)
class LeaseWarning:
    """A lease that ends in ``seconds``; ``kind`` is end, or idle with what did not happen."""

    lease: Lease
    seconds: float
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class ActivityTerms:
    """What a session is to know for its next report, which is due in ``next_seconds``.

    ``cpu_busy`` and ``gpu_busy`` are shares of a core and of a GPU from which on these are
    busy; ``idle_gangs`` are the session's debug gangs that do nothing.
    """

    next_seconds: float
    cpu_busy: float
    gpu_busy: float
    idle_gangs: tuple[Lease, ...]


@dataclass(frozen=True, slots=True)
class Replica:
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


@dataclass(frozen=True, slots=True)
class Job:
    """A job with the replicas of its current attempt. Directories are None before the start.

    What it says of waiting is its lease's; ``preemptions`` of its attempts ended because
    others got its slots. ``gang`` is its lease if that is a debug gang's, which stays after it.
    ``framework_reason`` says why the framework is this one if nobody named it. Files and output
    were deleted at ``deleted_at``, if they were; ``deletion`` says why.
    """

    id: str
    name: str
    owner: str
    lease_id: str
    gang: str | None
    framework: str
    framework_reason: str
    argv: tuple[str, ...]
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
    replicas: tuple[Replica, ...]
    output_dir: str | None
    log_dir: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    deleted_at: datetime | None
    deletion: str
    is_ended: bool
    version: int


@dataclass(frozen=True, slots=True)
class Gang:
    """A debug gang: slots held for runs, one at a time, with a warm replica on each.

    ``state`` is queued, warming, ready, busy, ending or ended. ``replicas`` are the warm ones,
    of job ``job_id``; ``run`` is the run under way, ``runs`` how many there were with it.
    """

    lease: Lease
    job_id: str
    framework: str
    state: str
    reason: str
    replicas: tuple[Replica, ...]
    run: Job | None
    runs: int
    version: int


@dataclass(frozen=True, slots=True)
class PlanHost:
    """A host of a plan and what it would hold of it."""

    name: str
    datacenter: str
    rack: str
    slots: tuple[str, ...]
    gpus_milli: int


@dataclass(frozen=True, slots=True)
class Site:
    """What speaks for and against a datacenter; ``wait_seconds`` is None where nobody knows."""

    datacenter: str
    bytes_to_move: int
    transfer_seconds: float
    wait_seconds: float | None
    is_chosen: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What would happen: where the slots would be and why, or why they would wait.

    ``preemptions`` leases would be stopped for it; only administrators are told which.
    ``framework_reason`` says why the framework is this one if nobody named it.
    """

    framework: str
    framework_reason: str
    slots: tuple[Slot, ...]
    hosts: tuple[PlanHost, ...]
    placement: str
    would_wait: bool
    position: int | None
    reason: str
    reason_code: str
    starts_by: datetime | None
    sites: tuple[Site, ...]
    preemptions: int
    preempted_lease_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogText:
    """Output of a replica; bytes that are no UTF-8 are replaced. Offsets are in bytes."""

    replica: str
    attempt: int
    offset: int
    next_offset: int
    text: str
    is_complete: bool


@dataclass(frozen=True, slots=True)
class File:
    """A file that a job has written, by its path from the job's directory: ``output/model.pt``.

    ``version`` is another text whenever the file has changed.
    """

    path: str
    size_bytes: int
    changed_at: datetime
    version: str
    host: str


@dataclass(frozen=True, slots=True)
class FileList:
    """Files in order of their paths; unless it ``is_whole`` there are more."""

    items: tuple[File, ...]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A working directory; ``missing`` are the digests still to be uploaded."""

    digest: str
    missing: tuple[str, ...]
