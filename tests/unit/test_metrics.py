"""The figures that operators watch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from nimbus_hub.control.metrics import Metrics
from nimbus_hub.model.host import Gpu, Host
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.slot import Slot, SlotGroup

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOST = Host("gpu-1", 8000, 2**35, gpus=(Gpu(0, "A100"), Gpu(1, "A100")))


def lease(name: str, waited: timedelta) -> Lease:
    groups = (SlotGroup("worker", gpus=1),)
    return Lease(name, LeaseKind.JOB, "ada", name, groups, timedelta(hours=1), NOW - waited)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    metrics.text()
    return metrics.registry.get_sample_value(name, labels)


def test_the_oldest_that_waits_gives_the_age_of_the_queue() -> None:
    metrics = Metrics()
    waiting = [lease("l-1", timedelta(seconds=30)), lease("l-2", timedelta(seconds=90))]
    metrics.observe([HOST], waiting, [], NOW)
    assert value(metrics, "nimbus_queue_age_seconds") == 90
    assert value(metrics, "nimbus_leases", state="queued") == 2
    metrics.observe([HOST], [], [], NOW)
    assert value(metrics, "nimbus_queue_age_seconds") == 0
    assert value(metrics, "nimbus_leases", state="queued") == 0


def test_held_gpus_are_counted_by_model() -> None:
    metrics = Metrics()
    slot = Slot("worker", 0, "gpu-1", "127.0.0.1", 1000, 2**30, gpus=(1,))
    held = lease("l-1", timedelta(0)).granted((slot,), NOW, timedelta(hours=12))
    metrics.observe([HOST], [held], [], NOW)
    assert value(metrics, "nimbus_gpus", model="A100") == 2
    assert value(metrics, "nimbus_gpus_held", model="A100") == 1
