"""The only reader of environment variables on the client's side.

A session has NIMBUS_API_URL, NIMBUS_LEASE_ID, NIMBUS_ENVIRONMENT and JupyterHub's
JUPYTERHUB_API_TOKEN and JUPYTERHUB_SERVICE_PREFIX; a replica of a job has NIMBUS_TOKEN.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from nimbus_hub.errors import InvalidRequest, Unauthenticated

__all__ = [
    "address_and_token",
    "browser_url",
    "cache_directory",
    "proxied_url",
    "session_environment",
    "session_lease_id",
    "variable",
    "with_variables",
]


def address_and_token() -> tuple[str, str]:
    """Return the service's address and the token to use there.

    Raises InvalidRequest or Unauthenticated that say what to set.
    """
    url = os.environ.get("NIMBUS_API_URL")
    if not url:
        raise InvalidRequest(
            "NIMBUS_API_URL is not set; outside of a session set it to your hub's address "
            "followed by /services/nimbus, like https://hub.example.org/services/nimbus"
        )
    token = os.environ.get("NIMBUS_TOKEN") or os.environ.get("JUPYTERHUB_API_TOKEN")
    if not token:
        hub = url.split("/services/")[0]
        raise Unauthenticated(
            f"NIMBUS_TOKEN is not set; set it to a token that you request at {hub}/hub/token"
        )
    return url.rstrip("/"), token


def session_lease_id() -> str | None:
    """Return the lease of the session this runs in, or None outside of one."""
    return os.environ.get("NIMBUS_LEASE_ID") or None


def session_environment() -> str:
    """Return the name of the session's environment, the one its jobs get."""
    return os.environ.get("NIMBUS_ENVIRONMENT") or "default"


def proxied_url(port: int) -> str | None:
    """Return the path under which the browser reaches a port of this session, or None."""
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    return f"{prefix.rstrip('/')}/proxy/{port}/" if prefix else None


def browser_url(port: int) -> str:
    """Return where a browser finds a port: through the hub in a session, else right here.

    A hub that does not know its public address gets the path alone.
    """
    path = proxied_url(port)
    if path is None:
        return f"http://127.0.0.1:{port}/"
    public = os.environ.get("JUPYTERHUB_PUBLIC_URL")
    return f"{public.rstrip('/')}/proxy/{port}/" if public else path


def cache_directory() -> Path | None:
    """Return where what can be lost is kept for this user; None for one without a home."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given or Path.home() / ".cache") / "nimbus"
    except RuntimeError:
        return None


def variable(name: str) -> str | None:
    """Return the value of an environment variable the user named, or None."""
    return os.environ.get(name)


def with_variables(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process and more, for a process that it starts."""
    return {**os.environ, **more}
