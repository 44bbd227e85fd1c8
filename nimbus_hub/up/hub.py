"""Starts the hub, says when it is ready and ends it when told to.

The hub runs in a session of its own: Ctrl-C in the terminal reaches only us, and we end the
hub, its proxy and its service in order. Sessions and jobs are in sessions of their own too
and go on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from nimbus_hub.errors import Conflict, NimbusError, Unavailable
from nimbus_hub.up.account import own_name
from nimbus_hub.up.addresses import choose_addresses
from nimbus_hub.up.orphans import end_orphans
from nimbus_hub.up.processes import ProcessRecord
from nimbus_hub.up.proxy import install_proxy
from nimbus_hub.up.secrets import hash_password, new_password
from nimbus_hub.up.state import Addresses, State, checkout, write_private

__all__ = ["Wish", "hub_config", "renew_password", "run_hub", "running_hub"]

_READY_SECONDS = 60.0
_END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What `nimbus-hub up` was asked for."""

    state: State
    ip: str
    port: int
    config: Path | None = None


def run_hub(wish: Wish, say: Callable[[str], None]) -> int:
    """Prepare, start and watch the hub until it ends; return an exit code.

    Raises NimbusError with the reason if it cannot be started.
    """
    wish.state.create()
    running = running_hub(wish.state)
    if running is not None:
        addresses = wish.state.addresses()
        where = addresses.url if addresses else "an unknown address"
        raise Conflict(
            f"the hub of {wish.state.directory} is already running at {where} (pid {running.pid}); "
            "end it with Ctrl-C where it runs, or choose another directory with --state"
        )
    if wish.config is not None and not wish.config.is_file():
        raise NimbusError(f"the configuration {wish.config} does not exist")
    wish.state.keep_config(wish.config)
    return asyncio.run(_run(wish, say))


def running_hub(state: State) -> ProcessRecord | None:
    """Return the hub of this state directory if it runs."""
    record = ProcessRecord.read(state.hub_record)
    return record if record is not None and record.is_alive else None


def renew_password(state: State) -> str:
    """Make a new password for the one user of the embedded hub and keep its hash."""
    password = new_password()
    write_private(state.secrets / "password", hash_password(password) + "\n")
    return password


def hub_config() -> Path:
    """Return the configuration of the embedded hub: of the source tree, or as installed."""
    root = checkout()
    if root is not None:
        return root / "jupyterhub_config.py"
    return Path(sys.prefix) / "share" / "nimbus-hub" / "jupyterhub_config.py"


async def _run(wish: Wish, say: Callable[[str], None]) -> int:
    state = wish.state
    await end_orphans(state)
    addresses = choose_addresses(state, wish.ip, wish.port)
    install_proxy(state, say)
    say(f"Starting the hub; its log is {state.hub_log}")
    told = _signals()
    # Appended to by the hub and its children, so it stays open only in them.
    with state.hub_log.open("ab") as log:
        start = log.tell()
        hub = await asyncio.create_subprocess_exec(
            *_hub_argv(),
            env=_hub_env(wish),
            cwd=state.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    ProcessRecord.of(hub.pid).write(state.hub_record)
    over = asyncio.create_task(hub.wait())
    try:
        if await _until_ready(addresses, over, told):
            _greet(wish, state, addresses, say)
            await _first(over, told)
    finally:
        if not over.done():
            say("Ending the hub ...")
            hub.terminate()
        code = await _ended(hub, over)
        state.hub_record.unlink(missing_ok=True)
    if code == 0:
        say("The hub has ended. Sessions and jobs go on; `nimbus-hub stop-all` ends them.")
        return 0
    raise Unavailable(_why_it_ended(state, start, code))


def _signals() -> asyncio.Future[int]:
    """Return a future of the first SIGINT, SIGTERM or SIGHUP."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[int] = loop.create_future()

    def tell(number: int) -> None:
        if not told.done():
            told.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, tell, number)
    return told


def _hub_argv() -> list[str]:
    return [sys.executable, "-m", "jupyterhub", "--config", str(hub_config())]


def _hub_env(wish: Wish) -> dict[str, str]:
    env = {**os.environ, "NIMBUS_HUB_STATE": str(wish.state.directory), "PYTHONUNBUFFERED": "1"}
    env.pop("NIMBUS_HUB_CONFIG", None)
    if wish.config is not None:
        env["NIMBUS_HUB_CONFIG"] = str(wish.config.absolute())
    return env


async def _until_ready(
    addresses: Addresses, over: asyncio.Task[int], told: asyncio.Future[int]
) -> bool:
    """Wait until hub and service answer through the proxy; False if the hub ended first."""
    deadline = asyncio.get_running_loop().time() + _READY_SECONDS
    async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
        for url in (f"{addresses.url}/hub/api/", f"{addresses.api_url}/health"):
            while not await _answers(client, url):
                if over.done() or told.done():
                    return False
                if asyncio.get_running_loop().time() > deadline:
                    raise Unavailable(f"{url} does not answer after {_READY_SECONDS:.0f} s")
                await asyncio.wait((over, told), timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
    return True


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


async def _first(over: asyncio.Task[int], told: asyncio.Future[int]) -> None:
    await asyncio.wait((over, told), return_when=asyncio.FIRST_COMPLETED)


async def _ended(hub: asyncio.subprocess.Process, over: asyncio.Task[int]) -> int:
    try:
        return await asyncio.wait_for(asyncio.shield(over), _END_SECONDS)
    except TimeoutError:
        hub.kill()
        return await over


def _greet(wish: Wish, state: State, addresses: Addresses, say: Callable[[str], None]) -> None:
    name = own_name().lower()
    say("")
    say(f"  Nimbus Hub is ready: {addresses.url}")
    if wish.config is not None:
        say(f"  If {wish.config.name} has a log-in of its own, it is that; else:")
    if (state.secrets / "password").exists():
        say(f"  Log in as {name} with your password (a new one: nimbus-hub password).")
    else:
        # Made only now: a start that failed has shown nothing.
        say(f"  Log in as {name} with the password {renew_password(state)}")
        say("  It is shown this once and kept nowhere (a new one: nimbus-hub password).")
    say("  Ctrl-C ends the hub; sessions and jobs go on.")
    say("")


def _why_it_ended(state: State, start: int, code: int) -> str:
    with state.hub_log.open("rb") as log:
        log.seek(start)
        last = log.read().decode(errors="replace").strip().splitlines()[-12:]
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return "\n".join((f"the hub ended with {how}; the last lines of {state.hub_log}:", *last))
