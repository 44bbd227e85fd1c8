"""The cluster file as it changes: read again when it does, the last good word kept."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from nimbus_hub.control.cluster import read_cluster
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.cluster import Cluster

__all__ = ["ClusterFile"]

log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int] | None
"""What tells one content from another: time, size and inode; None: there is no file."""


class ClusterFile:
    """A cluster file; ``cluster`` is what it said when it last could be read.

    ``error`` is why it cannot be read now, empty if it can.
    """

    def __init__(
        self,
        path: Path,
        executors: Collection[str] | None = None,
        sizes: Collection[str] | None = None,
    ) -> None:
        """Read the file; raise InvalidRequest if that cannot be."""
        self._path = path
        self._executors = executors
        self._sizes = sizes
        self._read = self._seen = self._stamp()
        self.cluster: Cluster = read_cluster(path, executors, sizes)
        self.error = ""

    def reload(self) -> bool:
        """Read the file again if it changed; tell whether ``cluster`` did. Blocks.

        A change counts when two looks in a row find the same: an editor may be at work.
        """
        stamp, seen = self._stamp(), self._seen
        self._seen = stamp
        if stamp == self._read or stamp != seen:
            return False
        self._read = stamp
        try:
            cluster = read_cluster(self._path, self._executors, self._sizes)
        except InvalidRequest as error:
            self.error = error.message
            log.error("cluster file refused, what it said before holds on: %s", error.message)
            return False
        before, self.cluster, self.error = self.cluster, cluster, ""
        log.info("cluster file read again: %d hosts", len(cluster.hosts))
        return cluster != before

    def _stamp(self) -> _Stamp:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
