"""Session ready: from the request to the hub's word that the server is ready."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import httpx

from tests.benchmarks.figures import Comparison, Series
from tests.benchmarks.hubs import Hub, own_name

__all__ = ["compare_sessions"]

_GOAL = 0.5
_GONE_SECONDS = 30.0


@dataclass
class Start:
    """One start: seconds until each message of the progress stream, and until ready."""

    messages: dict[str, float] = field(default_factory=dict)
    ready: float = 0.0


async def compare_sessions(
    nimbus: Hub, stock: Hub, rounds: int, say: Callable[[str], None]
) -> tuple[Comparison, list[Series]]:
    """Start sessions on both hubs in turn; return the figures and where Nimbus' time goes."""
    starts: dict[str, list[Start]] = {nimbus.name: [], stock.name: []}
    async with nimbus.client() as ours, stock.client() as theirs:
        for number in range(rounds + 1):
            for hub, client in ((nimbus, ours), (stock, theirs)):
                start = await _start(client)
                await _stop(client)
                kind = f"{number} of {rounds}" if number else "warm-up"
                say(f"session, {kind}, {hub.name}: ready after {start.ready:.2f} s")
                if number:
                    starts[hub.name].append(start)
    first, second = (
        Series(hub.name, tuple(start.ready for start in starts[hub.name]))
        for hub in (nimbus, stock)
    )
    comparison = Comparison("Session ready, from POST to ready", first, second, _GOAL)
    return comparison, _phases(starts[nimbus.name])


async def _start(client: httpx.AsyncClient) -> Start:
    """Ask for a session and follow the progress stream to its ready event."""
    start = Start()
    began = perf_counter()
    answer = await client.post(f"/users/{own_name()}/server", json={})
    if answer.status_code == httpx.codes.CREATED:
        start.ready = perf_counter() - began
        return start
    if answer.status_code != httpx.codes.ACCEPTED:
        raise RuntimeError(f"no session was started: {answer.text}")
    async with client.stream("GET", f"/users/{own_name()}/server/progress") as stream:
        async for line in stream.aiter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line.removeprefix("data: "))
            if event.get("failed"):
                raise RuntimeError(f"the session did not start: {event['message']}")
            if event.get("ready"):
                start.ready = perf_counter() - began
                return start
            start.messages[event["message"]] = perf_counter() - began
    raise RuntimeError("the progress stream ended before the session was ready")


async def _stop(client: httpx.AsyncClient) -> None:
    answer = await client.delete(f"/users/{own_name()}/server")
    answer.raise_for_status()
    async with asyncio.timeout(_GONE_SECONDS):
        while (await client.get(f"/users/{own_name()}")).json()["servers"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _phases(starts: list[Start]) -> list[Series]:
    """Return when each message that every start told had come, and when ready."""
    told = [name for name in starts[0].messages if all(name in one.messages for one in starts)]
    phases = [
        Series(name.rstrip(". "), tuple(start.messages[name] for start in starts)) for name in told
    ]
    return [*phases, Series("ready", tuple(start.ready for start in starts))]
