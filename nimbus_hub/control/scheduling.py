"""Scheduling: the scheduler's questions asked of how things stand, and its answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.leftovers import Leftovers
from nimbus_hub.control.mix import REMEMBERED, Mix
from nimbus_hub.control.records import Records
from nimbus_hub.control.usage import Usage
from nimbus_hub.control.view import scheduler_snapshot, waiting_of
from nimbus_hub.model.cluster import Cluster, Rules
from nimbus_hub.model.host import Host
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.decisions import Plan, Preview
from nimbus_hub.scheduler.explain import preview, refuse
from nimbus_hub.scheduler.plan import plan
from nimbus_hub.scheduler.policies import ordering, placement
from nimbus_hub.scheduler.snapshot import Snapshot, Waiting

__all__ = ["Policy", "Scheduling", "ShippedPolicy"]

log = logging.getLogger(__name__)

_SHIPPED = (Rules().placement, Rules().ordering)

_HALF_LIVES = 10
"""What ended longer ago counts less than a thousandth."""

_REQUESTS = 5 * REMEMBERED

_POSSIBLE = 10_000
"""How many different requests are known to be possible at most."""


class Policy(Protocol):
    """What decides; the one that is shipped reads the rules in the snapshot's cluster."""

    def plan(self, snapshot: Snapshot, now: datetime) -> Plan:
        """Return who starts now, who is stopped for it, and why the others wait."""
        ...

    def preview(self, snapshot: Snapshot, waiting: Waiting, now: datetime) -> Preview:
        """Return what would become of a request that came now."""
        ...

    def refuse(
        self, groups: Sequence[SlotGroup], hosts: Sequence[Host], wishes: Wishes, cluster: Cluster
    ) -> None:
        """Raise Impossible for what these hosts could never run, were they empty."""
        ...


class ShippedPolicy:
    """The scheduler of this package, with the placement and the order that the rules name."""

    def plan(self, snapshot: Snapshot, now: datetime) -> Plan:
        """Return who starts now; where a plug-in fails the shipped policies decide."""
        rules = snapshot.cluster.rules
        try:
            return plan(snapshot, now)
        except Exception:
            if (rules.placement, rules.ordering) == _SHIPPED:
                raise
            log.exception("placement %s or order %s failed", rules.placement, rules.ordering)
            own = Rules()
            return plan(snapshot, now, placement(own.placement), ordering(own.ordering))

    preview: Callable[[Snapshot, Waiting, datetime], Preview] = staticmethod(preview)
    refuse = staticmethod(refuse)


class Scheduling:
    """Puts together what the scheduler is told, and asks it."""

    def __init__(
        self, records: Records, inventory: Inventory, leftovers: Leftovers, policy: Policy
    ) -> None:
        self._records = records
        self._inventory = inventory
        self._leftovers = leftovers
        self._policy = policy
        self._usage = Usage(self.cluster.rules.half_life, records.clock.now())
        self._mix = Mix()
        self._possible: set[tuple[tuple[SlotGroup, ...], Wishes]] = set()
        self._possible_on: tuple[tuple[Host, ...], Cluster] = (), self.cluster
        records.listen(self._hear)

    @property
    def cluster(self) -> Cluster:
        """Return what the operator configured."""
        return self._inventory.cluster

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Return all hosts; one on which something is left over takes nothing new."""
        return self._leftovers.fenced(self._inventory.hosts)

    async def load(self) -> None:
        """Learn from the store what was used and asked for before the service started."""
        await self._load_usage()
        newest = await self._records.read(self._records.store.leases, limit=_REQUESTS)
        self._mix.begin(reversed(newest))

    async def refresh(self) -> None:
        """Count what was used anew if the operator changed how it fades."""
        if self.cluster.rules.half_life != self._usage.half_life:
            await self._load_usage()

    def snapshot(self, leases: Iterable[Lease], now: datetime) -> Snapshot:
        """Return how things stand with these live leases."""
        leases = tuple(leases)
        usage = self._usage.at(now, leases)
        return scheduler_snapshot(self.hosts, leases, self.cluster, usage, self._mix.counts())

    def plan(self, snapshot: Snapshot, now: datetime) -> Plan:
        """Return who starts now, who is stopped for it, and why the others wait."""
        return self._policy.plan(snapshot, now)

    def preview(self, lease: Lease, leases: Iterable[Lease], now: datetime) -> Preview:
        """Return what would become of a drafted lease."""
        return self._policy.preview(self.snapshot(leases, now), waiting_of(lease), now)

    def refuse(self, lease: Lease) -> None:
        """Raise Impossible for a lease that could never be granted."""
        hosts, cluster = self.hosts, self.cluster
        if hosts is not self._possible_on[0] or cluster is not self._possible_on[1]:
            self._possible_on = hosts, cluster
            self._possible.clear()
        # People ask for the same few sizes again and again.
        asked = lease.groups, lease.wishes
        if asked not in self._possible:
            self._policy.refuse(lease.groups, hosts, lease.wishes, cluster)
            if len(self._possible) < _POSSIBLE:
                self._possible.add(asked)

    async def _load_usage(self) -> None:
        half_life = self.cluster.rules.half_life
        now = self._records.clock.now()
        since = now - _bounded(half_life)
        ended = await self._records.read(self._records.store.ended_since, since)
        self._usage.begin(ended, half_life, now)

    def _hear(self, written: Lease | Job) -> None:
        if not isinstance(written, Lease):
            return
        if written.state.is_end:
            self._usage.add(written, self._records.clock.now())
        elif written.version == 1:  # The next lease of a job that is queued again is no request.
            self._mix.add(written)


def _bounded(half_life: timedelta) -> timedelta:
    """Return for how long what was used counts, within what datetimes can tell."""
    return min(_HALF_LIVES * half_life, timedelta(days=3650))
