"""ForkingSpawner: a LocalProcessSpawner whose servers are forked warm where that can be."""

# ruff: noqa: PTH109

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from jupyterhub.spawner import LocalProcessSpawner
from jupyterhub.utils import random_port
from traitlets import Bool, Unicode, validate

from nimbus_hub.model.quantities import parse_duration, parse_memory
from nimbus_spawner.ahead import READ_AT_START
from nimbus_spawner.forked import Forked, NotForked
from nimbus_spawner.forkservers import ForkServers

__all__ = ["ForkingSpawner"]

_OURS = ["-m", "nimbus_spawner.singleuser"]


class ForkingSpawner(LocalProcessSpawner):  # type: ignore[misc]
    """Start servers by forking a process that has imported what they need.

    One that cannot be started so is started as LocalProcessSpawner does, and so is the first.
    """

    warm = Bool(
        True,
        help="Keep a process that has imported what sessions need, and fork them from it: they are "
        "ready in a third of the time. Each environment has one. Sessions with a cmd of their own "
        "are started",
    ).tag(config=True)
    warm_time = Unicode(
        "1h", help="How long such a process is kept after the last start, like 30m or 8h"
    ).tag(config=True)
    warm_memory = Unicode(
        "1G",
        help="How much memory those of all environments may take, like 500M; one takes about 120M. "
        "Those that were not used for the longest time go first",
    ).tag(config=True)

    port: int
    pid: int
    _forked: Forked | None = None
    _fork_servers: ClassVar = ForkServers(lambda: asyncio.get_running_loop().time())

    @validate("warm_time")
    def _validate_warm_time(self, proposal: Mapping[str, Any]) -> str:
        parse_duration(proposal["value"])
        return str(proposal["value"])

    @validate("warm_memory")
    def _validate_warm_memory(self, proposal: Mapping[str, Any]) -> str:
        parse_memory(proposal["value"])
        return str(proposal["value"])

    # life

    async def start(self) -> Any:
        """Start the server, warm if that can be now."""
        if self.port == 0:
            self.port = random_port()
        self._forked = await self._fork()
        if self._forked is None:
            return await super().start()
        self.proc = None
        self.pid = self._forked.pid
        return self.ip or "127.0.0.1", self.port

    async def poll(self) -> int | None:
        """Return None while the server runs, else its exit code."""
        if self._forked is None:
            found: int | None = await super().poll()
            return found
        status = self._forked.poll()
        if status is not None:
            self.clear_state()
        return status

    def clear_state(self) -> None:
        """Forget the process."""
        super().clear_state()
        if self._forked is not None:
            self._forked.close()
            self._forked = None

    # warm

    def warm_up(self) -> None:
        """See to it that the next session like this one can be forked."""
        python = self._warm_python()
        if python:
            seconds = parse_duration(self.warm_time).total_seconds()
            spare = partial(self._fork_servers.spare, seconds, parse_memory(self.warm_memory))
            self._fork_servers.prepare(python, self._warm_env(python))
            spare()
            asyncio.get_running_loop().call_later(seconds + 1, spare)

    async def _fork(self) -> Forked | None:
        """Return a server that was forked, or None if it is to be started."""
        python, become = self._warm_python(), self.make_preexec_fn(self.user.name)
        # What somebody else does before the start cannot be done in a fork.
        if not python or (become and become.__module__ != LocalProcessSpawner.__module__):
            return None
        claim = self._claim(pwd.getpwnam(self.user.name) if become else None)
        output = self.popen_kwargs["stdout"].fileno()
        try:
            forked = await self._fork_servers.fork(python, claim, output)
        except NotForked as error:
            self.log.warning("%s is not started warm: %s", self._log_name, error)
            return None
        if forked is not None:
            self.log.info("Forked %s from %s", self._log_name, python)
        return forked

    def _claim(self, account: pwd.struct_passwd | None) -> dict[str, Any]:
        """Return what makes a process this session's server: what LocalProcessSpawner gives it."""
        home = account.pw_dir if account else os.getcwd()
        claim: dict[str, Any] = {
            "args": self.get_args(),
            "env": self.get_env(),
            "cwd": self.popen_kwargs.get("cwd", home),
            "account": None,
        }
        if account:
            groups = os.getgrouplist(account.pw_name, account.pw_gid)
            claim["account"] = {"uid": account.pw_uid, "gid": account.pw_gid, "groups": groups}
        return claim

    def _warm_python(self) -> str:
        """Return the python whose fork could be this session's server, or nothing."""
        # Not simply self.cmd, for a default that is read is kept, and would be too early.
        has_cmd = self.trait_has_value("cmd")
        program, *rest = self.cmd if has_cmd else self.trait_defaults("cmd")
        is_ours = rest == _OURS and not self.shell_cmd
        return str(program) if self.warm and is_ours else ""

    def _warm_env(self, python: str) -> dict[str, str]:
        """Return what is in every session's environment, and may decide what is imported."""
        kept = {name: os.environ[name] for name in self.env_keep if name in os.environ}
        # The others may be of one user's alone, and secret.
        early = {
            name: text
            for name, text in self.environment.items()
            if isinstance(text, str) and name.startswith(READ_AT_START)
        }
        path = f"{Path(python).parent}{os.pathsep}{os.defpath}"
        return {**kept, **early, "PATH": path, "HOME": "/nonexistent"}
