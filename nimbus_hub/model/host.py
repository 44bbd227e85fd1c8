"""Hosts: machines with CPUs, memory and GPUs, in a rack, in a datacenter."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.network import read_network

__all__ = ["Device", "Gpu", "HeldMemory", "Host", "HostMark", "HostState"]


class HostState(StrEnum):
    """Whether a host takes new slots."""

    READY = "ready"
    DRAINING = "draining"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device of a host; ``index`` is what CUDA_VISIBLE_DEVICES means by it.

    One with a ``uuid`` is known to its driver. ``fault`` says for people why it is out of service:
    it is given to nobody while there is one.
    """

    index: int
    model: str
    memory_bytes: int = 0
    uuid: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """Which device of which host."""

    host: str
    index: int


@dataclass(frozen=True, slots=True)
class HeldMemory:
    """What of a device's memory programs hold; ``pids`` are the host's, where they are known."""

    bytes: int
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HostMark:
    """What an operator said of a host; it is laid over what the host's executor says."""

    name: str
    reason: str
    marked_by: str
    marked_at: datetime
    state: HostState = HostState.DRAINING


@dataclass(frozen=True, slots=True)
class Host:
    """A machine as the scheduler sees it: what it has, not what is free.

    ``address`` is the IPv4 address its replicas are reached at; hosts that share an
    address share its ports. ``first_port`` to ``last_port`` may be given to slots.
    ``network`` is an IPv4 network of which each slot gets an address of its own, with all its
    ports; hosts that name the same network share its addresses. Empty: slots share ``address``.
    ``state_reason`` says for people why it is draining or down.
    """

    name: str
    cpus_milli: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    address: str = "127.0.0.1"
    datacenter: str = "default"
    rack: str = "default"
    executor: str = "local"
    state: HostState = HostState.READY
    first_port: int = 20000
    last_port: int = 29999
    labels: dict[str, str] = field(default_factory=dict)
    state_reason: str = ""
    network: str = ""

    def __post_init__(self) -> None:
        """Refuse a host that could not hold anything."""
        if self.cpus_milli <= 0 or self.memory_bytes <= 0:
            raise InvalidRequest(f"host {self.name} must have CPUs and memory")
        if len({gpu.index for gpu in self.gpus}) != len(self.gpus):
            raise InvalidRequest(f"host {self.name} names a GPU index twice")
        if not 1024 <= self.first_port <= self.last_port <= 65535:
            raise InvalidRequest(f"host {self.name} must have ports within 1024-65535")
        if self.network:
            read_network(self.network)
