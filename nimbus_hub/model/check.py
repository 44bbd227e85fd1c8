"""Checks: what works on a host, and what to do about what does not."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HostCheck"]


@dataclass(frozen=True, slots=True)
class HostCheck:
    """One thing that was looked at: what was found, and the remedy if it is not as it must be."""

    name: str
    is_ok: bool
    text: str
    remedy: str = ""
