"""Log-in of the embedded hub: one user, the person who started it, with one password.

For more people put in another authenticator of JupyterHub: docs/authenticators.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyterhub.auth import Authenticator
from traitlets import Float, Unicode

from nimbus_hub.up.secrets import check_password

__all__ = ["OwnerAuthenticator"]


class OwnerAuthenticator(Authenticator):  # type: ignore[misc]
    """Let in the users of ``allowed_users`` who know the password.

    Tries are checked one after the other, and each wrong one makes the next wait longer:
    guessing is slow however many connections it uses.
    """

    password_file = Unicode(
        "", help="File with the password's hash, as `nimbus-hub password` writes it."
    ).tag(config=True)
    longest_delay = Float(
        8.0, min=0.0, help="Seconds the answer to a wrong password is held back at most."
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._turn = asyncio.Lock()
        self._failures = 0

    async def authenticate(self, handler: object, data: Mapping[str, str]) -> str | None:
        """Return the user's name if the password is right, else None."""
        async with self._turn:
            if await asyncio.to_thread(self._is_right, data.get("password", "")):
                self._failures = 0
                return data["username"]
            self._failures += 1
            delay = min(self.longest_delay, 0.25 * 2 ** min(self._failures, 10))
            await asyncio.sleep(delay)
            return None

    def _is_right(self, password: str) -> bool:
        try:
            stored = Path(self.password_file).read_text()
        except OSError:
            self.log.error("There is no password in %s yet; nobody can log in", self.password_file)
            return False
        return check_password(password, stored)
