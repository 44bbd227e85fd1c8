"""NimbusLocalSpawner: sessions as processes on the hub's own machine.

Who shares an account shares everything. A hub run by root starts each session under its
owner's system account; any other hub serves the one user who runs it, and refuses others.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, STDOUT
from typing import IO, Any

import psutil
from traitlets import Dict, Float, Unicode, default

from nimbus_hub.up.account import own_home, own_name
from nimbus_hub.up.processes import ProcessRecord
from nimbus_spawner.forking import ForkingSpawner
from nimbus_spawner.refused import refused
from nimbus_spawner.spawner import NimbusSpawner

__all__ = ["NimbusLocalSpawner", "end_processes", "marked", "refusal"]

_LAST_LINES = 15
_LAST_BYTES = 20_000
_GRACE_SECONDS = 5.0
_SERVER_GRACE_SECONDS = 15
"""Kernels that are busy take a server five seconds to shut down."""
_AGAIN_SECONDS = 0.5


class NimbusLocalSpawner(NimbusSpawner, ForkingSpawner):
    """Start sessions' servers as local processes that hold a lease."""

    record_dir = Unicode(
        "", help="Directory for the sessions' logs and process records. Default: none are kept."
    ).tag(config=True)
    environment_bins = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="Directory of the programs of an environment. Default: that of the hub's Python.",
    ).tag(config=True)

    started = Float(0.0, help="Start time of the server's process; with the pid it names it.")

    @default("cmd")
    def _default_cmd(self) -> list[str]:
        return [str(self._bin / "python"), "-m", "nimbus_spawner.singleuser"]

    @default("term_timeout")
    def _default_term_timeout(self) -> int:
        return _SERVER_GRACE_SECONDS

    @default("default_url")
    def _default_default_url(self) -> str:
        return "/lab"

    async def render_options(self) -> str:
        """Return the spawn form; whoever is shown it is about to start a session."""
        self.warm_up()
        return await super().render_options()

    # life

    async def start(self) -> Any:
        """Start the session unless its user cannot be served on this machine."""
        reason = refusal(self.user.name, own_name(), is_root=os.geteuid() == 0)
        if reason:
            raise refused(reason, "account", 403)
        address = await super().start()
        # Not before, or the two would be in each other's way.
        self.warm_up()
        return address

    async def launch(self) -> Any:
        """Start the process, its output in a log, its identity on disk."""
        await self._end_leftover()
        with self._open_log() as log:
            self.popen_kwargs = {"stdin": DEVNULL, "stdout": log, "stderr": STDOUT}
            if self._is_own:
                self.popen_kwargs["cwd"] = own_home()
            address = await super().launch()
        record = ProcessRecord.of(self.pid)
        self.started = record.started
        if self.record_dir:
            record.write(self._file("json"))
        return address

    async def stop(self, now: bool = False) -> None:
        """End the server, and then whatever it started: nothing may go on without a lease.

        Each gets SIGTERM, a grace, and SIGKILL. The server is first, since it shuts its kernels
        down in order: it asks them, then does the same to them.
        """
        lease_id, below = self.lease_id, _descendants(self.pid)
        # JupyterHub's milder way begins with SIGINT, at which a server asks its terminal.
        await super().stop(now=True)
        if not await end_processes(lease_id, below, _GRACE_SECONDS):
            self.log.warning("Processes of lease %s could not be ended", lease_id)

    async def poll(self) -> int | None:
        """Return None while the server runs; a pid given to another process is no server."""
        if self.proc is None and self.pid and not self._record.is_alive:
            self.pid = 0
        return await super().poll()

    async def wait_until_gone(self) -> None:
        """Return the moment the kernel says that the process ended."""
        try:
            handle = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            await super().wait_until_gone()  # not Linux, or gone already
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(handle, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)

    async def run_post_stop_hook(self) -> None:
        """Release the lease and forget the process."""
        if self.record_dir:
            self._file("json").unlink(missing_ok=True)
        await super().run_post_stop_hook()

    # state

    def get_state(self) -> dict[str, Any]:
        """Return what a restarted hub needs, the start time with the pid."""
        state = super().get_state()
        if self.pid:
            state["started"] = self.started
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over a process of the hub's last run."""
        super().load_state(state)
        self.started = state.get("started", 0.0)

    # the process

    def get_args(self) -> list[str]:
        """Return the arguments of the server; it refuses root unless told."""
        args: list[str] = list(super().get_args())
        if os.geteuid() == 0 and self.user.name == "root":
            args.append("--allow-root")
        return args

    def get_env(self) -> dict[str, str]:
        """Return the environment; the environment's programs come first on PATH."""
        env = super().get_env()
        env["PATH"] = f"{self._bin}{os.pathsep}{env.get('PATH', os.defpath)}"
        return env

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Add the user's own variables; who runs the hub keeps the home they run it with."""
        if not self._is_own:
            found: dict[str, str] = super().user_env(env)
            return found | {"LOGNAME": self.user.name}
        shell = os.environ.get("SHELL") or "/bin/sh"
        return env | {
            "USER": own_name(),
            "LOGNAME": own_name(),
            "HOME": own_home(),
            "SHELL": shell,
        }

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Give users their certificates for internal SSL; the hub's own account can read them."""
        if self._is_own:
            return paths
        moved: dict[str, str] = await super().move_certs(paths)
        return moved

    def make_preexec_fn(self, name: str) -> Any:
        """Return what becomes the user after the fork; nothing for the hub's own."""
        return None if self._is_own else super().make_preexec_fn(name)

    def last_lines(self) -> str:
        """Return the end of the session's log."""
        if not self.record_dir:
            return ""
        try:
            with self._file("log").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.strip().splitlines()[-_LAST_LINES:])

    @property
    def _is_own(self) -> bool:
        return bool(self.user.name == own_name().lower())

    @property
    def _bin(self) -> Path:
        name = self.lease_environment
        return Path(self.environment_bins.get(name) or Path(sys.executable).parent)

    @property
    def _record(self) -> ProcessRecord:
        return ProcessRecord(self.pid, self.started)

    def _file(self, suffix: str) -> Path:
        # User names are quoted, and "+" is never in a server's name: no two names meet.
        name = f"{self.user.escaped_name}+{self.name}" if self.name else self.user.escaped_name
        return Path(self.record_dir) / f"{name}.{suffix}"

    def _open_log(self) -> IO[bytes]:
        return self._file("log").open("wb") if self.record_dir else open(os.devnull, "wb")  # noqa: PTH123

    async def _end_leftover(self) -> None:
        """End a server of this name that a hub started and died before it could note it."""
        record = ProcessRecord.read(self._file("json")) if self.record_dir else None
        if record is not None and record.is_alive:
            self.log.warning("Ending process %s, left over from a hub that died", record.pid)
            await record.end(_GRACE_SECONDS)


def refusal(user: str, own: str, *, is_root: bool) -> str:
    """Return why this hub cannot start sessions of a user, or nothing."""
    if user == own.lower():
        return ""
    if not is_root:
        return (
            f"this hub runs as {own!r} and can start sessions of that account only, not of "
            f"{user!r}; a hub for several system users must be run by root"
        )
    try:
        pwd.getpwnam(user)
    except KeyError:
        return f"there is no system account {user!r} on this machine; ask for one to be made"
    return ""


def marked(lease_id: str) -> list[ProcessRecord]:
    """Return the processes with a lease in their environment: nohup and tmux leave the tree."""
    found = psutil.process_iter(["pid", "create_time", "environ"]) if lease_id else ()
    return [
        ProcessRecord(process.info["pid"], process.info["create_time"])
        for process in found
        if (process.info["environ"] or {}).get("NIMBUS_LEASE_ID") == lease_id
    ]


async def end_processes(
    lease_id: str, known: Iterable[ProcessRecord], grace_seconds: float
) -> bool:
    """End these processes, those with a lease in their environment, and their descendants.

    What appears meanwhile has its turn, with less grace. Tell whether all are gone.
    """
    left = set(known)
    for grace in (grace_seconds, _AGAIN_SECONDS, _AGAIN_SECONDS):
        found = {*left, *await asyncio.to_thread(marked, lease_id)}
        alive = {record for record in found if record.is_alive}
        if not alive:
            return True
        left = alive.union(*(_descendants(record.pid) for record in alive))
        await asyncio.gather(*(_end(record, grace) for record in left))
    return not any(record.is_alive for record in left)


async def _end(record: ProcessRecord, grace_seconds: float) -> None:
    with suppress(PermissionError):  # It became somebody else, as sudo does.
        await record.end(grace_seconds)


def _descendants(pid: int) -> list[ProcessRecord]:
    """Return what a process has started, and that has started in turn."""
    try:
        children = psutil.Process(pid).children(recursive=True) if pid else []
    except psutil.NoSuchProcess:
        children = []
    return [ProcessRecord(child.pid, child.create_time()) for child in children]
