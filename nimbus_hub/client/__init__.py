"""The API from outside: what magics, command line, spawner and lab extension use."""

from nimbus_hub.client.client import Client, Progress
from nimbus_hub.client.environment import proxied_url, session_environment, session_lease_id
from nimbus_hub.client.requests import GroupRequest, JobRequest
from nimbus_hub.client.resources import (
    Environment,
    Gpu,
    GpuCount,
    Group,
    Health,
    Host,
    Job,
    Lease,
    LeaseWarning,
    LogText,
    Options,
    Plan,
    Replica,
    Size,
    Slot,
    Snapshot,
    decode,
    encode,
)
from nimbus_hub.client.snapshot import Manifest, scan

__all__ = [
    "Client",
    "Environment",
    "Gpu",
    "GpuCount",
    "Group",
    "GroupRequest",
    "Health",
    "Host",
    "Job",
    "JobRequest",
    "Lease",
    "LeaseWarning",
    "LogText",
    "Manifest",
    "Options",
    "Plan",
    "Progress",
    "Replica",
    "Size",
    "Slot",
    "Snapshot",
    "decode",
    "encode",
    "proxied_url",
    "scan",
    "session_environment",
    "session_lease_id",
]
