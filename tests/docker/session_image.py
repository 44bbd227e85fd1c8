"""An image for sessions that every host of a cluster has at once: it is nearly empty.

Python, JupyterLab and this project are those of this machine, which all hosts mount.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

from tests.docker.cluster import ClusterHost, busybox_image
from tests.hub.conftest import ROOT

__all__ = ["HOME", "IMAGE", "UID", "load", "mounted", "wheel"]

IMAGE = "nimbus-test/session:1"
HOME, UID = "/home/jovyan", 1000

_PASSWD = "root:x:0:0::/root:/bin/sh\njovyan:x:1000:1000::/home/jovyan:/bin/sh\n"
_WHEEL = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true"
_SYSTEM = ("/usr", "/lib", "/lib64")


def mounted() -> list[str]:
    """Return the directories of this machine that a session needs."""
    system = [path for path in _SYSTEM if Path(path).exists()]
    return [*system, *sorted({str(ROOT), sys.prefix, sys.base_prefix})]


def load(host: ClusterHost) -> None:
    """Give a host the image."""
    changes = ["USER jovyan", f"ENV HOME={HOME}", f"WORKDIR {HOME}"]
    words = [word for change in changes for word in ("--change", change)]
    host.docker("import", *words, "-", IMAGE, given=_archive())


def _archive() -> bytes:
    packed = io.BytesIO(busybox_image({"etc/passwd": _PASSWD.encode()}))
    with tarfile.open(fileobj=packed, mode="a") as archive:
        for name, mode, owner in (("tmp", 0o1777, 0), ("home", 0o755, 0), (HOME[1:], 0o700, UID)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
            archive.addfile(entry)
    return packed.getvalue()


def wheel(directory: Path) -> Path:
    """Write a package that has nothing but a name."""
    info = "tiny-1.0.dist-info"
    files = {
        "tiny.py": "NAME = 'tiny'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": f"{_WHEEL}\nTag: py3-none-any\n",
        f"{info}/RECORD": f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
    }
    path = directory / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return path
