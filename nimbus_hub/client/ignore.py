"""Patterns of an ignore file, read as git reads them: see gitignore(5).

Whoever asks walks from the top and never into a directory that is left out, as git does: what
is below one cannot be brought back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

__all__ = ["Patterns"]

# These are texts, compiled by the first pattern that needs them: usually there is none.
_TRIMMED = r"((?:\\.|[^\\])*?) *"
_PART = (
    r"(?P<above>(?<![^/])\*{2,}/)"
    r"|(?P<below>(?<![^/])\*{2,}\Z)"
    r"|(?P<stars>\*+)"
    r"|(?P<one>\?)"
    r"|\[(?P<not>[!^]?)(?P<set>\]?(?:\\.|[^]\\])*)\]"
    r"|\\(?P<escaped>.)"
    r"|(?P<malformed>[\[\\])"
    r"|(?P<literal>.)"
)
_REGEX_OF = {
    "above": "(?:.+/)?",
    "below": ".+",
    "stars": "[^/]*",
    "one": "[^/]",
    "malformed": "(?!)",
}
_WILD = frozenset("*?[\\")

_Match = Callable[[str], object]


class Patterns:
    """Lines of an ignore file; of those that match a path the last one decides."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [rule for line in lines if (rule := _Rule(line)).glob]
        self._rules.reverse()

    def leave_out(self, path: str) -> bool:
        """Tell whether a path from the top is left out; a directory's has a slash at its end."""
        is_directory, path = path.endswith("/"), path.removesuffix("/")
        name = path.rpartition("/")[2]
        for rule in self._rules:
            is_meant = is_directory or not rule.is_for_directories
            if is_meant and rule.matches(path if rule.is_anchored else name):
                return not rule.is_negated
        return False


class _Rule:
    """One line; ``glob`` is empty for one that says nothing."""

    def __init__(self, line: str) -> None:
        text = "" if line.startswith("#") else _trimmed(line)
        self.is_negated = text.startswith("!")
        text = text.removeprefix("!")
        self.is_for_directories = text.endswith("/")
        text = text.removesuffix("/")
        self.is_anchored = "/" in text
        self.glob = text.removeprefix("/")
        self.matches = _matcher(self.glob, self.is_anchored)


def _trimmed(line: str) -> str:
    """Return a line without the spaces at its end; an escaped one stays."""
    found = re.fullmatch(_TRIMMED, line) if line.endswith(" ") else None
    return line if found is None else found[1]


def _matcher(glob: str, is_path: bool) -> _Match:
    """Return what is true for what a glob matches; one that is malformed matches nothing."""
    if not _WILD & set(glob):
        return glob.__eq__
    ending = glob[1:]
    if glob[0] == "*" and not is_path and not _WILD & set(ending):
        return lambda path: path.endswith(ending)
    try:
        parts = re.finditer(_PART, glob, re.DOTALL)
        return re.compile("".join(map(_regex, parts)), re.DOTALL).fullmatch
    except re.error:  # a range like [z-a]
        return "".__eq__


def _regex(part: re.Match[str]) -> str:
    kind = part.lastgroup or ""
    if kind != "set":
        return _REGEX_OF.get(kind) or re.escape(part[kind])
    # What is more than a character to a regular expression, and none to a glob.
    inner = re.sub(r"\\.|[][&~|]", lambda each: re.escape(each[0][-1]), part["set"])
    return f"(?!/)[{'^' if part['not'] else ''}{inner}]"
