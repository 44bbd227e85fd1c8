"""TensorBoard beside the session: started here, seen through the user's own proxy."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from nimbus_hub.client.client import Client
from nimbus_hub.client.environment import browser_url
from nimbus_hub.client.resources import Job
from nimbus_hub.errors import InvalidRequest, NotFound, Unavailable

__all__ = ["TensorBoard", "log_directory"]

_START_STEPS = 300
_STEP_SECONDS = 0.1
_ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class TensorBoard:
    """A running TensorBoard; ``url`` is where a browser finds it."""

    port: int
    url: str
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, directory: Path, port: int | None = None) -> TensorBoard:
        """Start TensorBoard for a directory and return when it answers.

        Raises InvalidRequest without TensorBoard, Unavailable if it does not come up.
        """
        if find_spec("tensorboard") is None:
            raise InvalidRequest("TensorBoard is not installed here: pip install tensorboard")
        chosen = free_port() if port is None else port
        # A file, for nobody reads a pipe later on and a full one would stop TensorBoard.
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command(directory, chosen),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            _wait_for(process, chosen, errors)
        return cls(chosen, browser_url(chosen), process)

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        self.process.terminate()
        self.process.wait()


def command(directory: Path, port: int) -> list[str]:
    """Return what starts TensorBoard, reachable from this machine only."""
    return [
        sys.executable,
        "-m",
        "tensorboard.main",
        f"--logdir={directory}",
        f"--port={port}",
        f"--host={_ADDRESS}",
        "--reload_interval=5",
    ]


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind((_ADDRESS, 0))
        return int(probe.getsockname()[1])


def log_directory(client: Client, name: str, on_wait: Callable[[Job], None] | None = None) -> Path:
    """Return an existing directory by that name, or the log directory of the job of that id.

    Waits until the job has one; ``on_wait`` is called with each state of the job meanwhile.
    """
    if Path(name).is_dir():
        return Path(name).resolve()
    if "/" in name:
        raise NotFound(f"the directory {name!r} does not exist")
    job = client.job(name)
    while True:
        if job.log_dir is not None and Path(job.log_dir).is_dir():
            return Path(job.log_dir)
        if job.is_ended:
            raise NotFound(f"job {job.id} ended without a log directory: {job.reason or job.state}")
        if on_wait is not None:
            on_wait(job)
        # The directory may come a moment after the version that names it.
        job = client.job(name, after=job.version, timeout=1 if job.log_dir else 30)


def _wait_for(process: subprocess.Popen[bytes], port: int, errors: IO[bytes]) -> None:
    """Return when something accepts connections on the port."""
    pause = threading.Event()
    for _ in range(_START_STEPS):
        if process.poll() is not None:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines() or [
                "it said nothing"
            ]
            raise Unavailable(f"TensorBoard ended at once: {lines[-1]}")
        try:
            socket.create_connection((_ADDRESS, port), timeout=1).close()
        except OSError:
            pause.wait(_STEP_SECONDS)
        else:
            return
    process.terminate()
    process.wait()
    raise Unavailable(f"TensorBoard did not answer on port {port} within 30 s")
