"""Accounting: who held what, for how long, and used how much of it.

What is held follows from when leases were granted and ended, and what they hold, and is
added up exactly, in whole numbers. How busy it was is known for the whole of a lease; of one
that reaches beyond the period, or over midnight, it counts in proportion to the time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.meter import Meter
from nimbus_hub.control.records import Records
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.usage import LeaseUse

__all__ = ["Account", "Accounting", "By", "Period", "Report", "accounts"]

_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_HOUR = 3_600_000_000
_UNKNOWN = "unknown"
Models = Mapping[tuple[str, int], str]
"""The model of a device by its host's name and its index."""


class By(StrEnum):
    """What amounts are added up by. Days are UTC."""

    USER = "user"
    GROUP = "group"
    KIND = "kind"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Period:
    """The time from ``since`` until just before ``until``; raises InvalidRequest for none."""

    since: datetime
    until: datetime

    def __post_init__(self) -> None:
        """Refuse a period that ends before it begins."""
        if self.since >= self.until:
            raise InvalidRequest(
                f"since must be before until, got {self.since:%Y-%m-%d %H:%M} and "
                f"{self.until:%Y-%m-%d %H:%M} UTC"
            )


@dataclass(slots=True)
class Account:
    """What was held and used, added up.

    Held amounts are whole: thousandths of GPUs and CPUs, or bytes, times microseconds.
    ``models`` is what of the GPUs was of which model. Used are seconds.
    """

    lease_ids: set[str] = field(default_factory=set)
    gpus_milli: int = 0
    cpus_milli: int = 0
    memory_bytes: int = 0
    models: Counter[str] = field(default_factory=Counter)
    gpu_seconds: float = 0.0
    cpu_seconds: float = 0.0

    def add(self, use: LeaseUse, held: timedelta, share: float, models: Models) -> None:
        """Add what a lease held for some time, and that share of what it used."""
        time = held // _MICROSECOND
        self.lease_ids.add(use.lease_id)
        for slot in use.slots:
            self.gpus_milli += slot.all_gpus_milli * time
            self.cpus_milli += slot.cpus_milli * time
            self.memory_bytes += slot.memory_bytes * time
            for index in slot.gpus:
                model = models.get((slot.host, index), _UNKNOWN)
                self.models[model] += slot.gpu_milli * time
        self.gpu_seconds += use.gpu_seconds * share
        self.cpu_seconds += use.cpu_seconds * share

    @property
    def gpu_hours_held(self) -> float:
        """Return GPUs times hours."""
        return self.gpus_milli / 1000 / _HOUR

    @property
    def cpu_hours_held(self) -> float:
        """Return CPUs times hours."""
        return self.cpus_milli / 1000 / _HOUR

    @property
    def gib_hours_held(self) -> float:
        """Return GiB of memory times hours."""
        return self.memory_bytes / 2**30 / _HOUR

    @property
    def model_hours_held(self) -> dict[str, float]:
        """Return GPUs times hours by model."""
        return {model: milli / 1000 / _HOUR for model, milli in sorted(self.models.items())}


@dataclass(frozen=True, slots=True)
class Report:
    """Accounts by key, and all together. The key of who is in no group is empty."""

    period: Period
    by: By
    items: Mapping[str, Account]
    total: Account


class Accounting:
    """Makes reports from what the store keeps."""

    def __init__(self, records: Records, inventory: Inventory, meter: Meter) -> None:
        self._records = records
        self._inventory = inventory
        self._meter = meter

    async def report(self, period: Period, by: By, owner: str | None) -> Report:
        """Add up a period, of one owner or of all; what is live counts until now."""
        now = self._records.clock.now()
        # Not in the store's one thread: a year of leases must not keep writers waiting.
        uses = await asyncio.to_thread(self._records.store.uses, period.since, period.until, owner)
        counted = [self._meter.counted(use) for use in uses]
        hosts, cluster = self._inventory.hosts, self._inventory.cluster
        models = {(host.name, gpu.index): gpu.model for host in hosts for gpu in host.gpus}
        groups = {user: group.name for group in cluster.groups for user in group.users}
        return await asyncio.to_thread(
            accounts, counted, period, now, by, groups=groups, models=models
        )


def accounts(
    uses: Iterable[LeaseUse],
    period: Period,
    now: datetime,
    by: By,
    *,
    groups: Mapping[str, str],
    models: Models,
) -> Report:
    """Add up what leases held within a period, and their share of what they used.

    ``groups`` has the group of a user, ``models`` the models of devices, where they are known.
    """
    key = _key(by, groups)
    found: dict[str, Account] = {}
    total = Account()
    for use in uses:
        end = use.ended_at or now
        for start, stop in _days(max(use.granted_at, period.since), min(end, period.until)):
            share = (stop - start) / (end - use.granted_at)
            for account in (found.setdefault(key(use, start), Account()), total):
                account.add(use, stop - start, share, models)
    return Report(period, by, dict(sorted(found.items())), total)


def _days(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Cut a time at every midnight in UTC; nothing if it is none."""
    start = start.astimezone(UTC)
    while start < end:
        midnight = start.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY
        yield start, min(end, midnight)
        start = midnight


def _key(by: By, groups: Mapping[str, str]) -> Callable[[LeaseUse, datetime], str]:
    """Return what tells the account of a part of a lease, which begins at a moment."""
    match by:
        case By.USER:
            return lambda use, start: use.owner
        case By.GROUP:
            return lambda use, start: groups.get(use.owner, "")
        case By.KIND:
            return lambda use, start: use.kind.value
        case By.DAY:
            return lambda use, start: f"{start:%Y-%m-%d}"
