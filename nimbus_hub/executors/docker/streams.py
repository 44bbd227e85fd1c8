"""Streams of events: what is followed tells at once when it goes and when it comes back.

Nothing is asked while all is well: an engine's stream ends with the engine, and the kernel ends
one whose host is cut off (`connections`). Only what has gone is tried again and again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import docker
import urllib3
from docker import errors as docker_errors
from docker.types import CancellableStream

from nimbus_hub.executors.docker.connections import connect, cut, why
from nimbus_hub.model.engine import Engine

__all__ = ["EventStream", "Filters", "Tell"]

Tell = Callable[[str], None]
"""Called in the stream's thread: empty when connected and at each event, else why it went."""

Filters = Mapping[str, Sequence[str]]

CONNECT_SECONDS = 4
_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)
_FAULTS = (
    docker_errors.DockerException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
    AttributeError,  # What the SDK raises when another thread closes its stream.
)


class EventStream:
    """Follows the events of one engine in a thread of its own, until closed."""

    def __init__(self, engine: Engine, filters: Filters, tell: Tell) -> None:
        """Begin at once."""
        self.engine = engine
        self._filters = filters
        self._tell = tell
        self._closed = threading.Event()
        self._is_well = False
        self._stream: CancellableStream | None = None
        self._thread = threading.Thread(target=self._run, name=f"events-{engine.host}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; nothing more is told."""
        self._closed.set()
        if self._stream is not None:
            cut(self._stream)

    def _run(self) -> None:
        failures = 0
        while not self._closed.is_set():
            self._is_well = False
            fault = "its connection ended"
            try:
                with closing(connect(self.engine, CONNECT_SECONDS)) as client:
                    self._follow(client)
            except _FAULTS as error:
                fault = why(error)
            failures = 0 if self._is_well else failures + 1
            self._say(fault)
            self._closed.wait(_PAUSES_SECONDS[min(failures, len(_PAUSES_SECONDS) - 1)])

    def _follow(self, client: docker.APIClient) -> None:
        filters = {kind: list(values) for kind, values in self._filters.items()}
        self._stream = client.events(filters=filters, decode=True)
        if self._closed.is_set():
            cut(self._stream)
        self._is_well = True
        self._say("")
        for _ in self._stream:
            self._say("")

    def _say(self, fault: str) -> None:
        if not self._closed.is_set():
            self._tell(fault)
