"""Accounts: under whose user id a replica runs.

Who shares an account shares everything, so there are two ways only: the service runs as
root and every owner has a system account of the same name, or the service runs as one
person and that person is the only owner.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nimbus_hub.errors import InvalidRequest

__all__ = ["Account", "Accounts"]


@dataclass(frozen=True, slots=True)
class Account:
    """An account of this machine. ``groups`` are all its groups' ids."""

    name: str
    uid: int
    gid: int
    home: Path
    shell: str = "/bin/sh"
    groups: tuple[int, ...] = ()

    @classmethod
    def named(cls, name: str) -> Self:
        """Return a system account; raise KeyError if there is none of that name."""
        return cls._of(pwd.getpwnam(name))

    @classmethod
    def current(cls) -> Self:
        """Return the account that this process runs under."""
        uid = os.getuid()
        try:
            return cls._of(pwd.getpwuid(uid))
        except KeyError:
            # A container may run under an id that has no name.
            return cls(f"uid-{uid}", uid, os.getgid(), Path("/tmp"))

    @classmethod
    def _of(cls, entry: pwd.struct_passwd) -> Self:
        groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
        home, shell = Path(entry.pw_dir), entry.pw_shell or "/bin/sh"
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid, home, shell, groups)


@dataclass(frozen=True, slots=True)
class Accounts:
    """Finds the account of an owner, as seen from the account the service runs under."""

    service: Account
    lookup: Callable[[str], Account] = Account.named

    def find(self, owner: str) -> Account:
        """Return the account an owner's replicas run under; raise InvalidRequest if none may."""
        if owner == self.service.name:
            return self.service
        if self.service.uid != 0:
            raise InvalidRequest(
                f"the local executor runs everything under the account {self.service.name}, "
                f"so it cannot serve {owner}; run the service as root for system users"
            )
        try:
            return self.lookup(owner)
        except KeyError:
            raise InvalidRequest(
                f"there is no system account {owner!r} on this machine; ask for one to be made"
            ) from None
