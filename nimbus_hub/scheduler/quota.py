"""Quotas: what a user, and a group of users, may hold at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nimbus_hub.model.cluster import Cluster, Quota
from nimbus_hub.model.quantities import format_cpus
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.scheduler.snapshot import Holding, Waiting

__all__ = ["Held", "Quotas"]


@dataclass(slots=True)
class Held:
    """What is held, or asked for."""

    gpus_milli: int = 0
    cpus_milli: int = 0
    leases: int = 0

    @classmethod
    def by_slots(cls, slots: Iterable[Slot]) -> Held:
        """Return what a lease holds."""
        held = cls(leases=1)
        for slot in slots:
            held.gpus_milli += slot.all_gpus_milli
            held.cpus_milli += slot.cpus_milli
        return held

    @classmethod
    def by_groups(cls, groups: Iterable[SlotGroup]) -> Held:
        """Return what a lease asks for."""
        held = cls(leases=1)
        for group in groups:
            held.gpus_milli += group.all_gpus_milli
            held.cpus_milli += group.count * group.cpus_milli
        return held

    def add(self, other: Held) -> None:
        """Hold that too."""
        self.gpus_milli += other.gpus_milli
        self.cpus_milli += other.cpus_milli
        self.leases += other.leases


class Quotas:
    """Who holds how much, against what is allowed."""

    def __init__(self, cluster: Cluster, holdings: Iterable[Holding]) -> None:
        self._cluster = cluster
        self._users: dict[str, Held] = {}
        self._groups: dict[str, Held] = {}
        for holding in holdings:
            self._add(holding.owner, Held.by_slots(holding.slots))

    def add(self, waiting: Waiting) -> None:
        """Count what was granted in this pass."""
        self._add(waiting.owner, Held.by_groups(waiting.groups))

    def excess(self, waiting: Waiting) -> str | None:
        """Return why a request would be over a quota now, or None."""
        asked = Held.by_groups(waiting.groups)
        for who, quota, held in self._bounds(waiting.owner):
            over = _over(quota, held, asked)
            if over is not None:
                return f"{who} {over}"
        return None

    def _add(self, owner: str, held: Held) -> None:
        self._users.setdefault(owner, Held()).add(held)
        group = self._cluster.group_of(owner)
        if group is not None:
            self._groups.setdefault(group.name, Held()).add(held)

    def _bounds(self, owner: str) -> Iterable[tuple[str, Quota, Held]]:
        yield owner, self._cluster.user_quota(owner), self._users.get(owner, Held())
        group = self._cluster.group_of(owner)
        if group is not None:
            yield f"group {group.name}", group.quota, self._groups.get(group.name, Held())


def _amounts(quota: Quota, held: Held, asked: Held) -> list[tuple[str, int | None, int, int]]:
    """Return what is bounded, by how much, what is held of it, and what is asked for."""
    return [
        ("GPUs", quota.gpus_milli, held.gpus_milli, asked.gpus_milli),
        ("CPUs", quota.cpus_milli, held.cpus_milli, asked.cpus_milli),
        ("leases", quota.leases, held.leases, asked.leases),
    ]


def _over(quota: Quota, held: Held, asked: Held) -> str | None:
    """Return what is held of the first bound that both together exceed."""
    for what, most, has, wanted in _amounts(quota, held, asked):
        if most is None or not wanted or has + wanted <= most:
            continue
        if wanted > most:
            return (
                f"may hold at most {_text(most, what)} {what} at once, and "
                f"{_text(wanted, what)} are asked for; an administrator can change that"
            )
        return (
            f"holds {_text(has, what)} of the {_text(most, what)} {what} allowed at once; "
            "it waits until enough is given back"
        )
    return None


def _text(amount: int, what: str) -> str:
    return str(amount) if what == "leases" else format_cpus(amount)
