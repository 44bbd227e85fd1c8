"""Slots: what a lease asks for (groups) and what it is granted (slots)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nimbus_hub.errors import InvalidRequest

__all__ = ["PORTS_PER_SLOT", "Slot", "SlotGroup"]

PORTS_PER_SLOT = 4
"""Each attempt of a replica uses a port of its slot that the last one did not."""

_MOST = 10_000
_ROLE = re.compile(r"[a-z][a-z0-9-]{0,29}")


@dataclass(frozen=True, slots=True)
class SlotGroup:
    """A wish for ``count`` equal slots of one role; sizes are per slot."""

    role: str
    count: int = 1
    cpus_milli: int = 1000
    memory_bytes: int = 2 * 2**30
    gpus: int = 0
    gpu_model: str | None = None

    def __post_init__(self) -> None:
        """Refuse amounts that make no sense."""
        if not _ROLE.fullmatch(self.role):
            raise InvalidRequest(
                f"role must be lower-case letters, digits and dashes, got {self.role!r}"
            )
        if self.count < 1:
            raise InvalidRequest(f"{self.role}s must be at least 1, got {self.count}")
        if self.count > _MOST:
            raise InvalidRequest(f"{self.role}s must be at most {_MOST}, got {self.count}")
        if self.cpus_milli <= 0:
            raise InvalidRequest(f"cpus must be more than 0, got {self.cpus_milli / 1000:g}")
        if self.memory_bytes <= 0:
            raise InvalidRequest(f"memory must be more than 0, got {self.memory_bytes}")
        if self.gpus < 0:
            raise InvalidRequest(f"gpus must be at least 0, got {self.gpus}")


@dataclass(frozen=True, slots=True)
class Slot:
    """A share of one host, held by a lease: CPUs, memory, GPU devices, ports."""

    role: str
    index: int
    host: str
    address: str
    cpus_milli: int
    memory_bytes: int
    gpus: tuple[int, ...] = ()
    ports: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Return the slot's name within its lease, ``worker-0``."""
        return f"{self.role}-{self.index}"

    def port(self, attempt: int) -> int:
        """Return the port for an attempt (from 1): another one than the last attempt's."""
        return self.ports[(attempt - 1) % len(self.ports)]
