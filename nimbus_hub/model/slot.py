"""Slots: what a lease asks for (groups) and what it is granted (slots)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from nimbus_hub.errors import InvalidRequest

__all__ = ["PORTS_PER_SLOT", "Slot", "SlotGroup", "Topology"]

PORTS_PER_SLOT = 4
"""Each attempt of a replica uses a port of its slot that the last one did not."""

_MOST = 10_000
_ROLE = re.compile(r"[a-z][a-z0-9-]{0,29}")


class Topology(StrEnum):
    """How the slots of a group lie to each other; those with a colon are a must."""

    PACK = "pack"
    """In the fewest hosts, then in one rack."""
    PACK_HOST = "pack:host"
    PACK_RACK = "pack:rack"
    SPREAD = "spread"
    """As few per host as possible."""
    SPREAD_HOST = "spread:host"
    ANY = "any"


_TOPOLOGIES = {"ps": Topology.SPREAD, "evaluator": Topology.ANY}
"""What a role means by no wish; all others pack."""


@dataclass(frozen=True, slots=True)
class SlotGroup:
    """A wish for ``count`` equal slots of one role; sizes are per slot.

    ``gpus`` devices are held with ``gpu_milli`` thousandths of each: a share under 1000 is
    of one device. ``gpu_models`` are those allowed, none means any.
    """

    role: str
    count: int = 1
    cpus_milli: int = 1000
    memory_bytes: int = 2 * 2**30
    gpus: int = 0
    gpu_milli: int = 1000
    gpu_models: tuple[str, ...] = ()
    topology: Topology | None = None

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
        if not 1 <= self.gpu_milli <= 1000 or (self.gpu_milli < 1000 and self.gpus != 1):
            raise InvalidRequest(
                f"a share must be of one GPU and at most all of it, got {self.gpu_milli / 1000:g} "
                f"of {self.gpus} GPUs"
            )

    @property
    def wanted_topology(self) -> Topology:
        """Return the topology asked for, or the role's own."""
        return self.topology or _TOPOLOGIES.get(self.role, Topology.PACK)

    @property
    def all_gpus_milli(self) -> int:
        """Return the GPUs of all slots together, in thousandths."""
        return self.count * self.gpus * self.gpu_milli


@dataclass(frozen=True, slots=True)
class Slot:
    """A share of one host, held by a lease: CPUs, memory, GPU devices, ports.

    ``gpu_milli`` is the share of each device, in thousandths.
    """

    role: str
    index: int
    host: str
    address: str
    cpus_milli: int
    memory_bytes: int
    gpus: tuple[int, ...] = ()
    ports: tuple[int, ...] = ()
    gpu_milli: int = 1000

    @property
    def all_gpus_milli(self) -> int:
        """Return the GPUs held, in thousandths."""
        return len(self.gpus) * self.gpu_milli

    @property
    def name(self) -> str:
        """Return the slot's name within its lease, ``worker-0``."""
        return f"{self.role}-{self.index}"

    def port(self, turn: int) -> int:
        """Return the port for a job's turn (from 1): another one than the last turn's."""
        return self.ports[(turn - 1) % len(self.ports)]
