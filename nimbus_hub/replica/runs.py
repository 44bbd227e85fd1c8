"""A run in its holder's place, as warm.py keeps it: its record, its streams and who watches.

Python 3.6 and later, standard library only.
"""

import os
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nimbus_hub.replica import spares, supervision
else:
    import spares
    import supervision

__all__ = ["Run"]


class Run(supervision.Replica):
    """A replica in its holder's place."""

    is_guest = True

    def __init__(
        self, spec: "dict[str, Any]", path: str, lock: int, connection: socket.socket
    ) -> None:
        super().__init__(spec, path)
        self.lock = lock
        self.watchers = [connection]
        self.streams = None  # type: tuple[int, int] | None
        self.problem = ""
        self.is_begun = False
        self.again_at = 0.0

    def give(self, spare: "spares.Spare") -> None:
        """Hand a spare what it is to become; if it is gone, its end will tell."""
        assert self.streams is not None
        self.started_at = time.time()
        spec = os.open(self.file("spec.json"), os.O_RDONLY)
        supervision.send(spares.send_descriptors, spare.own, spec, *self.streams)
        os.close(spec)

    def begun(self, reason: str = "") -> None:
        """Record that it runs, and tell."""
        self.is_begun = True
        self.close_streams()
        self.record_running(reason)
        for watcher in self.watchers:
            supervision.send(watcher.send, b".")

    def close_streams(self) -> None:
        """Close what its main process has by now."""
        for descriptor in self.streams or ():
            os.close(descriptor)
        self.streams = None

    def conclude(self) -> bool:
        """Record the end and tell who watches; on a full disk only once there is room."""
        try:
            self.record_end(self.exit_code, self.problem or self.reason())
        except OSError as error:
            sys.stderr.write("cannot record the end of %s: %s\n" % (self.path, error))
            self.again_at = time.monotonic() + spares.PAUSE_SECONDS
            return False
        self.close()
        return True

    def close(self) -> None:
        """Let go of all that belongs to it, which tells who watches that it is over."""
        self.close_streams()
        if self.input >= 0:
            os.close(self.input)
        for watcher in self.watchers:
            watcher.close()
        os.close(self.lock)
