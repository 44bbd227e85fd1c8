"""Readers of notifiers' settings: each says what is wrong without telling a secret."""

from __future__ import annotations

import stat
from pathlib import Path

from nimbus_hub.errors import InvalidRequest

__all__ = ["chosen", "secret_of", "text"]


def text(name: str, value: object) -> str:
    """Return a setting that must be a text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(f"{name} must be a text, got {value!r}")
    return value.strip()


def chosen(name: str, value: object, choices: tuple[str, ...]) -> str:
    """Return a setting that must be one of some words."""
    if value not in choices:
        raise InvalidRequest(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return str(value)


def secret_of(name: str, value: object) -> str:
    """Return what a file holds that its owner alone can read.

    Secrets are in files of their own: settings are shown in logs and error messages.
    """
    path = Path(text(name, value))
    try:
        mode = path.stat().st_mode
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{name}: {path} cannot be read ({error})") from None
    if stat.S_IMODE(mode) & 0o077:
        raise InvalidRequest(f"{name}: {path} can be read by others; run: chmod 600 {path}")
    if not found:
        raise InvalidRequest(f"{name}: {path} is empty")
    return found
