"""What the site says of all containers, and what follows from it for one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.docker.containers import Mount, Terms, job_directory, volume_name
from nimbus_hub.executors.docker.images import Credentials
from nimbus_hub.executors.docker.networks import Attachment
from nimbus_hub.executors.docker.storage import (
    Storage,
    made,
    owner_name,
    read_source,
    read_storage,
)
from nimbus_hub.model.replica import ReplicaSpec

__all__ = ["Policy", "read_policy"]

NOBODYS = 1000
_KEYS = ("user", "storage", "mounts", "read_only", "ulimits", "registries")
_NOT_SHARED = Storage()


@dataclass(frozen=True, slots=True)
class Policy:
    """What replicas may have: by owner, ``users`` gives uid and gid, ``mounts`` what is mounted.

    Environments in ``read_only`` have a root that cannot be written. ``output_bytes`` is how
    much of a replica's output is kept; ``credentials`` are ours by registry; ``storage`` is what
    hosts share.
    """

    users: Callable[[str], tuple[int, int]] = lambda owner: (NOBODYS, NOBODYS)
    mounts: Callable[[str], tuple[Mount, ...]] = lambda owner: ()
    storage: Storage = _NOT_SHARED
    read_only: frozenset[str] = frozenset()
    ulimits: Mapping[str, int] = field(default_factory=dict)
    shm_share: float = 0.5
    output_bytes: int = 256 * 2**20
    credentials: Mapping[str, Credentials] = field(default_factory=dict)

    @property
    def engine_log_bytes(self) -> int:
        """Return how much output engines keep: more than we do, so that none is missed."""
        return self.output_bytes * 5 // 4

    def terms(self, spec: ReplicaSpec, at: Attachment, image: str) -> Terms:
        """Return the terms of a replica's container."""
        uid, gid = self.users(spec.owner)
        job, home = self.storage.job(spec.job_id), self.storage.home(spec.owner)
        own = Mount(volume_name(spec.job_id), job_directory(spec.job_id), is_read_only=False)
        return Terms(
            image,
            own if job is None else job.part,
            uid,
            gid,
            home=None if home is None else home.part,
            network=at.network,
            address=at.address,
            mounts=self.mounts(spec.owner),
            is_read_only=spec.environment in self.read_only,
            ulimits=self.ulimits,
            shm_share=self.shm_share,
            log_bytes=self.engine_log_bytes,
        )


def read_policy(given: Mapping[str, Any]) -> Policy:
    """Return what a site's settings say; raise InvalidRequest naming what is wrong.

    ``user`` is ``UID:GID``, ``storage`` what `read_storage` reads, ``mounts`` a list of {source,
    target, read_only}, in which ``{owner}`` is the owner, ``read_only`` are environments,
    ``ulimits`` are by name, ``registries`` have {username, password} by registry.
    """
    unknown = sorted(set(given) - set(_KEYS))
    if unknown:
        raise InvalidRequest(f"containers has no {unknown[0]!r}; it has {', '.join(_KEYS)}")
    user = _read_user(str(given.get("user", f"{NOBODYS}:{NOBODYS}")))
    mounts = tuple(_read_mount(each) for each in given.get("mounts", ()))
    try:
        credentials = {
            str(name): Credentials(each["username"], each["password"])
            for name, each in given.get("registries", {}).items()
        }
    except (AttributeError, KeyError, TypeError):
        raise InvalidRequest(
            "containers.registries must be {registry: {'username': ..., 'password': ...}}"
        ) from None
    return Policy(
        users=lambda owner: user,
        mounts=lambda owner: tuple(_of_owner(mount, owner) for mount in mounts),
        storage=read_storage(given.get("storage", {})),
        read_only=frozenset(given.get("read_only", ())),
        ulimits=_read_ulimits(given.get("ulimits", {})),
        credentials=credentials,
    )


def _read_user(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        raise InvalidRequest(f"containers.user must be UID:GID like 1000:100, got {text!r}")
    return int(match[1]), int(match[2])


def _read_ulimits(given: Any) -> dict[str, int]:
    try:
        return {str(name): int(value) for name, value in given.items()}
    except (AttributeError, TypeError, ValueError):
        raise InvalidRequest(
            f"containers.ulimits must be numbers by name like {{'nofile': 4096}}, got {given!r}"
        ) from None


def _read_mount(given: Any) -> Mount:
    needed = isinstance(given, Mapping) and {"source", "target"} <= set(given)
    if not needed or not str(given["target"]).startswith("/"):
        raise InvalidRequest(
            "a mount of containers must be {'source': ..., 'target': '/...', 'read_only': ...}, "
            f"got {given!r}"
        )
    source, driver, options = read_source(given["source"], "the source of a mount of containers")
    is_read_only = bool(given.get("read_only", True))
    return Mount(source, str(given["target"]), is_read_only, driver, options)


def _of_owner(mount: Mount, owner: str) -> Mount:
    """Return a mount for an owner, whose name cannot lead elsewhere and is nobody else's."""

    def of_owner(text: str) -> str:
        return text.replace("{owner}", owner_name(owner))

    return made(
        replace(
            mount,
            source=of_owner(mount.source),
            target=of_owner(mount.target),
            options={name: of_owner(value) for name, value in mount.options.items()},
        )
    )
