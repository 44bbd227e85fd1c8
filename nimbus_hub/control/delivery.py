"""Delivery of notices: in the background, one after the other for each notifier.

A notifier that fails or hangs holds up nobody but itself: what waits for it is bounded, and
what does not fit any more is dropped, oldest first.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence

from nimbus_hub.control.metrics import Metrics
from nimbus_hub.model.notice import Notice
from nimbus_hub.notifiers.base import NotifierError, Undeliverable
from nimbus_hub.notifiers.registry import Route

__all__ = ["PAUSES_SECONDS", "Delivery"]

log = logging.getLogger(__name__)

PAUSES_SECONDS = (1.0, 4.0, 15.0, 60.0, 120.0)
"""How long to wait before each further attempt."""

_BACKLOG = 1000


class Delivery:
    """The notices that wait for one notifier."""

    def __init__(
        self, route: Route, metrics: Metrics, pauses_seconds: Sequence[float] = PAUSES_SECONDS
    ) -> None:
        self._route = route
        self._metrics = metrics
        self._pauses = (*pauses_seconds, None)
        self._waiting: deque[Notice] = deque()
        self._arrived = asyncio.Event()

    def put(self, notice: Notice) -> None:
        """Have a notice delivered if the notifier wants its kind; never waits."""
        if notice.kind not in self._route.kinds:
            return
        if len(self._waiting) >= _BACKLOG:
            dropped = self._waiting.popleft()
            self._count("dropped")
            log.warning("%s: notice %s is dropped, too many wait", self._route.name, dropped.id)
        self._waiting.append(notice)
        self._arrived.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            while self._waiting:
                await self._deliver(self._waiting.popleft())
            self._arrived.clear()
            await self._arrived.wait()

    async def _deliver(self, notice: Notice) -> None:
        name = self._route.name
        for pause in self._pauses:
            try:
                await _in_thread(self._route, notice)
            except Undeliverable as error:
                log.warning("%s: notice %s is given up: %s", name, notice.id, error)
                break
            except NotifierError as error:
                log.warning("%s: notice %s was not sent: %s", name, notice.id, error)
            except Exception:  # a plug-in may fail in any way it likes
                log.exception("%s: notice %s was not sent", name, notice.id)
            else:
                self._count("sent")
                return
            if pause is not None:
                await asyncio.sleep(pause)
        self._count("failed")

    def _count(self, outcome: str) -> None:
        self._metrics.notices.labels(notifier=self._route.name, outcome=outcome).inc()


async def _in_thread(route: Route, notice: Notice) -> None:
    """Call a notifier in a thread that does not keep the service from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def call() -> None:
        error: BaseException | None = None
        try:
            route.notifier.notify(notice)
        except Exception as raised:  # noqa: BLE001 - handed to who waits for it
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=call, name=f"notifier-{route.name}", daemon=True).start()
    await done
