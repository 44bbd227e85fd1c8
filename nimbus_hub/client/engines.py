"""Docker engines that are to be hosts, as the service answers."""

from __future__ import annotations

from dataclasses import dataclass

from nimbus_hub.client.hosts import HostCheck

__all__ = ["EngineCheck"]


@dataclass(frozen=True, slots=True)
class EngineCheck:
    """What works on an engine that is to be a host.

    ``lines`` are those of the cluster file that name it; ``file`` is where that is on the
    service's machine, empty if it has none.
    """

    items: tuple[HostCheck, ...]
    lines: str
    file: str
