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
        self._answers: dict[int, tuple[Host, ...]] = {}
        self._hosts: dict[str, tuple[Host, Executor]] = {}

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Return all hosts, by name."""
        return tuple(self._hosts[name][0] for name in sorted(self._hosts))

    @property
    def executors(self) -> tuple[Executor, ...]:
        """Return all who run replicas."""
        return self._executors

    @property
    def is_complete(self) -> bool:
        """Tell whether every executor has told its hosts since the service started."""
        return len(self._answers) == len(self._executors)

    async def refresh(self) -> None:
        """Ask every executor for its hosts; keep what was known of one that does not answer.

        Raises InvalidRequest for a name that is given twice, and then changes nothing.
        """
        answers = dict(self._answers)
        for place, executor in enumerate(self._executors):
            try:
                answers[place] = await executor.hosts()
            except Unavailable as error:
                log.warning("hosts kept as last seen: %s", error)
        hosts: dict[str, tuple[Host, Executor]] = {}
        for place, found in answers.items():
            for host in found:
                if host.name in hosts:
                    raise InvalidRequest(f"two hosts are named {host.name!r}; names must differ")
                hosts[host.name] = (host, self._executors[place])
        self._answers, self._hosts = answers, hosts

    def has_left(self, host_name: str) -> bool:
        """Tell whether a host is gone for good: nobody has it, and everybody was asked."""
        return self.is_complete and host_name not in self._hosts

    def executor(self, host_name: str) -> Executor:
        """Return who runs replicas on a host; raise Unavailable for one that is not there."""
        if host_name not in self._hosts:
            since = "any more" if self.is_complete else "yet"
            raise Unavailable(f"host {host_name!r} is not in the inventory {since}")
        return self._hosts[host_name][1]

    def keeper(self, host_name: str) -> Executor:
        """Return who keeps what was written on a host, if that can be known once it has left."""
        if host_name not in self._hosts and len(self._executors) == 1:
            return self._executors[0]
        return self.executor(host_name)

    def watch(self, on_change: OnChange) -> None:
        """Have every executor tell when a replica changed."""
        for executor in self._executors:
            executor.watch(on_change)
