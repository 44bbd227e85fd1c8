"""The Python side of the lab extension: routes for the lease, and where the bundle is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nimbus_labextension.routes import add_routes, session_of_environment, start_agent

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

__all__ = [
    "_jupyter_labextension_paths",
    "_jupyter_server_extension_points",
    "_load_jupyter_server_extension",
    "_start_jupyter_server_extension",
]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "nimbus-labextension"}]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "nimbus_labextension"}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    session = session_of_environment()
    add_routes(server.web_app, session)
    if session is not None and session.reclaim is not None:
        session.reclaim.start()


async def _start_jupyter_server_extension(server: ServerApp) -> None:
    start_agent(server.web_app.settings)
