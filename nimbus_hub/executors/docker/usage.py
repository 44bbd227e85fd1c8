"""What containers use, as their engines tell it: CPU time, memory and network.

An engine forgets the figures of a container when it ends: what was seen last is what counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nimbus_hub.executors.docker.containers import container_name
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.model.replica import Usage

__all__ = ["EngineUsage", "usage_of"]


@dataclass(slots=True)
class EngineUsage:
    """Asks engines, and remembers what replicas that run have used."""

    _last: dict[str, Usage] = field(default_factory=dict)

    async def read(self, running: Mapping[str, EngineClient]) -> dict[str, Usage]:
        """Return what replicas used, by id; those that are not asked for are forgotten."""
        self._last = {key: used for key, used in self._last.items() if key in running}
        found = await asyncio.gather(
            *(client.call(client.stats, container_name(key)) for key, client in running.items()),
            return_exceptions=True,
        )
        for replica_id, values in zip(running, found, strict=True):
            used = usage_of(values) if isinstance(values, dict) else None
            last = self._last.get(replica_id)
            if used is not None and (last is None or used.cpu_seconds >= last.cpu_seconds):
                self._last[replica_id] = used
        return dict(self._last)

    def cpu_seconds(self, replica_id: str) -> float | None:
        """Return the CPU time that was seen last."""
        used = self._last.get(replica_id)
        return None if used is None else used.cpu_seconds


def usage_of(values: Mapping[str, Any]) -> Usage | None:
    """Read an engine's figures; None of a container that does not run."""
    cpu = values.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0)
    memory = values.get("memory_stats", {})
    if not cpu:
        return None
    stats = memory.get("stats", {})
    # Of control groups, version 1 and 2: files that were read are no need of the container's.
    cached = stats.get("total_inactive_file", stats.get("inactive_file", 0))
    # None where it has the host's own.
    networks = (values.get("networks") or {}).values()
    return Usage(
        cpu / 1e9,
        max(0, memory.get("usage", 0) - cached),
        received_bytes=sum(each["rx_bytes"] for each in networks),
        sent_bytes=sum(each["tx_bytes"] for each in networks),
    )
