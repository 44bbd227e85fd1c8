"""Calls of the Nimbus service from the hub's event loop.

The client library blocks, so its calls run in threads: those that wait for a grant in a
pool of their own, so that a release never stands in line behind them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import ParamSpec, TypeVar

from nimbus_hub.client.client import Client
from nimbus_hub.errors import NimbusError, Unavailable

__all__ = ["call", "call_waiting", "deliver", "insist", "service"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_short = ThreadPoolExecutor(max_workers=8, thread_name_prefix="nimbus-spawner")
_waiting = ThreadPoolExecutor(max_workers=64, thread_name_prefix="nimbus-spawner-wait")
_deliveries: set[asyncio.Task[None]] = set()

_LONGEST_PAUSE = 30.0


@lru_cache(maxsize=8)
def service(url: str, token: str) -> Client:
    """Return the one client for this service: it keeps connections open and is thread-safe."""
    return Client(url, token)


async def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a short call in a thread."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_short, partial(function, *args, **kwargs))


async def call_waiting(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a call that the service answers late in a thread."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_waiting, partial(function, *args, **kwargs))


async def insist(attempt: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Repeat an attempt while the service does not answer, for so long: it may be restarting."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            return await attempt()
        except Unavailable:
            if loop.time() >= deadline:
                raise
            await asyncio.sleep(0.3)


def deliver(
    client: Client, lease_id: str, reason: str, after: Awaitable[None] | None = None
) -> asyncio.Task[None]:
    """Start telling the service that a session is gone, again and again until it heard.

    With ``after``, once that is done.
    """
    task = asyncio.create_task(_deliver(client, lease_id, reason, after))
    # The spawner is dropped when its server has stopped; the news must get through.
    _deliveries.add(task)
    task.add_done_callback(_deliveries.discard)
    return task


async def _deliver(
    client: Client, lease_id: str, reason: str, after: Awaitable[None] | None
) -> None:
    if after is not None:
        await after
    pause = 0.2
    while True:
        try:
            await call(client.release, lease_id, reason=reason, is_stopped=True)
        except Unavailable as error:
            log.warning("Lease %s could not be released yet: %s", lease_id, error)
        except NimbusError as error:
            # Over already, or unknown to this service: nothing is held.
            log.info("Lease %s needs no release: %s", lease_id, error)
            return
        else:
            log.info("Lease %s was released: %s", lease_id, reason)
            return
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
