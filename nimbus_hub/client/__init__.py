"""The API from outside: what magics, command line, spawner and lab extension use."""

import importlib
from typing import TYPE_CHECKING

from nimbus_hub.client.client import Client, Progress
from nimbus_hub.client.decoding import decode, encode
from nimbus_hub.client.environment import proxied_url, session_environment, session_lease_id
from nimbus_hub.client.hosts import Gpu, Host, HostCheck, HostEngine
from nimbus_hub.client.requests import GangRequest, GroupRequest, JobRequest, WishesRequest
from nimbus_hub.client.resources import (
    ActivityTerms,
    DataUse,
    File,
    FileList,
    Gang,
    Group,
    Health,
    Job,
    Lease,
    LeaseWarning,
    LogText,
    Plan,
    PlanHost,
    Replica,
    Site,
    Slot,
    Snapshot,
)
from nimbus_hub.client.snapshot import Manifest, scan

if TYPE_CHECKING:
    from nimbus_hub.client.choices import (
        Environment,
        GpuCount,
        GpuHolder,
        GpuPool,
        Options,
        Queue,
        Size,
    )
    from nimbus_hub.client.engines import EngineCheck
    from nimbus_hub.client.usage import UsageQuery, UsageReport, UsageRow

__all__ = [
    "ActivityTerms",
    "Client",
    "DataUse",
    "EngineCheck",
    "Environment",
    "File",
    "FileList",
    "Gang",
    "GangRequest",
    "Gpu",
    "GpuCount",
    "GpuHolder",
    "GpuPool",
    "Group",
    "GroupRequest",
    "Health",
    "Host",
    "HostCheck",
    "HostEngine",
    "Job",
    "JobRequest",
    "Lease",
    "LeaseWarning",
    "LogText",
    "Manifest",
    "Options",
    "Plan",
    "PlanHost",
    "Progress",
    "Queue",
    "Replica",
    "Site",
    "Size",
    "Slot",
    "Snapshot",
    "UsageQuery",
    "UsageReport",
    "UsageRow",
    "WishesRequest",
    "decode",
    "encode",
    "proxied_url",
    "scan",
    "session_environment",
    "session_lease_id",
]


def __getattr__(name: str) -> object:
    """Return what is imported only when it is used: a run has no use for it."""
    for module in ("choices", "engines", "usage"):
        found = importlib.import_module(f"{__name__}.{module}")
        if name in found.__all__:
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
