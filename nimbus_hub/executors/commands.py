"""What is run, computed before it is run: pure functions from a spec to a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nimbus_hub import replica
from nimbus_hub.executors.accounts import Account
from nimbus_hub.executors.interfaces import interface_of
from nimbus_hub.executors.limits import ReplicaLimits
from nimbus_hub.executors.processes import MARKER
from nimbus_hub.model.replica import ReplicaSpec

__all__ = ["ON_PATH", "replica_environment", "supervisor_spec"]

ON_PATH = Path(replica.__file__).with_name("on_path")
"""What is on the search path of every replica's python, whatever its environment has."""

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def replica_environment(
    spec: ReplicaSpec, account: Account, programs: Path, directory: Path
) -> dict[str, str]:
    """Return the whole environment of a replica: nothing of the service's own is in it."""
    return {
        "HOME": str(account.home),
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell,
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        # The order in which GPUs are counted; CUDA's own default is by speed.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        **spec.env,
        **_interfaces(spec),
        "PYTHONPATH": ":".join(filter(None, (spec.env.get("PYTHONPATH"), str(ON_PATH)))),
        "PATH": f"{programs}:{spec.env.get('PATH', SYSTEM_PATH)}",
        "NIMBUS_OUTPUT_DIR": str(directory / "output"),
        "NIMBUS_LOG_DIR": str(directory / "logs"),
        "NIMBUS_CHECKPOINT_DIR": str(directory / "checkpoints"),
        MARKER: spec.id,
    }


def supervisor_spec(
    spec: ReplicaSpec,
    service: Account,
    account: Account,
    programs: Path,
    directory: Path,
    limits: ReplicaLimits,
) -> dict[str, Any]:
    """Return what the supervisor reads: program, environment, account and limits."""
    is_other = account.uid != service.uid
    rights = {"uid": account.uid, "gid": account.gid, "groups": list(account.groups)}
    is_holder = spec.modules is not None
    return {
        "id": spec.id,
        "argv": list(spec.argv),
        "env": replica_environment(spec, account, programs, directory),
        # A holder runs nothing of the user's and has no directories.
        "cwd": "/" if is_holder else str(directory / "work"),
        "directory": "" if is_holder else str(directory),
        "top": str(directory.parent),
        "account": rights if is_other else None,
        "cgroups": [str(group) for group in limits.groups],
        "memory_events": str(limits.memory_events) if limits.memory_events else None,
        "memory_bytes": spec.memory_bytes,
        "gpus": list(spec.gpus),
        "has_input": spec.has_input,
        "modules": list(spec.modules or ()),
    }


def _interfaces(spec: ReplicaSpec) -> dict[str, str]:
    """Return the variables that name this machine's interface with the replica's address."""
    wanted = [name for name in spec.interfaces if name not in spec.env]
    name = interface_of(spec.address) if wanted else None
    return {} if name is None else dict.fromkeys(wanted, name)
