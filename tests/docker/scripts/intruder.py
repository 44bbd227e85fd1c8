"""Tries from inside a container what is nobody's right; prints what came of each as JSON."""

import ctypes
import json
import os
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MS_BIND = 4096


def reached(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 3).close()
    except OSError:
        return False
    return True


def answer(path: str, token: str) -> int:
    request = urllib.request.Request(f"{os.environ['NIMBUS_API_URL']}/api/v1{path}")
    request.add_header("Authorization", f"token {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        return error.code


def refused(work: Any, *arguments: Any) -> bool:
    try:
        return bool(work(*arguments) not in (None, 0))
    except OSError:
        return True


def gateway() -> str:
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, target, through, *_ = line.split()
        if target == "00000000":
            return socket.inet_ntoa(bytes.fromhex(through)[::-1])
    return ""


def main() -> None:
    told = json.loads(sys.argv[1])
    own, libc = os.environ["NIMBUS_TOKEN"], ctypes.CDLL(None, use_errno=True)
    status = Path("/proc/self/status").read_text()
    found = {
        "other": reached(told["address"], told["port"]),
        "engine's sockets": [
            path for path in ("/var/run/docker.sock", "/run/docker.sock") if Path(path).exists()
        ],
        "engine over TCP": [port for port in (2375, 2376, 2377) if reached(gateway(), port)],
        "devices": sorted(each.name for each in Path("/dev").iterdir()),
        "own job": answer(f"/jobs/{os.environ['NIMBUS_JOB_ID']}", own),
        "other's job": answer(f"/jobs/{told['job']}", own),
        "other's logs": answer(f"/jobs/{told['job']}/logs", own),
        "guessed token": answer(f"/jobs/{told['job']}", "x" * len(own)),
        "operator's": answer("/usage?by=user", own),
        "mounting": refused(libc.mount, b"/", b"/tmp", None, MS_BIND, None),
        "a device of one's own": refused(os.mknod, "/tmp/disk", 0o60666, os.makedev(254, 0)),
        "the kernel's settings": refused(Path("/proc/sys/kernel/hostname").write_text, "mine"),
        "becoming root": refused(os.setuid, 0),
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "processes": sorted(each.read_text().strip() for each in Path("/proc").glob("[0-9]*/comm")),
        "rights": [line.split()[1] for line in status.splitlines() if line.startswith("Cap")],
        "root": os.access("/", os.W_OK),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
