"""A claim: what makes a process that waits the server of one session."""

# ruff: noqa: PTH112, PTH117

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["Claim"]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a process becomes the server of."""

    args: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    is_inheriting: bool = False

    @classmethod
    def parse(cls, found: Any) -> Self:
        """Read a claim from what JSON gave; raise ValueError with what is wrong."""
        if not isinstance(found, dict):
            raise ValueError("a claim is an object")
        unknown = set(found) - {"args", "env", "cwd", "inherit"}
        if unknown:
            raise ValueError(f"there is no {min(unknown)!r} in a claim")
        args: Any = found.get("args")
        env: Any = found.get("env")
        cwd: Any = found.get("cwd")
        inherit: Any = found.get("inherit", False)
        if not isinstance(args, list) or not all(map(_is_text, args)):
            raise ValueError("args must be a list of texts")
        if not isinstance(env, dict) or not all(map(_is_text, (*env, *env.values()))):
            raise ValueError("env must be an object of texts")
        if any("=" in name or not name for name in env):
            raise ValueError("a variable's name is empty or has a '='")
        # Unlike Path.is_dir this never raises, whatever is in the way.
        if not _is_text(cwd) or not os.path.isabs(cwd) or not os.path.isdir(cwd):
            raise ValueError("cwd must be the absolute path of a directory")
        if not isinstance(inherit, bool):
            raise ValueError("inherit must be true or false")
        return cls(tuple(args), env, cwd, inherit)


def _is_text(value: Any) -> bool:
    """Tell whether the system takes it as an argument, a variable or a path."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False
