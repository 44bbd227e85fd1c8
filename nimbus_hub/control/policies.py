"""Policies: what holds for a lease, by its kind, its owner's group and its size.

The settings say what holds by default, the rules of the cluster file change it. Both are
asked anew each time, so that a change of the file counts for leases that run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from nimbus_hub.model.cluster import Cluster
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.policy import LeasePolicy, LeaseRule, ruled
from nimbus_hub.model.slot import SlotGroup

__all__ = ["Policies"]

K = TypeVar("K")

_KEPT = 50_000
_Key = tuple[LeaseKind, str | None, str, float]


class Policies:
    """Finds the policy of a lease; ``cluster`` is asked for the rules as they are now."""

    def __init__(
        self, defaults: Mapping[LeaseKind, LeasePolicy], cluster: Callable[[], Cluster]
    ) -> None:
        self._defaults = defaults
        self._cluster = cluster
        self._read: Cluster | None = None
        self._group_of: dict[str, str] = {}
        self._found: dict[_Key, LeasePolicy] = {}
        self._of_lease: dict[str, LeasePolicy] = {}

    @property
    def cluster(self) -> Cluster:
        """Return what the operator configured, as it is now."""
        return self._cluster()

    def of(self, lease: Lease) -> LeasePolicy:
        """Return what holds for a lease now."""
        if not self._rules():
            return self._defaults[lease.kind]
        # Asked for every live lease in every pass.
        found = self._of_lease.get(lease.id)
        if found is None:
            found = self.find(lease.kind, lease.owner, lease.size, lease.groups)
            _keep(self._of_lease, lease.id, found)
        return found

    def find(
        self, kind: LeaseKind, owner: str, size: str = "", groups: Sequence[SlotGroup] = ()
    ) -> LeasePolicy:
        """Return what would hold for a lease of this kind, owner, size and these slots."""
        rules = self._rules()
        if not rules:
            return self._defaults[kind]
        key = kind, self._group_of.get(owner), size, _gpus(groups)
        if key not in self._found:
            _keep(self._found, key, ruled(self._defaults[kind], rules, *key))
        return self._found[key]

    def _rules(self) -> Sequence[LeaseRule]:
        """Return the rules as they are now; forget what was found by others."""
        cluster = self._cluster()
        if cluster is not self._read:
            self._read = cluster
            self._group_of = {user: each.name for each in cluster.groups for user in each.users}
            self._found.clear()
            self._of_lease.clear()
        return cluster.leases


def _keep(found: dict[K, LeasePolicy], key: K, policy: LeasePolicy) -> None:
    """Keep what was found, but not without bound: it is found again soon enough."""
    if len(found) >= _KEPT:
        found.clear()
    found[key] = policy


def _gpus(groups: Sequence[SlotGroup]) -> float:
    """Return how many GPUs are held in all, shares counted."""
    return sum(each.count * each.gpus * each.gpu_milli for each in groups) / 1000
