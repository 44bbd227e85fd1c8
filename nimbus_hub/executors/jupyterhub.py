"""Notebook servers, which JupyterHub runs: asked for and stopped through its REST API.

Source: https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

import httpx
from jupyterhub.utils import make_ssl_context

from nimbus_hub.errors import Unavailable

__all__ = ["HubSessions"]

_PAGE = 200


class HubSessions:
    """The servers of one hub. The token needs the scopes list:users, read:servers, servers."""

    def __init__(self, api_url: str, token: str, keys: tuple[str, str, str] = ("", "", "")) -> None:
        """Call the hub at ``api_url``; ``keys`` are files: key, certificate, whom to trust."""
        self._http = httpx.AsyncClient(
            base_url=api_url.rstrip("/") + "/",
            headers={"Authorization": f"token {token}"},
            timeout=30,
            trust_env=False,
            verify=make_ssl_context(*keys) or True,
        )

    async def stop(self, owner: str, name: str) -> bool:
        """Ask the hub to stop a server; return whether it is gone. May be repeated."""
        server = f"servers/{quote(name, safe='')}" if name else "server"
        answer = await self._send("DELETE", f"users/{quote(owner, safe='')}/{server}")
        if answer.status_code in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND):
            return True
        if answer.status_code == HTTPStatus.ACCEPTED:
            return False
        if answer.status_code == HTTPStatus.BAD_REQUEST:
            # The hub says so of a server that is not running, and of one that is starting.
            return (owner, name) not in await self.running()
        raise Unavailable(
            f"the hub did not stop the server of {owner}: {answer.status_code} {answer.text[:200]}"
        )

    async def running(self) -> frozenset[tuple[str, str]]:
        """Return (owner, name) of all servers that run, start or stop now."""
        found: set[tuple[str, str]] = set()
        offset = 0
        while True:
            params: dict[str, str | int] = {"state": "active", "offset": offset, "limit": _PAGE}
            answer = await self._send("GET", "users", params=params)
            if answer.status_code != HTTPStatus.OK:
                raise Unavailable(f"the hub did not list its servers: {answer.status_code}")
            users = answer.json()
            found |= {(u["name"], server) for u in users for server in u.get("servers") or {}}
            offset += _PAGE
            if len(users) < _PAGE:
                return frozenset(found)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _send(
        self, method: str, path: str, params: dict[str, str | int] | None = None
    ) -> httpx.Response:
        try:
            return await self._http.request(method, path, params=params)
        except httpx.HTTPError as error:
            raise Unavailable(f"the hub does not answer: {error}") from error
