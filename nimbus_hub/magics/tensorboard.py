"""TensorBoard of a directory, in the notebook: one process per directory, and its frame."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from nimbus_hub.client.tensorboard import TensorBoard

__all__ = ["Frame", "TensorBoards"]

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


class TensorBoards:
    """The TensorBoards of this kernel: one per directory, gone when the kernel is."""

    def __init__(self, path_of: Callable[[int], str]) -> None:
        """Show what ``path_of`` says is the browser's path to a port of this machine."""
        self._path_of = path_of
        self._servers: dict[Path, TensorBoard] = {}

    def show(self, directory: Path, height: int) -> Frame:
        """Return the frame of a directory's TensorBoard, which is started if need be."""
        directory = directory.resolve()
        server = self._servers.get(directory)
        if server is not None and not server.is_alive:
            server.stop()
            server = None
        if server is None:
            server = self._servers[directory] = TensorBoard.start(directory)
        path = f"{self._path_of(server.port)}{server.secret}/"
        return Frame(path, directory, height)

    def close(self) -> None:
        """End them all; may be repeated."""
        for server in self._servers.values():
            server.stop()
        self._servers.clear()
