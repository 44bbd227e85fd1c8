"""The agent: tells the service what happens in this session, while the server runs.

It costs next to nothing: where looking takes long, it looks less often. It never breaks the
server, and a service that does not answer is told the next time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from nimbus_hub.client import ActivityTerms, Lease
from nimbus_hub.client.environment import variable
from nimbus_hub.errors import NimbusError
from nimbus_hub.model.policy import Signal
from nimbus_labextension.activity import Connections, Measure, rooms_of
from nimbus_labextension.gpus import Gpus
from nimbus_labextension.processes import Processes

__all__ = ["ActivityClient", "Agent"]

log = logging.getLogger(__name__)

_FIRST_SECONDS = 5.0
"""The server that has just become ready answers its first page before."""
_PAUSE_SECONDS = 30.0
_LONGEST_SECONDS = 150.0
"""The service takes a session to be unknown after three minutes."""
_COST = 0.001
_QUIET_SECONDS = 60.0


class ActivityClient(Protocol):
    """What the agent needs of ``nimbus_hub.client.Client``; it blocks, in a thread."""

    def report_activity(self, lease_id: str, /, activity: Mapping[str, object]) -> ActivityTerms:
        """Send a report."""


class Agent:
    """Looks and tells; made in the running loop of the server."""

    def __init__(
        self,
        lease_id: str,
        client: ActivityClient,
        settings: dict[str, Any],
        measure: Measure | None = None,
    ) -> None:
        self._lease_id = lease_id
        self._client = client
        self._settings = settings
        self._measure = measure or Measure(
            os.getpid(),
            Processes(f"NIMBUS_LEASE_ID={lease_id}"),
            Gpus(variable("CUDA_VISIBLE_DEVICES")),
            asyncio.get_running_loop().time,
        )
        self._connections = Connections()
        self._documents: Sequence[str] = ()
        self._gangs: Sequence[Lease] = ()
        self._looking_seconds = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="nimbus-agent")
        self._timer: asyncio.TimerHandle | None = None
        self._telling: asyncio.Task[None] | None = None

    @property
    def idle_gangs(self) -> Sequence[Lease]:
        """Return the session's debug gangs that did nothing, as of the last report."""
        return self._gangs

    def start(self) -> None:
        """Begin. There is no end: a timer that is left when the server ends is no matter."""
        self._connections.watch(self._settings)
        self._plan(_FIRST_SECONDS)

    def see(self, input_seconds: float, documents: Sequence[str]) -> None:
        """Hear of a page: how long ago its user did something, and what is open there.

        Somebody who comes back is told of at once: the session may be about to end.
        """
        self._documents = documents
        is_back = self._measure.quiet_seconds(Signal.CONNECTIONS) - input_seconds > _QUIET_SECONDS
        self._measure.show(Signal.CONNECTIONS, input_seconds)
        if is_back and self._timer is not None:
            self._plan(0)

    def _plan(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._telling = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        pause = _PAUSE_SECONDS
        try:
            if self._connections.had_input(self._measure.seconds):
                self._measure.show(Signal.CONNECTIONS)
            rooms = rooms_of(self._settings)
            loop = asyncio.get_running_loop()
            terms = await loop.run_in_executor(self._pool, lambda: self._report(rooms))
            self._measure.cpu_busy, self._measure.gpu_busy = terms.cpu_busy, terms.gpu_busy
            self._gangs = terms.idle_gangs
            pause = terms.next_seconds
        except NimbusError as error:
            log.info("the service was not told of this session's activity: %s", error.message)
        except Exception:
            log.exception("this session's activity was not measured")
        finally:
            self._plan(min(max(pause, self._looking_seconds / _COST), _LONGEST_SECONDS))

    def _report(self, rooms: Any) -> ActivityTerms:
        before = _cpu_seconds()
        self._measure.look(rooms)
        self._looking_seconds = _cpu_seconds() - before
        return self._client.report_activity(self._lease_id, self._measure.body(self._documents))


def _cpu_seconds() -> float:
    """Return what this thread used, or where that is not told all of the server."""
    used = resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF))
    return used.ru_utime + used.ru_stime
