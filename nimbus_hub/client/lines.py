"""Output of replicas as one stream: whole lines, each under its replica's name.

``worker-0 | step 1``. Without names, for one replica, the output goes through as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from nimbus_hub.client.resources import LogText

__all__ = ["PROMPT", "Lines"]

PROMPT = re.compile(r"\(+Pdb\)+ ")
"""What pdb writes, without an end of line, when it waits for a command."""


class Lines:
    """Puts pieces of output together; ``style`` paints a name."""

    def __init__(self, *, has_names: bool, style: Callable[[str], str] = str) -> None:
        self.has_names = has_names
        self._style = style
        self._begun: dict[str, str] = {}

    def add(self, item: LogText) -> str:
        """Take in a piece and return what can be shown now."""
        text = self._begun.pop(item.replica, "") + item.text
        lines, end, begun = text.rpartition("\n")
        if not self.has_names and not PROMPT.fullmatch(begun):
            return text
        if begun:
            self._begun[item.replica] = begun
        return self._written(item.replica, lines) if end else ""

    def begun(self, replica: str) -> str:
        """Return the line that a replica has begun, which is not shown here any more."""
        return self._begun.pop(replica, "")

    def rest(self) -> str:
        """Return the lines that were begun and never ended."""
        text = "".join(self._written(name, begun) for name, begun in self._begun.items())
        self._begun.clear()
        return text

    def _written(self, replica: str, lines: str) -> str:
        if not self.has_names:
            return f"{lines}\n"
        name = self._style(replica)
        return "".join(f"{name} | {line}\n" for line in lines.split("\n"))
