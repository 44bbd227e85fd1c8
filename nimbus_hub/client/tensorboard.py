"""TensorBoard beside the session: which directory it reads, and the process that serves it.

TensorBoard asks nobody for a password. It listens on the loopback interface only, below a
random path that only its starter and the browser are told, and is reached through
jupyter-server-proxy, that is with JupyterHub's authentication. The data server of its
"fast loading" would listen without any of this and is switched off.
"""

from __future__ import annotations

import json
import secrets
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

from nimbus_hub.client.client import Client
from nimbus_hub.client.environment import browser_url
from nimbus_hub.client.resources import Job
from nimbus_hub.clock import SystemClock
from nimbus_hub.errors import Conflict, InvalidRequest, NotFound, Unavailable

__all__ = ["TensorBoard", "log_directory"]

_SERVER = "nimbus_hub.client.tensorboard_server"
_START_SECONDS = 60.0
_RELOAD_SECONDS = 2
_POLL_SECONDS = 20.0
_LOOKS = 30
_LOOK_SECONDS = 0.5
_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class TensorBoard:
    """A running TensorBoard: it answers below ``/secret/`` of the port, and nowhere else."""

    process: subprocess.Popen[bytes]
    port: int
    secret: str = field(repr=False)

    @classmethod
    def start(cls, directory: Path, port: int = 0) -> TensorBoard:
        """Start TensorBoard for a directory, at a free port by default, and wait for it.

        It ends with the process that started it, however that ends.
        Raises InvalidRequest without TensorBoard, Unavailable if it does not come up.
        """
        _require_tensorboard()
        secret = secrets.token_urlsafe(24)
        # A file, for nobody reads a pipe later on and a full one would stop TensorBoard.
        with tempfile.TemporaryFile() as errors:
            # -P: a directory of the user's that is called tensorboard/ must not be imported.
            # A session of its own: Ctrl-C in a cell is not meant for it.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
            address = _tell_and_listen(process, _options(directory, port, secret))
            if not address:
                errors.seek(0)
                lines = errors.read().decode(errors="replace").strip().splitlines()
                raise Unavailable(
                    f"TensorBoard did not start: {lines[-1] if lines else 'no answer'}"
                )
        return cls(process, urlsplit(address).port or 0, secret)

    @property
    def url(self) -> str:
        """Return where a browser finds it."""
        return f"{browser_url(self.port)}{self.secret}/"

    @property
    def is_alive(self) -> bool:
        """Tell whether the process is there."""
        return self.process.poll() is None

    def wait(self) -> None:
        """Wait until the process ends."""
        self.process.wait()

    def stop(self) -> None:
        """End the process, if it has not ended, and close its pipes."""
        self.process.terminate()
        self.process.communicate()


def log_directory(
    client: Client,
    job_id: str,
    timeout_seconds: float | None = None,
    on_wait: Callable[[Job], None] | None = None,
) -> Path:
    """Return a job's log directory once it has started, with data if there soon will be any.

    ``on_wait`` is called with each news of a job that has not started.
    Raises Conflict if it does not start in time, NotFound if there is no such directory.
    """
    job = _started(client, job_id, timeout_seconds, on_wait)
    if job.log_dir is None:
        raise NotFound(f"job {job.id} ended without a log directory: {job.reason or job.state}")
    directory = Path(job.log_dir)
    _wait_for_data(client, job, directory)
    if not directory.is_dir():
        raise NotFound(
            f"job {job.id} has no directory {directory} on this machine: "
            "write to NIMBUS_LOG_DIR in the job"
        )
    return directory


def _started(
    client: Client,
    job_id: str,
    timeout_seconds: float | None,
    on_wait: Callable[[Job], None] | None,
) -> Job:
    """Return a job that has a log directory or has ended."""
    end = None if timeout_seconds is None else _CLOCK.now() + timedelta(seconds=timeout_seconds)
    job, told = client.job(job_id), None
    while job.log_dir is None and not job.is_ended:
        if on_wait is not None and job.version != told:
            on_wait(job)
            told = job.version
        left = _POLL_SECONDS if end is None else (end - _CLOCK.now()).total_seconds()
        if left <= 0:
            raise Conflict(
                f"job {job.id} has not started yet, try again later: {job.reason or job.state}"
            )
        job = client.job(job_id, after=job.version, timeout=min(left, _POLL_SECONDS))
    return job


def _wait_for_data(client: Client, job: Job, directory: Path) -> None:
    """Give a running job a moment to write: TensorBoard opened on nothing stays empty."""
    never = Event()
    for _ in range(_LOOKS):
        if any(directory.rglob("*tfevents*")) or job.is_ended:
            return
        never.wait(_LOOK_SECONDS)
        job = client.job(job.id)


def _options(directory: Path, port: int, secret: str) -> list[str]:
    return [
        *("--logdir", str(directory)),
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
        *("--path_prefix", f"/{secret}"),
        *("--reload_interval", str(_RELOAD_SECONDS)),
        *("--load_fast", "false"),
    ]


def _tell_and_listen(process: subprocess.Popen[bytes], options: list[str]) -> str:
    """Give the process its options and return its address; end it if it gives none."""
    address = ""
    try:
        address = _exchange(process, json.dumps(options))
    finally:  # Ctrl-C meanwhile, too
        if not address:
            process.kill()
            process.communicate()
    return address


def _exchange(process: subprocess.Popen[bytes], line: str) -> str:
    """Return the line the process answers with, or nothing."""
    if process.stdin is None or process.stdout is None:
        return ""
    try:
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return ""
    ready, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
    return process.stdout.readline().decode().strip() if ready else ""


def _require_tensorboard() -> None:
    try:
        metadata.version("tensorboard")
    except metadata.PackageNotFoundError:
        raise InvalidRequest(
            "TensorBoard is not installed here: run `pip install tensorboard` "
            "(`%pip install tensorboard` in a cell), then this again"
        ) from None
