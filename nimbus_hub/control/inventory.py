"""The inventory: which hosts there are, what they have, and who runs replicas there.

Three have a say. Executors tell the hosts they find, the cluster file declares hosts and
wins over what is found, and what operators said (drain) is laid over both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from nimbus_hub.control.cluster_file import ClusterFile
from nimbus_hub.control.host_merge import declared_over_found, marked, silenced
from nimbus_hub.control.records import Records
from nimbus_hub.errors import Conflict, InvalidRequest, NotFound, Unavailable
from nimbus_hub.executors.base import Executor, HostChecker, OnChange
from nimbus_hub.model.check import HostCheck
from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.host import Host, HostMark, HostState

__all__ = ["LOCAL", "Inventory"]

log = logging.getLogger(__name__)

LOCAL = "local"
"""The executor of the service's own machine, which declared hosts of it stand for."""

_Merged = dict[str, tuple[Host, int]]
"""Each host before marks, by name, and the place of its executor."""

_FILE_SECONDS = 1.0
_NO_CLUSTER = Cluster()


class Inventory:
    """All hosts, by the last word of who has a say."""

    def __init__(
        self,
        executors: Sequence[Executor],
        *,
        names: Sequence[str] = (LOCAL,),
        file: ClusterFile | None = None,
        records: Records | None = None,
    ) -> None:
        """Ask these executors; declared hosts mean them by ``names``.

        Without ``records`` nothing can be drained, without ``file`` nothing is declared.
        Blocks while what was drained before is read.
        """
        self._executors = tuple(executors)
        self._names = tuple(names)
        self._file = file
        self._records = records
        self._answers: dict[int, tuple[Host, ...]] = {}
        self._silent: dict[int, str] = {}
        marks = records.store.host_marks() if records else ()
        self._marks: dict[str, HostMark] = {mark.name: mark for mark in marks}
        self._runs: dict[str, Executor] = {}
        self._unmarked: dict[str, Host] = {}
        self._by_name: dict[str, Host] = {}
        self._hosts: tuple[Host, ...] = ()

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Return all hosts, by name; the same tuple as long as nothing changes."""
        return self._hosts

    @property
    def cluster(self) -> Cluster:
        """Return what the operator configured."""
        return self._file.cluster if self._file else _NO_CLUSTER

    @property
    def file_error(self) -> str:
        """Return why the cluster file is not in force as it is now, empty if it is."""
        return self._file.error if self._file else ""

    @property
    def executors(self) -> tuple[Executor, ...]:
        """Return all who run replicas."""
        return self._executors

    @property
    def is_complete(self) -> bool:
        """Tell whether every executor has told its hosts since the service started."""
        return len(self._answers) == len(self._executors)

    async def refresh(self) -> None:
        """Ask every executor for its hosts; those of one that does not answer are down.

        Raises InvalidRequest for a name that is given twice, and then changes nothing.
        """
        answers, silent = dict(self._answers), dict[int, str]()
        for place, executor in enumerate(self._executors):
            try:
                answers[place] = await executor.hosts()
            except Unavailable as error:
                log.warning("hosts kept as last seen, but down: %s", error)
                silent[place] = error.message
        merged = self._merge(answers)
        self._answers, self._silent = answers, silent
        self._take(merged)

    async def reload(self) -> bool:
        """Read the cluster file again if it changed; tell whether what it says did.

        Raises InvalidRequest for a name that executors give twice.
        """
        if self._file is None or not await asyncio.to_thread(self._file.reload):
            return False
        self._take(self._merge(self._answers))
        return True

    async def follow_file(self, on_change: Callable[[], None]) -> None:
        """Keep reading the cluster file as it changes, until cancelled."""
        while self._file is not None:
            await asyncio.sleep(_FILE_SECONDS)
            try:
                if await self.reload():
                    on_change()
            except InvalidRequest as error:
                log.error("hosts stay as they were: %s", error.message)

    async def follow_hosts(
        self, changed: Callable[[], Awaitable[None]], on_change: Callable[[], None]
    ) -> None:
        """Ask for the hosts again each time that ``changed`` returns, until cancelled."""
        while True:
            await changed()
            try:
                await self.refresh()
            except InvalidRequest as error:
                log.error("hosts stay as they were: %s", error.message)
            else:
                on_change()

    async def check(self, name: str) -> tuple[HostCheck, ...]:
        """Return what works on a host, looked at now; raise NotFound for no such host.

        Raises Conflict for one of an executor that has nothing to check.
        """
        if name not in self._by_name:
            raise NotFound(f"there is no host {name!r}; see: nimbus hosts")
        executor = self.executor(name)
        if not isinstance(executor, HostChecker):
            kind = self._by_name[name].executor
            raise Conflict(f"host {name} is of the executor {kind}, which has nothing to check")
        return await executor.check_host(name)

    async def drain(self, name: str, reason: str, by: str) -> Host:
        """Have a host take nothing new until :meth:`undrain`; raise NotFound for none."""
        records = self._writable(name)
        now = records.clock.now()
        mark = await records.read(records.store.mark_host, name, reason, by, now)
        self._marks[name] = mark
        log.info("host %s is drained by %s: %s", name, by, reason or "no reason given")
        return self._remark(name, records)

    async def undrain(self, name: str) -> Host:
        """Take back what :meth:`drain` said; raise NotFound for no such host.

        Raises Conflict if it is the cluster file that drains the host.
        """
        records = self._writable(name)
        if name not in self._marks and self._by_name[name].state is HostState.DRAINING:
            raise Conflict(f"host {name} is declared to be draining: change it in the cluster file")
        await records.read(records.store.unmark_host, name)
        if self._marks.pop(name, None):
            log.info("host %s takes new slots again", name)
        return self._remark(name, records)

    def has_left(self, host_name: str) -> bool:
        """Tell whether a host is gone for good: nobody has it, and everybody was asked."""
        return self.is_complete and host_name not in self._by_name

    def refusal(self, host_name: str) -> str:
        """Return why a host takes nothing new, empty if it does."""
        host = self._by_name.get(host_name)
        if host is None:
            return f"host {host_name} is not in the inventory"
        if host.state is HostState.READY:
            return ""
        return f"host {host_name} is {host.state}: {host.state_reason}".removesuffix(": ")

    def executor(self, host_name: str) -> Executor:
        """Return who runs replicas on a host; raise Unavailable for one that is not there."""
        if host_name not in self._runs:
            since = "any more" if self.is_complete else "yet"
            raise Unavailable(f"host {host_name!r} is not in the inventory {since}")
        return self._runs[host_name]

    def keeper(self, host_name: str, replica_id: str) -> Executor:
        """Return who keeps what a replica has written, also once its host has left."""
        if host_name in self._runs:
            return self._runs[host_name]
        for executor in self._executors:
            if executor.keeps(replica_id):
                return executor
        return self.executor(host_name)

    def watch(self, on_change: OnChange) -> None:
        """Have every executor tell when a replica changed."""
        for executor in self._executors:
            executor.watch(on_change)

    def _merge(self, answers: Mapping[int, tuple[Host, ...]]) -> _Merged:
        """Return what file and executors say; raise InvalidRequest for a name given twice."""
        merged = {host.name: (host, self._place(host.executor)) for host in self.cluster.hosts}
        is_local_declared = any(host.executor == LOCAL for host in self.cluster.hosts)
        # Beside engines this machine is a host only if somebody says so.
        has_engines = bool(self.cluster.engines or self.cluster.swarms)
        replaced = self._place(LOCAL) if is_local_declared or has_engines else None
        found: set[str] = set()
        for place, hosts in answers.items():
            for host in hosts:
                if host.name in found:
                    raise InvalidRequest(f"two hosts are named {host.name!r}; names must differ")
                found.add(host.name)
                if host.name in merged:
                    merged[host.name] = declared_over_found(merged[host.name][0], host), place
                elif place != replaced:
                    merged[host.name] = host, place
        return merged

    def _place(self, executor: str) -> int:
        return self._names.index(executor)

    def _take(self, merged: _Merged) -> None:
        """Take over what was merged."""
        self._runs = {name: self._executors[place] for name, (_, place) in merged.items()}
        self._unmarked = {
            name: silenced(merged[name][0], self._silent.get(merged[name][1]))
            for name in sorted(merged)
        }
        self._show()

    def _show(self) -> None:
        """Lay the marks over the hosts."""
        found = {name: marked(host, self._marks.get(name)) for name, host in self._unmarked.items()}
        if found != self._by_name:
            self._by_name, self._hosts = found, tuple(found.values())

    def _remark(self, name: str, records: Records) -> Host:
        self._show()
        records.wake()
        return self._by_name[name]

    def _writable(self, name: str) -> Records:
        """Return where marks are kept; raise NotFound for no such host."""
        if self._records is None or name not in self._by_name:
            raise NotFound(f"there is no host {name!r}; see: nimbus hosts")
        return self._records
