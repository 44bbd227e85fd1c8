"""People with sessions, on a hub that only answers, and the ways their servers are started."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import jupyterhub
from jupyterhub.spawner import set_user_setuid

PATIENCE_SECONDS = 60.0
EARLY = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
"""What is read while python starts, and so the same in every way to start."""


class Hub(BaseHTTPRequestHandler):
    """What a session's server needs of a hub to start."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", jupyterhub.__version__)
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Person:
    """Somebody with a home and an account, if there are several."""

    name: str
    home: Path
    hub_url: str
    account: pwd.struct_passwd | None
    port: int

    @property
    def token(self) -> str:
        return f"token-of-{self.name}-" + hashlib.sha256(str(self.home).encode()).hexdigest()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/user/{self.name}/"

    @property
    def env(self) -> dict[str, str]:
        return {
            **EARLY,
            "HOME": str(self.home),
            "PATH": os.defpath,
            "USER": self.name,
            "TZ": "Asia/Tokyo",
            "JUPYTERHUB_ACTIVITY_URL": f"{self.hub_url}/activity",
            "JUPYTERHUB_API_TOKEN": self.token,
            "JUPYTERHUB_API_URL": self.hub_url,
            "JUPYTERHUB_CLIENT_ID": f"client-{self.name}",
            "JUPYTERHUB_SERVICE_PREFIX": f"/user/{self.name}/",
            "JUPYTERHUB_SERVICE_URL": self.url,
            "JUPYTERHUB_SSL_KEYFILE": "",
            "JUPYTERHUB_USER": self.name,
            "NIMBUS_LEASE_ID": f"l-{self.name}",
        }

    @property
    def claim(self) -> dict[str, Any]:
        account = self.account and {
            "uid": self.account.pw_uid,
            "gid": self.account.pw_gid,
            "groups": os.getgrouplist(self.account.pw_name, self.account.pw_gid),
        }
        cwd = str(self.home)
        return {"args": ["--allow-root"], "env": self.env, "cwd": cwd, "account": account}

    def log(self) -> Any:
        return (self.home.parent / f"{self.name}.log").open("ab")

    def wait(self) -> None:
        """Wait until the server answers."""
        until = time.monotonic() + PATIENCE_SECONDS
        with httpx.Client(trust_env=False) as client:
            while True:
                try:
                    assert client.get(f"{self.url}api").status_code == 200
                    return
                except httpx.HTTPError:
                    log = (self.home.parent / f"{self.name}.log").read_text()
                    assert time.monotonic() < until, log
                    time.sleep(0.01)

    def report(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the server found of itself, and what must differ, when it answers."""
        self.wait()
        path = self.home / "report.json"
        shared, own = json.loads(path.read_text())
        path.unlink()
        return shared, own


def started(person: Person, command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a process of somebody's as LocalProcessSpawner does."""
    become = set_user_setuid(person.account.pw_name, chdir=False) if person.account else None
    with person.log() as log:
        return subprocess.Popen(
            command,
            env=env,
            cwd=person.home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=become,
            start_new_session=True,
        )


def until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)
