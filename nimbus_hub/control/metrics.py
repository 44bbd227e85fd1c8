"""What operators watch, for Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from nimbus_hub.model.host import Host
from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import Lease, LeaseState

__all__ = ["Metrics"]

_WAITS = (0.1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600, float("inf"))


class Metrics:
    """The service's figures, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._count: Callable[[], None] = lambda: None
        self.leases = self._gauge("nimbus_leases", "Live leases by state", "state")
        self.jobs = self._gauge("nimbus_jobs", "Live jobs by state", "state")
        self.gpus = self._gauge("nimbus_gpus", "GPUs of all hosts by model", "model")
        self.gpus_held = self._gauge("nimbus_gpus_held", "GPUs that leases hold by model", "model")
        self.gpus_out = self._gauge(
            "nimbus_gpus_out_of_service", "GPUs that are given to nobody by model", "model"
        )
        self.queue_age_seconds = self._gauge(
            "nimbus_queue_age_seconds", "Age of the oldest lease that waits"
        )
        self._add_use()
        self.grants = self._counter("nimbus_grants", "Leases granted")
        self.preemptions = self._counter("nimbus_preemptions", "Leases taken away for others")
        self.lost = self._counter("nimbus_lost_leases", "Leases lost with their host or server")
        self.requeues = self._counter(
            "nimbus_requeues", "Jobs that wait again, by what became of their lease", "cause"
        )
        self.notices = self._counter(
            "nimbus_notices", "Notices by notifier and what became of them", "notifier", "outcome"
        )
        self.queue_seconds = Histogram(
            "nimbus_queue_seconds",
            "From a request until it was granted or given up",
            ["outcome"],
            buckets=_WAITS,
            registry=self.registry,
        )
        self.pass_seconds = Histogram(
            "nimbus_pass_seconds", "Length of a pass of the reconciler", registry=self.registry
        )
        self.errors = self._counter("nimbus_reconciler_errors", "Passes and steps that failed")
        self.file_refused = self._gauge(
            "nimbus_cluster_file_refused",
            "1 while the cluster file has a fault and what it said before holds on",
        )
        self.reclaim_seconds = Histogram(
            "nimbus_reclaim_seconds",
            "From the end of a session's lease until its server was gone",
            registry=self.registry,
        )

    def _add_use(self) -> None:
        """Add what tells how much of what is held is used."""
        self.gpu_seconds_held = self._counter(
            "nimbus_gpu_seconds_held", "GPUs held by leases, times seconds"
        )
        self.gpu_seconds_busy = self._counter(
            "nimbus_gpu_seconds_busy", "The same, weighed by how busy they were"
        )
        self.cpu_seconds_used = self._counter("nimbus_cpu_seconds_used", "CPU time used in leases")
        self.memory_bytes = self._gauge(
            "nimbus_memory_bytes_used", "Memory that replicas of jobs have now"
        )
        self.network_bytes = self._counter(
            "nimbus_network_bytes", "What replicas in containers received and sent", "direction"
        )

    def observe(
        self, hosts: Sequence[Host], leases: Sequence[Lease], jobs: Iterable[Job], now: datetime
    ) -> None:
        """Note how things stand; it is counted when somebody asks, which is far less often."""
        self._count = lambda: self._set(hosts, leases, jobs, now)

    def follow_file(self, error: Callable[[], str]) -> None:
        """Have the gauge of the cluster file say whether there is an error."""
        self.file_refused.set_function(lambda: float(bool(error())))

    def waited(self, lease: Lease, now: datetime, outcome: str) -> None:
        """Note that a lease waits no longer."""
        waited = (now - lease.waits_since).total_seconds()
        self.queue_seconds.labels(outcome=outcome).observe(max(0.0, waited))

    def text(self) -> bytes:
        """Return the figures in Prometheus's text format."""
        self._count()
        return generate_latest(self.registry)

    def _set(
        self, hosts: Sequence[Host], leases: Sequence[Lease], jobs: Iterable[Job], now: datetime
    ) -> None:
        """Set the gauges."""
        waiting = [lease.waits_since for lease in leases if lease.state is LeaseState.QUEUED]
        oldest = min(waiting, default=now)
        self.queue_age_seconds.set((now - oldest).total_seconds())
        states = Tally(lease.public_state for lease in leases)
        for state in LeaseState:
            if not state.is_end:
                self.leases.labels(state=state.value).set(states[state])
        job_states = Tally(job.state for job in jobs if not job.is_holder)
        for job_state in JobState:
            if not job_state.is_end:
                self.jobs.labels(state=job_state.value).set(job_states[job_state])
        models = {(host.name, gpu.index): gpu.model for host in hosts for gpu in host.gpus}
        held = _held_milli(leases, models)
        # A model whose last host has gone must not keep its last figures.
        self.gpus.clear()
        self.gpus_held.clear()
        self.gpus_out.clear()
        out = Tally(gpu.model for host in hosts for gpu in host.gpus if gpu.fault)
        for model, count in Tally(models.values()).items():
            self.gpus.labels(model=model).set(count)
            self.gpus_held.labels(model=model).set(held[model] / 1000)
            self.gpus_out.labels(model=model).set(out[model])

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, registry=self.registry)


def _held_milli(leases: Iterable[Lease], models: Mapping[tuple[str, int], str]) -> Tally[str]:
    """Return how many thousandths of the devices of each model leases hold."""
    held: Tally[str] = Tally()
    for lease in leases:
        for slot in lease.slots if lease.state.is_holding else ():
            for index in slot.gpus:
                held[models.get((slot.host, index), "unknown")] += slot.gpu_milli
    return held
