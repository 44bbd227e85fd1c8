"""The account the hub runs under: by its number, since USER and LOGNAME can say anything."""

from __future__ import annotations

import getpass
import os
import pwd
from pathlib import Path

__all__ = ["own_home", "own_name"]


def own_name() -> str:
    """Return the name of the account; in a container its number may have none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return getpass.getuser()


def own_home() -> str:
    """Return the home the hub was started with, else that of the account."""
    return os.environ.get("HOME") or str(Path.home())
