"""The control layer, put together."""

from __future__ import annotations

from collections.abc import Sequence

from nimbus_hub.clock import Clock
from nimbus_hub.control.bus import Bus
from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.jobs import Jobs
from nimbus_hub.control.leases import Leases
from nimbus_hub.control.logs import Logs
from nimbus_hub.control.metrics import Metrics
from nimbus_hub.control.reaper import Reaper
from nimbus_hub.control.reconciler import Reconciler
from nimbus_hub.control.records import Records
from nimbus_hub.control.runner import Runner
from nimbus_hub.control.sessions import Sessions
from nimbus_hub.control.settings import Settings
from nimbus_hub.control.snapshots import Snapshots
from nimbus_hub.executors.base import Executor
from nimbus_hub.store.snapshots import SnapshotStore
from nimbus_hub.store.store import Store

__all__ = ["Control"]


class Control:
    """All of the control layer; made by the composition root, used by the API."""

    def __init__(
        self,
        *,
        store: Store,
        snapshots: SnapshotStore,
        executors: Sequence[Executor],
        sessions: Sessions,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.snapshots = Snapshots(snapshots)
        self.bus = Bus()
        self.metrics = Metrics()
        self.records = Records(store, self.bus, clock)
        self.inventory = Inventory(executors)
        self.leases = Leases(self.records, self.inventory, settings)
        self.jobs = Jobs(self.records, self.leases, self.inventory, self.snapshots)
        self.logs = Logs(self.records, self.jobs, self.inventory)
        reaper = Reaper(self.records, self.leases, settings, sessions, self.metrics)
        runner = Runner(self.records, self.inventory, settings)
        self.reconciler = Reconciler(
            self.records,
            self.inventory,
            self.leases,
            reaper,
            runner,
            self.metrics,
            sweep=settings.sweep,
        )

    def close(self) -> None:
        """Wait for the last write."""
        self.snapshots.close()
        self.records.close()
