"""Session ready: from the request to the hub's word that the server is ready."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from time import perf_counter

import httpx

from nimbus_hub.client import Client
from tests.benchmarks.figures import Comparison, Series
from tests.benchmarks.hubs import Hub, own_name, user_token

__all__ = ["compare_sessions", "start", "stop"]

_WARM_GOAL = 0.125
_COLD_GOAL = 0.5
_GONE_SECONDS = 30.0


async def compare_sessions(
    nimbus: Hub, cold: Hub, stock: Hub, rounds: int, say: Callable[[str], None]
) -> tuple[list[Comparison], list[Series]]:
    """Start sessions on the hubs in turn; return the figures and where Nimbus' time goes."""
    hubs = (nimbus, cold, stock)
    seconds: dict[str, list[float]] = {hub.name: [] for hub in hubs}
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(hub.client()) for hub in hubs]
        for number in range(rounds + 1):
            for hub, client in zip(hubs, clients, strict=True):
                ready = await start(client)
                await stop(client)
                kind = f"{number} of {rounds}" if number else "warm-up"
                say(f"session, {kind}, {hub.name}: ready after {ready:.2f} s")
                if number:
                    seconds[hub.name].append(ready)
    warm, started, other = (Series(hub.name, tuple(seconds[hub.name])) for hub in hubs)
    comparisons = [
        Comparison("Session ready, from POST to ready", warm, other, _WARM_GOAL),
        Comparison("Session ready, started cold", started, other, _COLD_GOAL),
    ]
    token = await user_token(nimbus)
    return comparisons, await asyncio.to_thread(_phases, nimbus, token, rounds)


async def start(client: httpx.AsyncClient) -> float:
    """Ask for a session; return the seconds until the hub says that it is ready."""
    began = perf_counter()
    answer = await client.post(f"/users/{own_name()}/server", json={})
    if answer.status_code == httpx.codes.ACCEPTED:
        await _until_ready(client)
    elif answer.status_code != httpx.codes.CREATED:
        raise RuntimeError(f"no session was started: {answer.text}")
    return perf_counter() - began


async def _until_ready(client: httpx.AsyncClient) -> None:
    """Follow the stream that the progress page follows, to its ready event."""
    async with client.stream("GET", f"/users/{own_name()}/server/progress") as stream:
        async for line in stream.aiter_lines():
            event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if event.get("failed"):
                raise RuntimeError(f"the session did not start: {event['message']}")
            if event.get("ready"):
                return
    raise RuntimeError("the progress stream ended before the session was ready")


async def stop(client: httpx.AsyncClient) -> None:
    answer = await client.delete(f"/users/{own_name()}/server")
    answer.raise_for_status()
    async with asyncio.timeout(_GONE_SECONDS):
        while (await client.get(f"/users/{own_name()}")).json()["servers"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _phases(nimbus: Hub, token: str, rounds: int) -> list[Series]:
    """Return how long the last leases waited, and how long their servers took to answer."""
    with Client(nimbus.service_url, token) as client:
        leases = client.leases(state="ended", kind="session", limit=rounds)
    waits = [lease.granted_at - lease.created_at for lease in leases if lease.granted_at]
    starts = [
        lease.active_at - lease.granted_at
        for lease in leases
        if lease.granted_at and lease.active_at
    ]
    return [
        Series("lease asked for to granted", tuple(wait.total_seconds() for wait in waits)),
        Series("granted to JupyterLab answers", tuple(start.total_seconds() for start in starts)),
    ]
