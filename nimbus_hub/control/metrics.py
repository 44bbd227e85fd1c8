"""What operators watch, for Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from nimbus_hub.model.host import Host
from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import Lease, LeaseState

__all__ = ["Metrics"]


class Metrics:
    """The service's figures, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leases = self._gauge("nimbus_leases", "Live leases by state", "state")
        self.jobs = self._gauge("nimbus_jobs", "Live jobs by state", "state")
        self.gpus = self._gauge("nimbus_gpus", "GPUs of all hosts by model", "model")
        self.gpus_held = self._gauge("nimbus_gpus_held", "GPUs that leases hold by model", "model")
        self.queue_age_seconds = Gauge(
            "nimbus_queue_age_seconds",
            "Age of the oldest lease that waits",
            registry=self.registry,
        )
        self.grants = Counter("nimbus_grants", "Leases granted", registry=self.registry)
        self.pass_seconds = Histogram(
            "nimbus_pass_seconds", "Length of a pass of the reconciler", registry=self.registry
        )
        self.errors = Counter(
            "nimbus_reconciler_errors", "Passes and steps that failed", registry=self.registry
        )
        self.reclaim_seconds = Histogram(
            "nimbus_reclaim_seconds",
            "From the end of a session's lease until its server was gone",
            registry=self.registry,
        )

    def observe(
        self, hosts: Sequence[Host], leases: Sequence[Lease], jobs: Iterable[Job], now: datetime
    ) -> None:
        """Set the gauges to how things stand."""
        waiting = [lease.created_at for lease in leases if lease.state is LeaseState.QUEUED]
        oldest = min(waiting, default=now)
        self.queue_age_seconds.set((now - oldest).total_seconds())
        states = Tally(lease.public_state for lease in leases)
        for state in LeaseState:
            if not state.is_end:
                self.leases.labels(state=state.value).set(states[state])
        job_states = Tally(job.state for job in jobs)
        for job_state in JobState:
            if not job_state.is_end:
                self.jobs.labels(state=job_state.value).set(job_states[job_state])
        models = {(host.name, gpu.index): gpu.model for host in hosts for gpu in host.gpus}
        held = Tally(
            models.get((slot.host, index), "unknown")
            for lease in leases
            if lease.state.is_holding
            for slot in lease.slots
            for index in slot.gpus
        )
        # A model whose last host has gone must not keep its last figures.
        self.gpus.clear()
        self.gpus_held.clear()
        for model, count in Tally(models.values()).items():
            self.gpus.labels(model=model).set(count)
            self.gpus_held.labels(model=model).set(held[model])

    def text(self) -> bytes:
        """Return the figures in Prometheus's text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, help_text: str, label: str) -> Gauge:
        return Gauge(name, help_text, [label], registry=self.registry)
