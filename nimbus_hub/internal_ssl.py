"""TLS between the parts of a hub: what JupyterHub's ``internal_ssl`` gives its services.

Each part has a key of its own and takes only those with one of the hub's authorities:
https://jupyterhub.readthedocs.io/en/stable/explanation/websecurity.html
"""

from __future__ import annotations

from ssl import Purpose, SSLContext

from jupyterhub.services.auth import HubOAuth
from jupyterhub.utils import make_ssl_context

__all__ = ["client_context", "server_context"]


def client_context(hub: HubOAuth) -> SSLContext | None:
    """Return what to call the hub with; None without internal SSL."""
    return _context(hub, Purpose.SERVER_AUTH)


def server_context(hub: HubOAuth) -> SSLContext | None:
    """Return what to listen with; None without internal SSL."""
    return _context(hub, Purpose.CLIENT_AUTH)


def _context(hub: HubOAuth, purpose: Purpose) -> SSLContext | None:
    made: SSLContext | None = make_ssl_context(
        hub.keyfile, hub.certfile, cafile=hub.client_ca, purpose=purpose
    )
    return made
