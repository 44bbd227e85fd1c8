"""Ends everything of a state directory: sessions, jobs, service, proxy and hub.

While the hub runs, the service is asked to release every lease, so that each ends the usual
way. What is left, or everything when the hub does not run, is ended by the records on disk.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any, cast

import httpx

from nimbus_hub.errors import Unavailable
from nimbus_hub.up.hub import running_hub
from nimbus_hub.up.orphans import end_orphans
from nimbus_hub.up.processes import ProcessRecord
from nimbus_hub.up.secrets import kept_token
from nimbus_hub.up.state import State

__all__ = ["stop_all"]

_REASON = "everything was ended with nimbus-hub stop-all"
_RELEASE_SECONDS = 60.0


def stop_all(state: State, say: Callable[[str], None]) -> None:
    """End everything; what is gone already is no error."""
    asyncio.run(_stop_all(state, say))


async def _stop_all(state: State, say: Callable[[str], None]) -> None:
    hub = running_hub(state)
    if hub is not None:
        await _release_leases(state, say)
        say("Ending the hub ...")
        await hub.end(grace_seconds=60)
    sessions = _sessions(state)
    if sessions:
        say(f"Ending {len(sessions)} sessions that the hub does not know ...")
    await asyncio.gather(*(record.end() for record in sessions))
    await end_orphans(state)
    if state.addresses() is not None:
        await asyncio.to_thread(_end_jobs, state)
    state.hub_record.unlink(missing_ok=True)
    say("Nothing runs any more.")


async def _release_leases(state: State, say: Callable[[str], None]) -> None:
    """Ask the service to end every lease and wait until they have."""
    addresses = state.addresses()
    if addresses is None:
        return
    token = kept_token(state.secrets, "spawner_token")
    base = f"{addresses.service_url}/services/nimbus/api/v1"
    deadline = asyncio.get_running_loop().time() + _RELEASE_SECONDS
    asked: set[str] = set()
    headers = {"Authorization": f"token {token}"}
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=30) as client:
        try:
            while leases := await _live(client, base):
                for lease in (one for one in leases if one["id"] not in asked):
                    say(f"Ending {lease['kind']} {lease['id']} of {lease['owner']} ...")
                    await client.post(
                        f"{base}/leases/{lease['id']}/release", json={"reason": _REASON}
                    )
                    asked.add(lease["id"])
                if asyncio.get_running_loop().time() > deadline:
                    say(f"{len(leases)} leases did not end in {_RELEASE_SECONDS:.0f} s.")
                    return
                await asyncio.sleep(0.2)
        except httpx.HTTPError as error:
            say(f"The service does not answer ({error}); going on without it.")


async def _live(client: httpx.AsyncClient, base: str) -> list[dict[str, Any]]:
    answer = await client.get(f"{base}/leases", params={"state": "live", "limit": 1000})
    answer.raise_for_status()
    return cast("list[dict[str, Any]]", answer.json()["items"])


def _sessions(state: State) -> list[ProcessRecord]:
    """Return the sessions' servers that run, by what the spawner recorded."""
    found = (ProcessRecord.read(path) for path in sorted(state.sessions.glob("*.json")))
    return [record for record in found if record is not None and record.is_alive]


def _end_jobs(state: State) -> None:
    # Loaded late: the whole service is behind it, and a hub that never ran needs none of it.
    app = importlib.import_module("nimbus_hub.app")
    try:
        app.end_everything(state.directory, state.config(), _REASON)
    except TimeoutError:
        raise Unavailable("not all jobs have ended yet; run nimbus-hub stop-all again") from None
