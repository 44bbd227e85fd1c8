"""The control layer, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nimbus_hub.clock import Clock
from nimbus_hub.control.absences import Absences
from nimbus_hub.control.accounting import Accounting
from nimbus_hub.control.activity import Activity
from nimbus_hub.control.bus import Bus
from nimbus_hub.control.cluster_file import ClusterFile
from nimbus_hub.control.devices import Devices
from nimbus_hub.control.files import Files
from nimbus_hub.control.gangs import Gangs
from nimbus_hub.control.granting import Granting
from nimbus_hub.control.inventory import LOCAL, Inventory
from nimbus_hub.control.jobs import Jobs
from nimbus_hub.control.leases import Leases
from nimbus_hub.control.leftovers import Leftovers
from nimbus_hub.control.logs import Logs
from nimbus_hub.control.meter import Meter
from nimbus_hub.control.metrics import Metrics
from nimbus_hub.control.outages import Outages
from nimbus_hub.control.policies import Policies
from nimbus_hub.control.reaper import Reaper
from nimbus_hub.control.reconciler import Reconciler
from nimbus_hub.control.records import Records
from nimbus_hub.control.retention import Retention
from nimbus_hub.control.runner import Runner
from nimbus_hub.control.scheduling import Policy, Scheduling, ShippedPolicy
from nimbus_hub.control.sessions import Sessions
from nimbus_hub.control.settings import Settings
from nimbus_hub.control.snapshots import Snapshots
from nimbus_hub.control.stalls import Stalls
from nimbus_hub.executors.base import Executor
from nimbus_hub.model.heartbeat import Heartbeat
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
        executor_names: Sequence[str] = (LOCAL,),
        sessions: Sessions,
        settings: Settings,
        clock: Clock,
        heartbeat: Callable[[], Heartbeat] | None = None,
        cluster_file: ClusterFile | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.snapshots = Snapshots(snapshots)
        self.bus = Bus()
        self.metrics = Metrics()
        self.records = Records(store, self.bus, clock)
        self.inventory = Inventory(
            executors, names=executor_names, file=cluster_file, records=self.records
        )
        self.metrics.follow_file(lambda: self.inventory.file_error)
        self._absences = Absences(self.inventory, clock, settings.host_patience)
        self._leftovers = Leftovers(
            self.records, self.inventory, self._absences, settings.stop_grace
        )
        self.scheduling = Scheduling(
            self.records, self.inventory, self._leftovers, policy or ShippedPolicy()
        )
        policies = Policies(settings.policies, lambda: self.inventory.cluster)
        self.activity = Activity(self.records, policies)
        self.leases = Leases(
            self.records, self.inventory, settings, self.scheduling, policies, self.activity
        )
        self._outages = Outages(self.records, heartbeat)
        self._stalls = Stalls(self.records, self.inventory, self._outages, settings.stall)
        self.jobs = self._jobs()
        self.retention = self._retention()
        self.gangs = Gangs(self.records, self.inventory, self.leases, self.snapshots)
        self.files = Files(self.records, self.inventory)
        self.logs = Logs(self.records, self.jobs, self.inventory)
        self.meter = Meter(
            self.records, self.inventory, self.activity, self.metrics, settings.measure
        )
        self.accounting = Accounting(self.records, self.inventory, self.meter)
        for waiting in (self.activity, self.leases.saving, self._absences):
            self._outages.listen(waiting.begin_anew)
        self.reconciler = self._reconciler(sessions)

    def _jobs(self) -> Jobs:
        return Jobs(
            self.records,
            self.leases,
            self.scheduling,
            self.snapshots,
            self.inventory,
            self._stalls,
        )

    def _retention(self) -> Retention:
        keep, measure = self.settings.keep_jobs, self.settings.measure
        return Retention(self.records, self.inventory, self.snapshots, keep, measure)

    def _reconciler(self, sessions: Sessions) -> Reconciler:
        records, inventory, metrics = self.records, self.inventory, self.metrics
        absences, leftovers, outages = self._absences, self._leftovers, self._outages
        runner = Runner(
            records, inventory, self.settings, absences, leftovers, outages, self._stalls, metrics
        )
        return Reconciler(
            records,
            inventory,
            self.scheduling,
            absences,
            leftovers,
            self.gangs,
            Granting(records, self.leases, self.scheduling, metrics),
            Reaper(records, self.leases, self.settings, sessions, absences, outages, metrics),
            runner,
            self.retention,
            Devices(records, inventory),
            metrics,
            sweep=self.settings.sweep,
        )

    def close(self) -> None:
        """Wait for the last write."""
        self.snapshots.close()
        self.records.close()
