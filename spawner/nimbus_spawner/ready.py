"""Whether a started server answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from jupyterhub.utils import make_ssl_context

__all__ = ["answers", "asking", "origin"]

_ANSWER_SECONDS = 2.0
_HUB = ("internal_ssl_key", "internal_ssl_cert", "internal_ssl_ca")


def origin(address: Any, scheme: str = "http") -> str:
    """Return the origin of what a spawner's start returned: a URL, or host and port."""
    if isinstance(address, str):
        return address.rstrip("/")
    host, port = address
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def asking(settings: Mapping[str, Any]) -> aiohttp.ClientSession:
    """Return what asks servers; with internal SSL with the hub's own keys of its settings."""
    context = make_ssl_context(*(settings.get(name) for name in _HUB))
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS),
        connector=aiohttp.TCPConnector(ssl=context or True),
    )


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    """Tell whether a server is there and works."""
    try:
        async with session.get(url, allow_redirects=False) as answer:
            return answer.status < 500
    except (aiohttp.ClientError, TimeoutError):
        return False
