"""What a warm container is, and what makes it a person's session: pure functions.

The request that creates a session's container has two parts. The one that is the same for many
(image, CPUs, memory, GPUs, network, rights) is its *shell*: a warm container is a shell whose
server has imported everything and waits. The other is a person's: name, environment, arguments
and mounts. It comes with the claim, mounts by a container beside it that takes hold of them, and
lends them to the one that runs: it has the capabilities to do so, a moment to live, no network,
and nothing of a person's to run. When it has ended it goes on to keep the person's volumes in
use, and says by its labels whose the session is, which labels of what exists already cannot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nimbus_hub.model.session_container import CLAIM_LABEL, WARM_LABEL

__all__ = [
    "arguments",
    "claim_request",
    "mount_targets",
    "shell_of",
]

_SERVER = ("-m", "nimbus_spawner.singleuser")
_WARM = ("-m", "nimbus_spawner.warm")
_PERSONS = frozenset({"command", "environment", "labels", "name", "volumes"})
_MOUNTS = ("Binds", "Mounts")

_LEND = """\
import ctypes, json, os, sys

AT_FDCWD, CLONE_NEWNS = -100, 0x20000
OPEN_TREE, MOVE_MOUNT = 428, 429  # the same on every architecture
CLONE, CLOSE_ON_EXEC, RECURSIVE, NO_PATH = 1, 0x80000, 0x8000, 4
libc = ctypes.CDLL(None, use_errno=True)

def do(function, *arguments):
    result = function(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

paths = json.loads(sys.argv[1])
flags = CLONE | CLOSE_ON_EXEC | RECURSIVE
held = [do(libc.syscall, OPEN_TREE, AT_FDCWD, path.encode(), flags) for path in paths]
files = [not os.path.isdir(path) for path in paths]
do(libc.setns, os.open("/proc/1/ns/mnt", os.O_RDONLY), CLONE_NEWNS)
for path, tree, is_file in zip(paths, held, files):
    os.makedirs(os.path.dirname(path) if is_file else path, exist_ok=True)
    if is_file and not os.path.exists(path):
        open(path, "x").close()
    do(libc.syscall, MOVE_MOUNT, tree, b"", AT_FDCWD, path.encode(), NO_PATH)
"""
"""Lends mounts to the container whose process 1 is process 1 here.

See open_tree(2), move_mount(2) and setns(2): Linux 5.2 or later.
"""


def arguments(request: Mapping[str, Any]) -> list[str] | None:
    """Return those of the server that a request starts; None if it is no server of ours."""
    command = request.get("command") or []
    if isinstance(command, str) or tuple(command[1:3]) != _SERVER:
        return None
    return list(command[3:])


def shell_of(
    request: Mapping[str, Any], own_labels: Mapping[str, str], prefix: str
) -> dict[str, Any]:
    """Return the part of a request that is no person's, as a request for what waits.

    What is missing is a name and where it waits. ``own_labels`` are those of the session,
    without which only the site's are left; ``prefix`` is of the hub's containers.
    """
    labels, host = request.get("labels") or {}, request.get("host_config") or {}
    site = {label: labels[label] for label in labels if label not in own_labels}
    return {
        **{key: value for key, value in request.items() if key not in _PERSONS},
        "command": [request["command"][0], *_WARM],
        # Those of a session are there, so that its end is heard of.
        "labels": {**site, **dict.fromkeys(own_labels, ""), WARM_LABEL: prefix},
        "host_config": {key: value for key, value in host.items() if key not in _MOUNTS},
    }


def mount_targets(request: Mapping[str, Any]) -> list[str]:
    """Return where the mounts of a request are, outer ones first."""
    host = request.get("host_config") or {}
    targets = [bind.split(":")[1] for bind in host.get("Binds") or ()]
    targets += [mount["Target"] for mount in host.get("Mounts") or ()]
    return sorted(targets)


def claim_request(
    request: Mapping[str, Any], own_labels: Mapping[str, str], container_id: str
) -> dict[str, Any]:
    """Return the request for the container that takes hold of a person's mounts."""
    host, python = request.get("host_config") or {}, request["command"][0]
    return {
        "image": request["image"],
        "name": f"{request['name']}-claim",
        "entrypoint": [],
        "command": [python, "-I", "-S", "-c", _LEND, json.dumps(mount_targets(request))],
        "user": "0:0",
        "working_dir": "/",
        "volumes": request.get("volumes"),
        "labels": {**own_labels, CLAIM_LABEL: container_id},
        "host_config": {
            **{key: host[key] for key in _MOUNTS if host.get(key)},
            "PidMode": f"container:{container_id}",
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            # To enter the other's mounts, and to mount there.
            "CapAdd": ["SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"],
            # Their usual profiles refuse mounts to whoever it is.
            "SecurityOpt": ["no-new-privileges:true", "apparmor=unconfined", "label=disable"],
        },
    }
