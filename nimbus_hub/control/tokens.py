"""Names and tokens the service makes: ids of leases and jobs, and job tokens.

A job token is the job's id and an HMAC-SHA-256 of it under a secret of the service: it
needs no table, survives a restart, and is worth nothing once the job is over.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

__all__ = ["job_of_token", "job_token", "kept_secret", "new_id"]

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_LETTERS = 8
_PREFIX = "nimbus-job."


def new_id(prefix: str) -> str:
    """Return a fresh id like ``j-7k3fm2xa``, easy to read aloud (no 0, 1, i, l, o)."""
    number = secrets.randbelow(len(_ALPHABET) ** _LETTERS)  # One draw instead of one a letter.
    letters = (_ALPHABET[number // len(_ALPHABET) ** at % len(_ALPHABET)] for at in range(_LETTERS))
    return f"{prefix}-{''.join(letters)}"


def job_token(secret: bytes, job_id: str) -> str:
    """Return the token that a job's replicas speak to the service with."""
    return f"{_PREFIX}{job_id}.{_signature(secret, job_id)}"


def job_of_token(secret: bytes, token: str) -> str | None:
    """Return the id of the job a token was made for, or None if it is none of ours."""
    job_id, dot, signature = token.removeprefix(_PREFIX).rpartition(".")
    if not token.startswith(_PREFIX) or not dot:
        return None
    expected = _signature(secret, job_id)
    return job_id if hmac.compare_digest(signature.encode(), expected.encode()) else None


def kept_secret(path: Path) -> bytes:
    """Return the secret kept in a file, made at the first time for the owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(32))
    return path.read_bytes()


def _signature(secret: bytes, job_id: str) -> str:
    return hmac.new(secret, job_id.encode(), hashlib.sha256).hexdigest()
