"""Whether a started server answers."""

from __future__ import annotations

from typing import Any

import aiohttp

__all__ = ["answers", "origin"]


def origin(address: Any) -> str:
    """Return the origin of what a spawner's start returned: a URL, or host and port."""
    if isinstance(address, str):
        return address.rstrip("/")
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    """Tell whether a server is there and works."""
    try:
        async with session.get(url, allow_redirects=False) as answer:
            return answer.status < 500
    except (aiohttp.ClientError, TimeoutError):
        return False
