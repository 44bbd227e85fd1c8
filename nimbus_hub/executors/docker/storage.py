"""Storage that hosts share: where the directories of jobs and the homes of owners are on it.

Each replica has its own job's directory and its own owner's home mounted, and nothing of what
is beside them. Only the engines make those directories, through a container that is never
started: nobody can put a link in their way.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.docker.containers import HOME, Mount, job_directory, volume_name

__all__ = [
    "MADE_VOLUME",
    "ROOT",
    "Root",
    "Storage",
    "below",
    "made",
    "new_directory",
    "owner_name",
    "read_source",
    "read_storage",
    "shut_to",
]

ROOT = "/nimbus/root"
"""Where a container has all of a storage that is to make a directory on it."""
MADE_VOLUME = "nimbus-mount-"
"""How volumes begin that stand for an export or a device, and hold nothing themselves."""

_KEYS = ("jobs", "homes", "service_path")
_DEVICE = "device"
_SHAPES = (
    "'/a/path', {'type': 'nfs', 'server': ..., 'path': '/...', 'options': ...} "
    "or {'type': 'volume', 'driver': ..., 'options': {...}}"
)


@dataclass(frozen=True, slots=True)
class Root:
    """A directory on storage, and one below it that a container has; ``name`` is that one's."""

    whole: Mount
    name: str
    part: Mount


@dataclass(frozen=True, slots=True)
class Storage:
    """What all hosts share: ``jobs`` and ``homes`` are mounted at :data:`ROOT` to make others.

    ``service_path`` is where the service itself has ``jobs``, empty if it has not.
    """

    jobs: Mount | None = None
    homes: Mount | None = None
    service_path: str = ""

    def job(self, job_id: str) -> Root | None:
        """Return the directory of a job, None if each host has one of its own."""
        if self.jobs is None:
            return None
        part = below(self.jobs, job_id, job_directory(job_id))
        return Root(
            self.jobs, job_id, replace(part, source=volume_name(job_id)) if part.options else part
        )

    def home(self, owner: str) -> Root | None:
        """Return the home of an owner, None if homes are the jobs' own."""
        if self.homes is None:
            return None
        name = owner_name(owner)
        return Root(self.homes, name, below(self.homes, name, HOME))


def below(whole: Mount, name: str, target: str) -> Mount:
    """Return the mount of a directory right below another, which may be written."""
    if not whole.options:
        return Mount(f"{whole.source.rstrip('/')}/{name}", target, is_read_only=False)
    device = f"{whole.options[_DEVICE].rstrip('/')}/{name}"
    return made(Mount("", target, False, whole.driver, {**whole.options, _DEVICE: device}))


def made(mount: Mount) -> Mount:
    """Return a mount with the name of its volume: one for each way of making one."""
    if mount.source or not mount.options:
        return mount
    said = json.dumps([mount.driver, *sorted(mount.options.items())])
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    return replace(mount, source=f"{MADE_VOLUME}{digest}")


def owner_name(owner: str) -> str:
    """Return an owner's name as that of a directory: it leads nowhere else and is nobody else's."""
    return re.sub(r"^\.", "%2E", quote(owner, safe="@+ "))


def new_directory(name: str, uid: int, gid: int) -> IO[bytes]:
    """Return the archive of an empty directory that only its owner may enter."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, 0o700, uid, gid
        archive.addfile(member)
    packed.seek(0)
    return packed


def shut_to(path: Path, uid: int, gid: int) -> Path | None:
    """Return what on the way to a directory a user may not pass, if anything."""
    for parent in reversed(path.parents):
        status = parent.stat()
        bit = 0o100 if status.st_uid == uid else 0o010 if status.st_gid == gid else 0o001
        if uid != 0 and not status.st_mode & bit:
            return parent
    return None


def read_storage(given: Any) -> Storage:
    """Return what a site says of its storage; raise InvalidRequest naming what is wrong."""
    if not isinstance(given, Mapping):
        keys = ", ".join(_KEYS)
        raise InvalidRequest(f"containers.storage must be a dict with {keys}, got {given!r}")
    _known(given, _KEYS, "containers.storage")
    service_path = str(given.get("service_path", ""))
    if service_path and (not service_path.startswith("/") or "jobs" not in given):
        raise InvalidRequest(
            "containers.storage.service_path must be where the service has `jobs`, like "
            f"'/srv/nimbus', got {service_path!r}"
        )
    return Storage(_root(given, "jobs"), _root(given, "homes"), service_path)


def _root(given: Mapping[str, Any], key: str) -> Mount | None:
    if key not in given:
        return None
    source, driver, options = read_source(given[key], f"containers.storage.{key}")
    if not source.startswith("/") and _DEVICE not in options:
        raise InvalidRequest(
            f"containers.storage.{key} must be a path, an NFS export, or a volume whose options "
            f"have a `device`: directories are made below it. Got {given[key]!r}"
        )
    return made(Mount(source, ROOT, False, driver, options))


def read_source(given: Any, where: str) -> tuple[str, str, dict[str, str]]:
    """Return the path or volume that is meant, and by which driver and options it is made."""
    found: tuple[str, str, dict[str, str]]
    if isinstance(given, str) and given:
        found = given, "", {}
    elif isinstance(given, Mapping) and given.get("type") == "nfs":
        found = "", "local", _nfs(given, where)
    elif isinstance(given, Mapping) and given.get("type") == "volume":
        found = _volume(given, where)
    else:
        raise InvalidRequest(f"{where} must be {_SHAPES}, got {given!r}")
    if "docker.sock" in f"{found[0]} {' '.join(found[2].values())}":
        raise InvalidRequest("containers may not mount the engine's socket: who has it is root")
    return found


def _nfs(given: Mapping[str, Any], where: str) -> dict[str, str]:
    _known(given, ("type", "server", "path", "options"), where)
    server, path = str(given.get("server", "")), str(given.get("path", ""))
    if not server or not path.startswith("/"):
        raise InvalidRequest(f"{where} must have a server and a path like '/export', got {given!r}")
    options = [f"addr={server}", *filter(None, [str(given.get("options", ""))])]
    return {"type": "nfs", "o": ",".join(options), _DEVICE: f":{path}"}


def _volume(given: Mapping[str, Any], where: str) -> tuple[str, str, dict[str, str]]:
    _known(given, ("type", "name", "driver", "options"), where)
    options = given.get("options", {})
    if not isinstance(options, Mapping):
        raise InvalidRequest(f"{where} must have options by name, got {options!r}")
    name = str(given.get("name", ""))
    if not name and not options:
        raise InvalidRequest(f"{where} must have the name of a volume, or options that make one")
    driver = str(given.get("driver", "local" if options else ""))
    return name, driver, {str(key): str(value) for key, value in options.items()}


def _known(given: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(given) - set(keys))
    if unknown:
        raise InvalidRequest(f"{where} has no {unknown[0]!r}; it has {', '.join(keys)}")
