"""What a container is, computed before it is made: pure functions from a spec to a value.

Standard output and error go down one pipe, which only a shell inside can have them do: an
engine reads two pipes in no certain order, and the log would not be what was written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nimbus_hub.executors.processes import MARKER
from nimbus_hub.model.engine import BRIDGE, HOST_NETWORK
from nimbus_hub.model.replica import ReplicaSpec

__all__ = [
    "DIRECTORIES",
    "GANG_LABEL",
    "HOME",
    "JOB_LABEL",
    "REPLICA_LABEL",
    "Mount",
    "Terms",
    "container",
    "container_name",
    "job_directory",
    "mounted",
    "volume_name",
]

DIRECTORIES = ("output", "logs", "checkpoints")
"""What a job leaves, below its directory."""
GANG_LABEL = "nimbus.gang"
"""Of whose lease a container is, or a network."""
HOME = "/nimbus/home"
"""Where the home of a replica's owner is, if the site has such."""
JOB_LABEL = "nimbus.job"
REPLICA_LABEL = "nimbus.replica"

_ONE_PIPE = ("/bin/sh", "-c", 'exec "$@" 2>&1', "sh")
_WAIT = ("sleep", "infinity")
_MOST_PROCESSES = 16384
_LOG_FILES = 5


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of the host, or a volume, that replicas have.

    With a ``driver`` the engine has that make the volume, by ``options``, if it is not there.
    """

    source: str
    target: str
    is_read_only: bool = True
    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Terms:
    """What site and engine say of a container, beside the replica's spec.

    ``image`` is an id or a digest, never a name that may come to mean another. ``job`` is
    mounted as the job's directory, ``home`` as that of its owner, without it each job has one.
    ``address`` is that on ``network``, if it is one of its own. With ``is_read_only`` nothing
    but what is mounted to be written, and /tmp, can be.
    ``ulimits`` are by name, -1 for none; an engine may give no more than it has itself.
    ``log_bytes`` is how much output the engine keeps for a service that is away.
    """

    image: str
    job: Mount
    uid: int
    gid: int
    home: Mount | None = None
    network: str = BRIDGE
    address: str = ""
    mounts: tuple[Mount, ...] = ()
    is_read_only: bool = False
    ulimits: Mapping[str, int] = field(default_factory=dict)
    shm_share: float = 0.5
    log_bytes: int = 320 * 2**20


def container_name(replica_id: str) -> str:
    """Return the name under which a replica is found again."""
    return f"nimbus-{replica_id}"


def volume_name(job_id: str) -> str:
    """Return the name of the volume that the replicas of a job share on one engine."""
    return f"nimbus-{job_id}"


def job_directory(job_id: str) -> str:
    """Return where the job's directories are, within its containers."""
    return f"/nimbus/{job_id}"


def mounted(mount: Mount) -> dict[str, Any]:
    """Return a mount as the engine is asked for it."""
    found: dict[str, Any] = {
        "Type": "bind" if mount.source.startswith("/") else "volume",
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.is_read_only,
    }
    if mount.driver:
        driver = {"Name": mount.driver, "Options": dict(mount.options)}
        # What an image has there is not put into storage that others share.
        found["VolumeOptions"] = {"NoCopy": True, "DriverConfig": driver}
    return found


def container(spec: ReplicaSpec, terms: Terms) -> dict[str, Any]:
    """Return the whole body of the engine's request that creates a container."""
    is_holder = spec.modules is not None
    made: dict[str, Any] = {
        "Image": terms.image,
        "Entrypoint": [],
        "Cmd": [*_ONE_PIPE, *(_WAIT if is_holder else spec.argv)],
        "WorkingDir": "/" if is_holder else f"{job_directory(spec.job_id)}/work",
        "User": f"{terms.uid}:{terms.gid}",
        "Env": [f"{name}={value}" for name, value in _environment(spec, terms).items()],
        "Labels": _labels(spec),
        # Ends with the one connection that writes to it: an engine can end it in no other way.
        "OpenStdin": spec.has_input,
        "StdinOnce": spec.has_input,
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(spec, terms),
    }
    if terms.address:
        addresses = {"IPAMConfig": {"IPv4Address": terms.address}}
        made["NetworkingConfig"] = {"EndpointsConfig": {terms.network: addresses}}
    return made


def _environment(spec: ReplicaSpec, terms: Terms) -> dict[str, str]:
    directory = job_directory(spec.job_id)
    found = {
        "HOME": f"{directory}/home" if terms.home is None else terms.home.target,
        "USER": _user_name(spec.owner),
        "LANG": "C.UTF-8",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # Has init send signals to all of the main process's group.
        "TINI_KILL_PROCESS_GROUP": "1",
        **spec.env,
        "PYTHONPATH": ":".join(filter(None, (spec.env.get("PYTHONPATH"), f"{directory}/lib"))),
        "NIMBUS_OUTPUT_DIR": f"{directory}/output",
        "NIMBUS_LOG_DIR": f"{directory}/logs",
        "NIMBUS_CHECKPOINT_DIR": f"{directory}/checkpoints",
        # Only the granted devices are there, and CUDA counts what is there.
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(spec.gpus)))),
        "NVIDIA_VISIBLE_DEVICES": ",".join(map(str, spec.gpus)) or "void",
        MARKER: spec.id,
    }
    if terms.network != HOST_NETWORK:
        # The only one there is; with the host's own they are left to find it.
        found = {**dict.fromkeys(spec.interfaces, "eth0"), **found}
    return found


def _user_name(owner: str) -> str:
    return re.sub(r"[^A-Za-z0-9._@-]", "_", owner)


def _labels(spec: ReplicaSpec) -> dict[str, str]:
    labels = {REPLICA_LABEL: spec.id, JOB_LABEL: spec.job_id, "nimbus.owner": spec.owner}
    if spec.lease_id:
        labels[GANG_LABEL] = spec.lease_id
    for name in ("role", "rank"):
        value = spec.env.get(f"NIMBUS_{name.upper()}")
        if value is not None:
            labels[f"nimbus.{name}"] = value
    return labels


def _host_config(spec: ReplicaSpec, terms: Terms) -> dict[str, Any]:
    config: dict[str, Any] = {
        "NanoCpus": spec.cpus_milli * 10**6,
        "Memory": spec.memory_bytes,
        # The same: no swap.
        "MemorySwap": spec.memory_bytes,
        "ShmSize": round(spec.memory_bytes * terms.shm_share),
        "PidsLimit": _MOST_PROCESSES,
        "Ulimits": [
            {"Name": name, "Soft": value, "Hard": value}
            for name, value in {"core": 0, **terms.ulimits}.items()
        ],
        "Init": True,
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "ReadonlyRootfs": terms.is_read_only,
        "Mounts": [mounted(each) for each in _mounts(terms)],
        "NetworkMode": terms.network,
        "LogConfig": _log_config(terms.log_bytes),
    }
    if terms.is_read_only:
        config["Tmpfs"] = {"/tmp": "rw,exec,nosuid,nodev,mode=1777"}
    if spec.gpus:
        devices = [str(index) for index in spec.gpus]
        config["DeviceRequests"] = [
            {"Driver": "nvidia", "DeviceIDs": devices, "Capabilities": [["gpu"]]}
        ]
    return config


def _mounts(terms: Terms) -> list[Mount]:
    return [terms.job, *filter(None, [terms.home]), *terms.mounts]


def _log_config(size: int) -> dict[str, Any]:
    """Have the engine keep output byte for byte; its default driver keeps text alone."""
    each = {"max-size": str(size // _LOG_FILES), "max-file": str(_LOG_FILES), "compress": "false"}
    return {"Type": "local", "Config": each}
