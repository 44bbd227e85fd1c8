"""Snapshots in memory, for executors under test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from nimbus_hub.errors import NotFound
from nimbus_hub.model.snapshot import SnapshotFile


class MemorySnapshots:
    """Snapshots by any name, each a text by path; ``asked`` are the paths of each unpacking."""

    def __init__(self, snapshots: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.snapshots = dict(snapshots or {})
        self.asked: list[list[str]] = []

    def files(self, owner: str, digest: str) -> tuple[SnapshotFile, ...]:
        found = []
        for path, text in self._of(digest).items():
            content = text.encode()
            is_executable = text.startswith("#!")
            name = hashlib.sha256(content).hexdigest()
            found.append(SnapshotFile(path, len(content), name, is_executable))
        return tuple(found)

    def unpack(
        self, owner: str, digest: str, target: Path, some: Iterable[SnapshotFile] | None = None
    ) -> None:
        texts = self._of(digest)
        chosen = texts if some is None else {file.path: texts[file.path] for file in some}
        self.asked.append(sorted(chosen))
        for path, text in chosen.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text(text)
            (target / path).chmod(0o755 if text.startswith("#!") else 0o644)

    def _of(self, digest: str) -> Mapping[str, str]:
        if digest not in self.snapshots:
            raise NotFound(f"snapshot {digest} is gone")
        return self.snapshots[digest]
