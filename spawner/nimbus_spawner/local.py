"""NimbusLocalSpawner: sessions as processes on the hub's own machine.

Who shares an account shares everything. A hub run by root starts each session under its
owner's system account; any other hub serves the one user who runs it, and refuses others.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import DEVNULL, STDOUT
from typing import Any

import psutil
from jupyterhub.spawner import LocalProcessSpawner, SpawnException
from nimbus_spawner.spawner import NimbusSpawner
from traitlets import Bool, Dict, Float, Unicode, default

__all__ = ["NimbusLocalSpawner"]

_SAME_START_SECONDS = 0.05
_LAST_LINES = 15


class NimbusLocalSpawner(NimbusSpawner, LocalProcessSpawner):  # type: ignore[misc]
    """Start sessions' servers as local processes that hold a lease."""

    record_dir = Unicode(
        "", help="Directory for the sessions' logs and process records. Default: none are kept."
    ).tag(config=True)
    environment_bins = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        help="Directory of the programs of each environment, if not those of the hub.",
    ).tag(config=True)
    allow_root = Bool(True, help="Start the server of the user root, if root runs the hub.").tag(
        config=True
    )
    started = Float(0.0, help="Start time of the server's process; with the pid it names it.")

    @default("cmd")
    def _default_cmd(self) -> list[str]:
        return [sys.executable, "-m", "nimbus_spawner.singleuser"]

    @default("default_url")
    def _default_default_url(self) -> str:
        return "/lab"

    async def start(self) -> Any:
        """Start the session unless its user cannot be served on this machine."""
        reason = refusal(self.user.name, _own_name(), os.geteuid())
        if reason:
            raise SpawnException(reason, reason="account", status_code=403)
        await self._end_leftover()
        return await super().start()

    async def _launch(self) -> Any:
        """Start the process, with its output in a log and its identity on disk."""
        directory = Path(self.environment_bins.get(self._environment(), Path(sys.executable).parent))
        self.cmd = [str(directory / "python"), "-m", "nimbus_spawner.singleuser"]
        with self._open_log() as log:
            self.popen_kwargs = {**self.popen_kwargs, "stdin": DEVNULL, "stdout": log, "stderr": STDOUT}
            address = await super()._launch()
        self.started = _start_time(self.pid)
        self._write_record()
        return address
