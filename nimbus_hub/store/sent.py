"""What was sent to people already, over restarts of the service too.

A file with one id a line, added to before each is sent: what is in it is not sent again, so
a crash in between loses a notice rather than repeating it.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["Sent"]

_KEPT = 20_000


class Sent:
    """The ids of the last notices, newest last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._ids = dict.fromkeys(lines[-_KEPT:])
        if len(lines) > _KEPT:
            path.write_text("".join(f"{each}\n" for each in self._ids), encoding="utf-8")

    def add(self, notice_id: str) -> bool:
        """Note an id; tell whether it is new."""
        if notice_id in self._ids:
            return False
        self._ids[notice_id] = None
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{notice_id}\n")
        return True
