"""Sessions: how the control layer reaches the notebook servers that JupyterHub runs."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Sessions"]


class Sessions(Protocol):
    """The notebook servers. Errors of the hub are raised as Unavailable."""

    async def stop(self, owner: str, name: str) -> bool:
        """Ask the hub to stop a server; return whether it is gone. May be repeated."""
        ...

    async def running(self) -> frozenset[tuple[str, str]]:
        """Return (owner, name) of all servers that run, start or stop now."""
        ...
