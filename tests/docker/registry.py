"""A private registry on this machine, Debian's docker-registry, which asks for a password."""

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
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: nimbus, path: {directory}/htpasswd}}}}
"""


@dataclass(frozen=True)
class Registry:
    """One that runs, at a port."""

    port: int


@contextmanager
def registry(directory: Path) -> Iterator[Registry]:
    """Give a registry that answers; say what is missing without its programs."""
    tools = {"docker-registry": "docker-registry", "htpasswd": "apache2-utils"}
    missing = [package for tool, package in tools.items() if not shutil.which(tool)]
    if missing:
        said = f"a private registry needs Debian's {', '.join(missing)}"
        pytest.fail(said) if os.environ.get("CI") == "true" else pytest.skip(said)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    made = subprocess.run(
        ["htpasswd", "-nbB", USER, PASSWORD], capture_output=True, check=True, timeout=30
    )
    (directory / "htpasswd").write_bytes(made.stdout)
    (directory / "config.yml").write_text(_CONFIG.format(directory=directory, port=port))
    command = ["docker-registry", "serve", str(directory / "config.yml")]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(port, process, directory / "log")
        yield Registry(port)
    finally:
        process.terminate()
        process.wait(30)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        else:
            return
