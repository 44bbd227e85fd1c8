"""Text that somebody else chose, made fit for one line of a log, a terminal or a table."""

from __future__ import annotations

import re

__all__ = ["one_line"]

_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
# Controls, ends of lines, halves of surrogate pairs, and what turns the direction of text.
_UNPRINTABLE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]+")


def one_line(text: str) -> str:
    """Return a text without what would act on a terminal or begin another line."""
    return _UNPRINTABLE.sub(" ", _TERMINAL_CODES.sub("", text)).rstrip()
