"""Why a request waits: a code and a sentence, looked up once for all that ask for the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cached_property

from nimbus_hub.model.host import HostState
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.scheduler.capacity import Capacity
from nimbus_hub.scheduler.decisions import ReasonCode
from nimbus_hub.scheduler.placement import Tightest
from nimbus_hub.scheduler.shortage import Return, absent, away_text, shortage
from nimbus_hub.scheduler.snapshot import Snapshot

__all__ = ["Reason", "Reasons"]

Reason = tuple[ReasonCode, str]


class Reasons:
    """What is missing in a pass; ``free`` is what is left when it has decided."""

    def __init__(
        self,
        snapshot: Snapshot,
        free: Capacity,
        returns: Callable[[], Iterable[Return]],
        now: datetime,
    ) -> None:
        self._snapshot = snapshot
        self._free = free
        self._returns = returns
        self._now = now
        self._known: dict[tuple[tuple[SlotGroup, ...], tuple[str, ...]], Reason] = {}

    def of(self, groups: tuple[SlotGroup, ...], datacenters: tuple[str, ...]) -> Reason:
        """Return why a gang does not fit in any of these datacenters now."""
        key = groups, datacenters
        if key not in self._known:
            self._known[key] = self._look(groups, datacenters)
        return self._known[key]

    def _look(self, groups: tuple[SlotGroup, ...], datacenters: tuple[str, ...]) -> Reason:
        names = [name for name in datacenters if name in self._everywhere.fitters]
        if datacenters and not names:
            where = " or ".join(datacenters)
            return ReasonCode.HOSTS_AWAY, f"waits for hosts in datacenter {where}: there are none"
        away = self._away(groups, names)
        if away:
            return ReasonCode.HOSTS_AWAY, f"waits for {away}"
        lack = shortage(self._free, groups, names, self._sorted, self._now)
        return ReasonCode.RESOURCES, lack

    def _away(self, groups: tuple[SlotGroup, ...], names: Iterable[str]) -> str:
        """Return the hosts without which a gang could not run even if nothing else did."""
        hosts = self._snapshot.hosts
        if all(host.state is HostState.READY for host in hosts):
            return ""
        missing = absent(groups, names, self._everywhere, self._ready)
        return away_text(missing) if missing else ""

    @cached_property
    def _sorted(self) -> list[Return]:
        return sorted(self._returns(), key=lambda each: each.at)

    @cached_property
    def _everywhere(self) -> Capacity:
        return Capacity(self._snapshot.hosts, self._snapshot.cluster.rules, {}, Tightest)

    @cached_property
    def _ready(self) -> Capacity:
        ready = [host for host in self._snapshot.hosts if host.state is HostState.READY]
        return Capacity(ready, self._snapshot.cluster.rules, {}, Tightest)
