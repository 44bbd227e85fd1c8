"""Stops: signals to containers that are to end, sent until their engine has taken them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from nimbus_hub.errors import Unavailable

__all__ = ["Stops"]

RETRY_SECONDS = 1.0

Send = Callable[[str, int], Awaitable[bool]]
"""Sends a replica a signal; False if it does not run any more. Raises Unavailable."""


@dataclass(slots=True)
class _Stop:
    """``is_heard``: a signal has reached it, or may have."""

    deadline: float
    is_heard: bool
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: asyncio.Task[None] | None = None


class Stops:
    """Has replicas end within a grace, each in a task of its own."""

    def __init__(self, send: Send) -> None:
        """Reach replicas by ``send``."""
        self._send = send
        self._stops: dict[str, _Stop] = {}

    def stop(self, replica_id: str, grace_seconds: float) -> None:
        """Have a replica end within a grace; of two the shorter holds."""
        deadline = asyncio.get_running_loop().time() + grace_seconds
        earlier = self._stops.get(replica_id)
        if earlier is not None:
            if earlier.deadline <= deadline:
                return
            if earlier.task is not None:
                earlier.task.cancel()
        signals = (signal.SIGTERM, signal.SIGKILL)[earlier is not None :]
        stop = _Stop(deadline, earlier is not None and earlier.is_heard)
        stop.task = asyncio.create_task(self._run(replica_id, stop, signals))
        self._stops[replica_id] = stop

    async def was_heard(self, replica_id: str) -> bool:
        """Tell whether a replica that is over had been reached; true if nobody knows here."""
        stop = self._stops.get(replica_id)
        if stop is None:
            return True
        async with stop.sending:
            return stop.is_heard

    def forget(self, replica_id: str) -> None:
        """Send no more to a replica that is over."""
        stop = self._stops.pop(replica_id, None)
        if stop is not None and stop.task is not None:
            stop.task.cancel()

    async def close(self) -> None:
        """Send no more to any."""
        tasks = [stop.task for stop in self._stops.values() if stop.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, replica_id: str, stop: _Stop, signals: Sequence[signal.Signals]) -> None:
        """Send signals, the last one at the deadline; an engine that is silent is asked again."""
        loop = asyncio.get_running_loop()
        for number in signals:
            if number is signal.SIGKILL:
                await asyncio.sleep(max(0.0, stop.deadline - loop.time()))
            await self._signal(replica_id, stop, number)

    async def _signal(self, replica_id: str, stop: _Stop, number: int) -> None:
        while True:
            with suppress(Unavailable):
                async with stop.sending:
                    stop.is_heard |= await self._send(replica_id, number)
                return
            await asyncio.sleep(RETRY_SECONDS)
