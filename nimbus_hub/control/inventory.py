"""The inventory: which hosts there are, what they have, and who runs replicas there."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nimbus_hub.errors import InvalidRequest, Unavailable
from nimbus_hub.executors.base import Executor, OnChange
from nimbus_hub.model.host import Host

__all__ = ["Inventory"]

log = logging.getLogger(__name__)


class Inventory:
    """The hosts of all executors, as they last told."""

    def __init__(self, executors: Sequence[Executor]) -> None:
        self._executors = tuple(executors)
        self._hosts: dict[str, tuple[Host, Executor]] = {}

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Return all hosts, by name."""
        return tuple(self._hosts[name][0] for name in sorted(self._hosts))

    async def refresh(self) -> None:
        """Ask every executor for its hosts; keep what was known of one that does not answer."""
        for executor in self._executors:
            try:
                found = await executor.hosts()
            except Unavailable as error:
                log.warning("hosts kept as last seen: %s", error)
                continue
            for name in [n for n, (_, owner) in self._hosts.items() if owner is executor]:
                del self._hosts[name]
            for host in found:
                if host.name in self._hosts:
                    raise InvalidRequest(f"two hosts are named {host.name!r}; names must differ")
                self._hosts[host.name] = (host, executor)

    def executor(self, host_name: str) -> Executor:
        """Return who runs replicas on a host; raise Unavailable for one that is not there."""
        if host_name not in self._hosts:
            raise Unavailable(f"host {host_name!r} is not in the inventory any more")
        return self._hosts[host_name][1]

    def watch(self, on_change: OnChange) -> None:
        """Have every executor tell when a replica changed."""
        for executor in self._executors:
            executor.watch(on_change)
