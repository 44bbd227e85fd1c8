"""Tokens and the password of the embedded hub.

Tokens are made once and kept, so that a restarted hub is known to its proxy, its service
and the browsers that are logged in. Of the password only a salted scrypt hash is kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from pathlib import Path

from nimbus_hub.up.state import write_private

__all__ = ["check_password", "hash_password", "kept_token", "new_password"]

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""No letters that are read for one another: the password is typed from a terminal."""

_COST = {"n": 2**14, "r": 8, "p": 1}
"""scrypt's cost: 16 MB and about 50 ms a try (RFC 7914, interactive log-in)."""


def kept_token(directory: Path, name: str) -> str:
    """Return the token of this name, made at its first use: 64 hexadecimal digits."""
    path = directory / name
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        token = secrets.token_hex(32)
        write_private(path, token + "\n")
        return token


def new_password() -> str:
    """Return a random password of four groups, 79 bits: ``k7wd-...``."""
    letters = [secrets.choice(_ALPHABET) for _ in range(16)]
    return "-".join("".join(letters[start : start + 4]) for start in range(0, 16, 4))


def hash_password(password: str, salt: bytes | None = None) -> str:
    """Return what may be stored of a password: ``scrypt$SALT$HASH``."""
    salt = salt or secrets.token_bytes(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=_COST["n"], r=_COST["r"], p=_COST["p"])
    return "$".join(("scrypt", base64.b64encode(salt).decode(), base64.b64encode(digest).decode()))


def check_password(password: str, stored: str) -> bool:
    """Tell whether the password has this hash; takes as long for a wrong one."""
    try:
        scheme, salt, _digest = stored.strip().split("$")
        salted = base64.b64decode(salt, validate=True)
    except ValueError:
        return False
    return scheme == "scrypt" and hmac.compare_digest(
        hash_password(password, salted), stored.strip()
    )
