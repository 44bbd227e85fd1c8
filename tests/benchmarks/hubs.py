"""The hubs side by side: Nimbus as `nimbus-hub up` starts it, warm or cold, and a stock JupyterHub.

All have directories, homes and ports of their own and the same proxy. Whatever a hub has
started is recorded before it is told to end, so that nothing is left whatever happens.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx
import psutil

from nimbus_hub.up.processes import ProcessRecord
from nimbus_hub.up.proxy import proxy_command
from nimbus_hub.up.state import State

__all__ = ["Hub", "nimbus_hub", "own_name", "stock_hub", "user_token"]

_CONFIG = Path(__file__).parent / "config"
_READY_SECONDS = 60.0
_END_SECONDS = 60.0
_LAST_LINES = 20
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub, and a token that may start and stop its sessions."""

    name: str
    url: str
    token: str
    log: Path

    @property
    def service_url(self) -> str:
        """Return the address of the Nimbus service, if the hub has it."""
        return f"{self.url}/services/nimbus"

    def client(self) -> httpx.AsyncClient:
        """Return a client of the hub's API."""
        return httpx.AsyncClient(
            base_url=f"{self.url}/hub/api",
            headers={"Authorization": f"token {self.token}"},
            timeout=60,
            trust_env=False,
        )


def own_name() -> str:
    """Return the hub's one user: who measures."""
    return getpass.getuser().lower()


async def user_token(hub: Hub) -> str:
    """Return a token of the user, as a session or a person has one."""
    async with hub.client() as client:
        answer = await client.post(f"/users/{own_name()}/tokens", json={"expires_in": 3600})
        answer.raise_for_status()
        return str(answer.json()["token"])


@asynccontextmanager
async def nimbus_hub(
    directory: Path,
    token: str,
    config: str = "nimbus.py",
    env: Mapping[str, str] = _NOTHING,
    *,
    is_warm: bool = True,
) -> AsyncIterator[Hub]:
    """Run `nimbus-hub up` and end it with all its sessions and jobs."""
    state = directory / "state"
    name = "Nimbus" if is_warm else "Nimbus, cold"
    hub = Hub(name, f"http://127.0.0.1:{_free_ports(1)[0]}", token, directory / "hub.log")
    command = [sys.executable, "-m", "nimbus_hub.cli.hub"]
    options = ["--port", hub.url.rpartition(":")[2], "--config", str(_CONFIG / config)]
    told = {"BENCH_TOKEN": token, "BENCH_URL": hub.url, "BENCH_WARM": str(int(is_warm)), **env}
    process = await _start([*command, "up", "--state", str(state), *options], directory, told, hub)
    try:
        await _until_ready(hub, process, "/services/nimbus/health")
        yield hub
    finally:
        records = _family(process.pid)
        ended = await _start([*command, "stop-all", "--state", str(state)], directory, told, hub)
        await _end(ended, [], _END_SECONDS)
        await _end(process, records, _END_SECONDS)


@asynccontextmanager
async def stock_hub(
    directory: Path,
    token: str,
    proxy: State,
    config: str = "stock.py",
    env: Mapping[str, str] = _NOTHING,
) -> AsyncIterator[Hub]:
    """Run JupyterHub with a spawner of its own, with the proxy of another hub's state."""
    port, *inner = _free_ports(3)
    hub = Hub("stock JupyterHub", f"http://127.0.0.1:{port}", token, directory / "hub.log")
    told = {
        "BENCH_TOKEN": token,
        "BENCH_USER": own_name(),
        "BENCH_URL": hub.url,
        "BENCH_INNER_PORTS": " ".join(map(str, inner)),
        "BENCH_PROXY": json.dumps(proxy_command(proxy)),
        **env,
    }
    command = [sys.executable, "-m", "jupyterhub", "--config", str(_CONFIG / config)]
    process = await _start(command, directory, told, hub)
    try:
        await _until_ready(hub, process, "/hub/api/")
        yield hub
    finally:
        records = _family(process.pid)
        if process.returncode is None:
            process.terminate()
        await _end(process, records, _END_SECONDS)


async def _start(
    command: Sequence[str], directory: Path, env: Mapping[str, str], hub: Hub
) -> Process:
    home = directory / "home"
    home.mkdir(parents=True, exist_ok=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with hub.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, "HOME": str(home), "PATH": path, **env},
            cwd=directory,
            stdin=DEVNULL,
            stdout=log,
            stderr=STDOUT,
            start_new_session=True,
        )


async def _until_ready(hub: Hub, process: Process, path: str) -> None:
    deadline = asyncio.get_running_loop().time() + _READY_SECONDS
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        while not await _answers(client, hub.url + path):
            is_late = asyncio.get_running_loop().time() > deadline
            if process.returncode is not None or is_late:
                last = hub.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
                raise RuntimeError("\n".join((f"{hub.name} did not start:", *last)))
            await asyncio.sleep(0.1)


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _family(pid: int) -> list[ProcessRecord]:
    """Return a process's record and those of all it has started."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [ProcessRecord.of(pid), *(ProcessRecord.of(child.pid) for child in children)]


async def _end(process: Process, records: Sequence[ProcessRecord], seconds: float) -> None:
    """Wait for the end of a process, then end what it left behind."""
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()
    await asyncio.gather(*(record.end() for record in records))


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
