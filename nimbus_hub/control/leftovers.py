"""Leftovers: replicas and sessions that may still run on hosts that were given up.

Their slots are free in the records, for who could tell? Once such a host is back it takes
nothing new until its leftovers were stopped and are gone.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta

from nimbus_hub.control.absences import Absences
from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.records import Records
from nimbus_hub.errors import NimbusError, NotFound
from nimbus_hub.model.host import Host, HostState
from nimbus_hub.model.replica import Replica, ReplicaState

__all__ = ["Leftovers"]

log = logging.getLogger(__name__)

_JOBS = 500
"""So many of the newest jobs are looked at for leftovers when the service starts."""


class Leftovers:
    """Remembers leftovers, keeps their hosts from new slots, and stops them."""

    def __init__(
        self, records: Records, inventory: Inventory, absences: Absences, grace: timedelta
    ) -> None:
        self._records = records
        self._inventory = inventory
        self._absences = absences
        self._grace_seconds = grace.total_seconds()
        self._hosts: dict[str, str] = {}
        self._looked_through: set[str] = set()

    @property
    def are_within_reach(self) -> bool:
        """Tell whether there are any on a host that is back, or may be."""
        return any(map(self._absences.is_back, self._hosts.values())) or bool(self._unknown())

    def add(self, replica: Replica) -> None:
        """Remember a replica that is lost, and may not know it."""
        self._hosts[replica.id] = replica.host

    async def load(self) -> None:
        """Learn from the store what was lost before the service started."""
        store = self._records.store
        for job in await self._records.read(store.jobs, limit=_JOBS):
            for replica in await self._records.replicas(job.id):
                if replica.state is ReplicaState.LOST:
                    self.add(replica)

    def fenced(self, hosts: tuple[Host, ...]) -> tuple[Host, ...]:
        """Return hosts as the scheduler may use them: none with leftovers takes new slots."""
        unclean = {*self._hosts.values(), *self._unknown()}
        if not unclean:
            return hosts
        return tuple(_fenced(host) if host.name in unclean else host for host in hosts)

    async def clear(self) -> None:
        """Stop those on hosts that are back, and forget those that are gone."""
        for replica_id, host in list(self._hosts.items()):
            if self._absences.is_back(host):
                try:
                    await self._clear(replica_id, host)
                except NimbusError as error:
                    log.warning("replica %s may still run on host %s: %s", replica_id, host, error)
        await asyncio.gather(*map(self._look_through, self._unknown()))

    async def sweep(self) -> None:
        """Remove the containers of sessions that are over from all hosts that are up."""
        await asyncio.gather(*map(self._look_through, self._absences.up))

    def _unknown(self) -> list[str]:
        """Return the hosts that were not looked through for sessions since they are up."""
        self._looked_through &= self._absences.up
        unknown = self._absences.up - self._looked_through
        return [host for host in unknown if self._inventory.session_host(host) is not None]

    async def _look_through(self, host: str) -> None:
        """Remove what is left of sessions that are over; those of other services stay."""
        keeper = self._inventory.session_host(host)
        if keeper is None:
            return
        try:
            for lease_id in await keeper.sessions(host):
                if await self._is_over(lease_id):
                    log.warning("lease %s is over: its session on %s is removed", lease_id, host)
                    await keeper.remove_session(host, lease_id)
        except NimbusError as error:
            log.warning("host %s may still have sessions that are over: %s", host, error)
            return
        if host not in self._looked_through:
            self._looked_through.add(host)
            self._records.wake()

    async def _is_over(self, lease_id: str) -> bool:
        try:
            return (await self._records.lease(lease_id)).state.is_end
        except NotFound:
            return False

    async def _clear(self, replica_id: str, host: str) -> None:
        executor = self._inventory.executor(host)
        status = await executor.poll(replica_id)
        if status.state is not ReplicaState.CREATED and not status.state.is_end:
            await executor.stop(replica_id, self._grace_seconds)
            status = await executor.poll(replica_id)
        if status.state is ReplicaState.CREATED or status.state.is_end:
            del self._hosts[replica_id]
            self._records.wake()


def _fenced(host: Host) -> Host:
    if host.state is not HostState.READY:
        return host
    reason = "what was given up while it was away is being stopped"
    return replace(host, state=HostState.DRAINING, state_reason=reason)
