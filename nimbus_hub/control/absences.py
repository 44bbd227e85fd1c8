"""Absences: hosts that left the inventory, or have been down for longer than is waited."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from nimbus_hub.clock import Clock
from nimbus_hub.control.inventory import Inventory
from nimbus_hub.model.host import HostState
from nimbus_hub.model.lease import Lease

__all__ = ["Absences"]


class Absences:
    """Tells which hosts are given up, and why; ``up`` are those that are there and not down.

    Since when a host is down is known from when the service saw it: after a restart, or when
    it was away otherwise, it is waited for anew.
    """

    def __init__(self, inventory: Inventory, clock: Clock, patience: timedelta) -> None:
        self._inventory = inventory
        self._clock = clock
        self._patience = patience
        self._down_since: dict[str, datetime] = {}
        self.up: frozenset[str] = frozenset()

    def look(self) -> None:
        """Note which hosts are down now."""
        now = self._clock.now()
        hosts = self._inventory.hosts
        down = [host.name for host in hosts if host.state is HostState.DOWN]
        self._down_since = {name: self._down_since.get(name, now) for name in down}
        self.up = frozenset(host.name for host in hosts).difference(down)

    def begin_anew(self, now: datetime) -> None:
        """Wait anew for what is down now."""
        self._down_since = dict.fromkeys(self._down_since, now)

    def is_back(self, host: str) -> bool:
        """Tell whether a host is there and up."""
        return not self._inventory.has_left(host) and host not in self._down_since

    def reason(self, host: str) -> str:
        """Return why a host is given up, or nothing if it is not."""
        if self._inventory.has_left(host):
            return f"host {host} is not in the inventory any more"
        since = self._down_since.get(host)
        if since is None or self._clock.now() < since + self._patience:
            return ""
        return f"host {host} is down since {since:%Y-%m-%d %H:%M} UTC"

    def reason_for(self, lease: Lease) -> str:
        """Return why a lease cannot go on, one of its hosts being given up, or nothing."""
        # Asked for each lease in each pass, and hardly ever is a host away.
        hosts = {slot.host: None for slot in lease.slots if slot.host not in self.up}
        return next(filter(None, map(self.reason, hosts)), "")

    def next_due(self, leases: Iterable[Lease]) -> datetime | None:
        """Return when the next host that leases are on is given up, if it stays down."""
        if not self._down_since:
            return None
        used = {slot.host for lease in leases for slot in lease.slots}
        due = [since + self._patience for host, since in self._down_since.items() if host in used]
        return min(due, default=None)
