"""Certificates for internal SSL, as they are put into a session's container: pure functions.

DockerSpawner shares them as a volume that a second container fills; here they are files of the
session's own container, which nobody else on the host mounts and which end with it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

__all__ = ["DIRECTORY", "alt_name", "archive", "paths_inside", "text_of", "user_ids"]

DIRECTORY = "nimbus-ssl"
"""Below the root of the container."""

_FILES = {"keyfile": "key.pem", "certfile": "cert.pem", "cafile": "ca.pem"}


def alt_name(address: str) -> str:
    """Return an address as a certificate names it."""
    try:
        return f"IP:{ip_address(address)}"
    except ValueError:
        return f"DNS:{address}"


def paths_inside() -> dict[str, str]:
    """Return where a session finds its certificates, as JupyterHub names them."""
    return {name: f"/{DIRECTORY}/{file}" for name, file in _FILES.items()}


def archive(contents: Mapping[str, bytes], uid: int, gid: int) -> bytes:
    """Return what is unpacked at the root: files that only their user can read."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as made:
        made.addfile(_owned(DIRECTORY, uid, gid, 0o500, tarfile.DIRTYPE))
        for name, content in contents.items():
            entry = _owned(f"{DIRECTORY}/{_FILES[name]}", uid, gid, 0o400)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def user_ids(user: str, passwd: str) -> tuple[int, int]:
    """Return the ids of a container's user, who may be given by name; ``passwd`` is its file.

    A name that the file does not have is root's: the engine will refuse to start it.
    """
    name, _, group = user.partition(":")
    uid, gid = 0, 0
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) > 3 and name in (fields[0], fields[2]):
            uid, gid = int(fields[2]), int(fields[3])
            break
    if name.isdecimal():
        uid = int(name)
    return uid, int(group) if group.isdecimal() else gid


def text_of(packed: Iterable[bytes]) -> str:
    """Return the one file of an archive, which may come as it is read."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(packed))) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        return file.read().decode(errors="replace") if file else ""


def _owned(
    name: str, uid: int, gid: int, mode: int, kind: bytes = tarfile.REGTYPE
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.uid, entry.gid, entry.mode, entry.type = uid, gid, mode, kind
    return entry
