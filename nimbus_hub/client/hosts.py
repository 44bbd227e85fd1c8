"""Hosts, as the service tells of them; see `resources`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Gpu", "Host", "HostCheck", "HostEngine", "HostList"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device, who holds it (``lease_id`` is the first), and why it is out of service."""

    index: int
    model: str
    memory_bytes: int
    free_milli: int
    lease_id: str | None
    lease_ids: tuple[str, ...]
    fault: str


@dataclass(frozen=True, slots=True)
class Host:
    """A host; ``state_reason`` says why it, or which of its GPUs, takes nothing."""

    name: str
    datacenter: str
    rack: str
    address: str
    state: str
    state_reason: str
    labels: dict[str, str]
    cpus_milli: int
    cpus_free_milli: int
    memory_bytes: int
    memory_free_bytes: int
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class HostCheck:
    """What was found on a host, and what to do about it if it is not as it must be."""

    name: str
    is_ok: bool
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class HostEngine:
    """Where a host's Docker engine is reached: ``tls`` is a directory of the service's machine.

    ``address`` is where other machines reach the host.
    """

    endpoint: str
    tls: str
    address: str


@dataclass(frozen=True, slots=True)
class HostList:
    """Hosts by name.

    Administrators are told why the cluster file is not in force as it is now; empty if it is.
    """

    items: tuple[Host, ...]
    cluster_file_error: str
