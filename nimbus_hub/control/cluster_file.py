"""The cluster file as it changes: read again when it does, the last good word kept."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from threading import Lock

from nimbus_hub.control.cluster import read_cluster
from nimbus_hub.control.cluster_entry import extended
from nimbus_hub.control.yaml_nodes import read_text
from nimbus_hub.errors import Conflict, InvalidRequest
from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.engine import Engine

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
        self.path = path
        self._executors = executors
        self._sizes = sizes
        self._read = self._seen = self._stamp()
        self.cluster: Cluster = read_cluster(path, executors, sizes)
        self._adding = Lock()
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
            cluster = read_cluster(self.path, self._executors, self._sizes)
        except InvalidRequest as error:
            self.error = error.message
            log.error("cluster file refused, what it said before holds on: %s", error.message)
            return False
        before, self.cluster, self.error = self.cluster, cluster, ""
        log.info("cluster file read again: %d hosts", len(cluster.hosts))
        return cluster != before

    def with_engine(self, engine: Engine) -> tuple[str, Engine]:
        """Return the file's text with one more engine, and that engine as it is read. Blocks.

        Raises InvalidRequest for one with which the file would be refused, Conflict while it is
        so already.
        """
        return extended(read_text(self.path), engine, self.path, self._executors, self._sizes)

    def add(self, engine: Engine) -> None:
        """Write an engine into the file, which keeps its owner and mode. Blocks.

        The rest of the file stays as it is, byte for byte. Raises Conflict if it cannot be
        written, and what :meth:`with_engine` does.
        """
        with self._adding:
            text, _ = self.with_engine(engine)
            # A link stays one.
            path = self.path.resolve()
            draft = path.with_name(f".{path.name}.nimbus")
            try:
                _replace(path, draft, text)
            except OSError as error:
                raise Conflict(f"{path} cannot be written: {error.strerror}") from error
            finally:
                draft.unlink(missing_ok=True)

    def _stamp(self) -> _Stamp:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _replace(path: Path, draft: Path, text: str) -> None:
    """Have a file say this text, whole or not at all."""
    found = path.stat()
    with draft.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    shutil.copymode(path, draft)
    os.chown(draft, found.st_uid, found.st_gid)
    draft.replace(path)
