"""A private registry on this machine, Debian's docker-registry, which asks for a password.

Engines use one of 127.0.0.1 without certificates; at other addresses they must be told so.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["PASSWORD", "USER", "Registry", "registry"]

USER, PASSWORD = "hub", "correct horse"

_CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}/data}}}}
http: {{addr: "{address}:{port}"}}
auth: {{htpasswd: {{realm: nimbus, path: {directory}/htpasswd}}}}
"""


@dataclass(frozen=True)
class Registry:
    """One that runs, at a port."""

    port: int
    address: str = "127.0.0.1"

    @property
    def name(self) -> str:
        """Return how images of it begin."""
        return f"{self.address}:{self.port}"


@contextmanager
def registry(directory: Path, address: str = "127.0.0.1") -> Iterator[Registry]:
    """Give a registry that answers; say what is missing without its programs."""
    tools = {"docker-registry": "docker-registry", "htpasswd": "apache2-utils"}
    missing = [package for tool, package in tools.items() if not shutil.which(tool)]
    if missing:
        said = f"a private registry needs Debian's {', '.join(missing)}"
        pytest.fail(said) if os.environ.get("CI") == "true" else pytest.skip(said)
    with closing(socket.create_server((address, 0))) as free:
        port = free.getsockname()[1]
    hashed = subprocess.run(
        ["htpasswd", "-nbB", USER, PASSWORD], capture_output=True, check=True, timeout=30
    )
    (directory / "htpasswd").write_bytes(hashed.stdout)
    values = {"directory": directory, "address": address, "port": port}
    (directory / "config.yml").write_text(_CONFIG.format(**values))
    command = ["docker-registry", "serve", str(directory / "config.yml")]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        made = Registry(port, address)
        _wait(made, process, directory / "log")
        yield made
    finally:
        process.terminate()
        process.wait(30)


def _wait(made: Registry, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((made.address, made.port), 1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        else:
            return
