"""The files of a job as the notebook shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from nimbus_hub.client.resources import File, FileList
from nimbus_hub.magics.table import Table
from nimbus_hub.model.quantities import format_memory

__all__ = ["Files"]

_COLUMNS = ("path", "size", "changed", "host")
_SHOWN = 100


class Files(Sequence[File]):
    """Files in order of their paths; shown as a table."""

    def __init__(self, found: FileList) -> None:
        self._found = found

    @property
    def paths(self) -> list[str]:
        """Return the paths alone, as ``job.load`` and ``job.download`` take them."""
        return [file.path for file in self._found.items]

    @overload
    def __getitem__(self, index: int) -> File: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[File, ...]: ...
    def __getitem__(self, index: int | slice) -> File | tuple[File, ...]:
        """Return a file, or some."""
        return self._found.items[index]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._found.items)

    def __repr__(self) -> str:
        """Return aligned text."""
        return "\n".join([repr(self._table()), *self._rest()]) if self else "no files yet"

    def _repr_html_(self) -> str:
        rest = "".join(f"<div>{line}</div>" for line in self._rest())
        html: Any = self._table()._repr_html_()
        return f"{html}{rest}" if self else "no files yet"

    def _table(self) -> Table:
        rows = [
            (
                file.path,
                format_memory(file.size_bytes),
                f"{file.changed_at.astimezone():%Y-%m-%d %H:%M:%S}",
                file.host,
            )
            for file in self._found.items[:_SHOWN]
        ]
        return Table(_COLUMNS, tuple(rows))

    def _rest(self) -> list[str]:
        if len(self) <= _SHOWN and self._found.is_whole:
            return []
        known = "more than " * (not self._found.is_whole) + str(len(self))
        return [f"{min(len(self), _SHOWN)} of {known} files; job.files.paths has them"]
