"""TensorBoard of a directory, in the notebook, behind the user's own server.

TensorBoard asks nobody for a password. It listens on the loopback interface only, below a
random path that only the user's server and browser are told, and is reached through
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
from dataclasses import dataclass
from html import escape
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from nimbus_hub.errors import InvalidRequest, Unavailable

__all__ = ["Frame", "TensorBoards"]

_START_SECONDS = 60.0
_RELOAD_SECONDS = 2
# The page shares the notebook's origin, so its settings can be given defaults: without
# them a running job's curves would stand still until somebody presses "reload".
_SETTINGS = {
    "autoReload": True,
    "autoReloadPeriodInMs": 30_000,
    "timeSeriesSettingsPaneOpened": False,
}
_SET = (
    'if(!localStorage.getItem("_tb_global_settings"))'
    f"localStorage.setItem('_tb_global_settings','{json.dumps(_SETTINGS)}')"
)


@dataclass(frozen=True, slots=True)
class Frame:
    """What the notebook shows: TensorBoard's page at ``path`` of the user's server."""

    path: str
    directory: Path
    height: int

    def bundle(self) -> dict[str, object]:
        """Return the frame as a MIME bundle; the text names the address."""
        path, name = escape(self.path, quote=True), escape(str(self.directory), quote=True)
        return {
            "text/plain": f"TensorBoard of {self.directory}: {self.path}",
            "text/html": (
                f"<script>{_SET}</script>"
                f'<a href="{path}" target="_blank" rel="noopener">TensorBoard of {name}</a>'
                f'<iframe src="{path}" title="TensorBoard of {name}" width="100%" '
                f'height="{self.height}" style="border:0"></iframe>'
            ),
        }


@dataclass(frozen=True, slots=True)
class _Server:
    process: subprocess.Popen[bytes]
    port: int
    secret: str

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        """End the process, if it has not ended, and close its pipes."""
        self.process.terminate()
        self.process.communicate()


class TensorBoards:
    """The TensorBoards of this kernel: one per directory, gone when the kernel is."""

    def __init__(self, path_of: Callable[[int], str]) -> None:
        """Show what ``path_of`` says is the browser's path to a port of this machine."""
        self._path_of = path_of
        self._servers: dict[Path, _Server] = {}

    def show(self, directory: Path, height: int) -> Frame:
        """Return the frame of a directory's TensorBoard, which is started if need be."""
        directory = directory.resolve()
        server = self._servers.get(directory)
        if server is not None and not server.is_alive:
            server.end()
            server = None
        if server is None:
            server = self._servers[directory] = _start(directory)
        path = f"{self._path_of(server.port)}{server.secret}/"
        return Frame(path, directory, height)

    def close(self) -> None:
        """End them all; may be repeated."""
        for server in self._servers.values():
            server.end()
        self._servers.clear()


def _start(directory: Path) -> _Server:
    """Start TensorBoard and wait until it listens."""
    _require_tensorboard()
    secret = secrets.token_urlsafe(24)
    # -P: a directory of the user's that is called tensorboard/ must not be imported.
    # A session of its own: Ctrl-C in a cell is not meant for it.
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nimbus_hub.magics.tensorboard_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        address = _tell_and_listen(process, _options(directory, secret))
        if not address:
            process.kill()
            process.communicate()
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            raise Unavailable(f"TensorBoard did not start: {lines[-1] if lines else 'no answer'}")
    return _Server(process, urlsplit(address).port or 0, secret)


def _options(directory: Path, secret: str) -> list[str]:
    return [
        *("--logdir", str(directory)),
        *("--host", "127.0.0.1"),
        *("--port", "0"),
        *("--path_prefix", f"/{secret}"),
        *("--reload_interval", str(_RELOAD_SECONDS)),
        *("--load_fast", "false"),
    ]


def _tell_and_listen(process: subprocess.Popen[bytes], options: list[str]) -> str:
    """Give the process its options and return the address it answers, or nothing."""
    if process.stdin is None or process.stdout is None:
        return ""
    try:
        process.stdin.write(json.dumps(options).encode() + b"\n")
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
            "TensorBoard is not installed in this session: run `%pip install tensorboard` "
            "in a cell, then this again"
        ) from None
