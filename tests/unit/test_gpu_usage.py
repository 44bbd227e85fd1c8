from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from nimbus_hub.executors import gpu_usage
from nimbus_hub.executors.gpu_usage import GpuSampler, GpuUser

SECOND = timedelta(seconds=1)


class NvmlError(Exception):
    pass


class LibraryMissing(NvmlError):
    pass


class NothingFound(NvmlError):
    pass


@dataclass
class FakeNvml:
    """The module pynvml: devices, how busy each is, and the processes on it."""

    busy: dict[int, int] = field(default_factory=dict)
    processes: dict[int, list[int]] = field(default_factory=dict)
    samples: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    init_error: Exception | None = None
    sample_error: Exception | None = None
    process_error: Exception | None = None
    open: int = 0
    looks: int = 0

    NVMLError = NvmlError
    NVMLError_LibraryNotFound = LibraryMissing
    NVMLError_NotFound = NothingFound

    def nvmlInit(self) -> None:  # noqa: N802
        if self.init_error is not None:
            raise self.init_error
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index not in self.busy:
            raise NvmlError("Invalid Argument")
        return index

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        self.looks += 1
        return SimpleNamespace(gpu=self.busy[handle], memory=1)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        if self.process_error is not None:
            raise self.process_error
        return [SimpleNamespace(pid=pid) for pid in self.processes.get(handle, ())]

    def nvmlDeviceGetProcessUtilization(self, handle: int, since: int) -> list[Any]:  # noqa: N802
        if self.sample_error is not None:
            raise self.sample_error
        found = [
            SimpleNamespace(pid=pid, timeStamp=at, smUtil=util)
            for pid, at, util in self.samples.get(handle, ())
            if at > since
        ]
        if not found:
            raise NothingFound("Not Found")
        return found


@dataclass
class HandClock:
    time: datetime = datetime(2026, 3, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


def user(*devices: int, pids: tuple[int, ...] = ()) -> GpuUser:
    return GpuUser(devices, lambda: pids)


def sampled(nvml: FakeNvml, looks: int = 1, **users: GpuUser) -> GpuSampler:
    """Return a sampler that looked, without a thread, every second."""
    sampler = GpuSampler(nvml)
    sampler._is_absent = True
    sampler.follow(users)
    for _ in range(looks):
        sampler.look(SECOND)
    return sampler


def test_a_device_of_ones_own_counts_as_busy_as_it_is() -> None:
    nvml = FakeNvml(busy={0: 50, 1: 100, 2: 99}, processes={0: [7], 1: [7]})
    sampler = sampled(nvml, looks=4, r1=user(0, 1, pids=(7, 8)))
    assert sampler.seconds("r1") == pytest.approx(4 * 1.5)
    assert sampler.seconds("r2") == 0.0


def test_a_shared_device_counts_by_process() -> None:
    nvml = FakeNvml(
        busy={0: 90},
        processes={0: [1, 2, 3]},
        samples={0: [(1, 10, 30), (2, 10, 20), (3, 10, 40)]},
    )
    sampler = sampled(nvml, r1=user(0, pids=(1, 2)), r2=user(0, pids=(3,)))
    assert sampler.seconds("r1") == pytest.approx(0.5)
    assert sampler.seconds("r2") == pytest.approx(0.4)
    sampler.look(SECOND)  # Nothing was used since the last sample.
    assert sampler.seconds("r2") == pytest.approx(0.4)


def test_a_stranger_on_a_device_makes_it_shared() -> None:
    """A session may have the other half of it, of which no replica knows."""
    nvml = FakeNvml(busy={0: 90}, processes={0: [1, 9]}, samples={0: [(1, 10, 25), (9, 10, 65)]})
    assert sampled(nvml, r1=user(0, pids=(1,))).seconds("r1") == pytest.approx(0.25)


def test_the_newest_sample_of_a_process_counts_and_nonsense_does_not() -> None:
    samples = [(1, 10, 25), (1, 30, 75), (1, 20, 50), (2, 30, 4_000_000_000)]
    nvml = FakeNvml(busy={0: 0}, processes={0: [1, 2, 3]}, samples={0: samples})
    assert sampled(nvml, r1=user(0, pids=(1, 2))).seconds("r1") == pytest.approx(0.75)


def test_a_driver_that_cannot_tell_processes_apart_has_a_device_split_evenly() -> None:
    nvml = FakeNvml(busy={0: 90}, processes={0: [1, 2, 3]}, sample_error=NvmlError("Not Supported"))
    sampler = sampled(nvml, r1=user(0, pids=(1, 2)), r2=user(0, pids=(3,)))
    assert sampler.seconds("r1") == pytest.approx(0.6)
    assert sampler.seconds("r2") == pytest.approx(0.3)


def test_a_driver_that_names_no_processes_has_the_holder_alone() -> None:
    nvml = FakeNvml(busy={0: 80}, process_error=NvmlError("Not Supported"))
    assert sampled(nvml, r1=user(0, pids=(1,))).seconds("r1") == pytest.approx(0.8)


def test_a_device_that_fails_is_told_once_and_leaves_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        sampler = sampled(FakeNvml(busy={1: 100}), looks=2, r1=user(63, 1))
    assert sampler.seconds("r1") == pytest.approx(2.0)
    assert caplog.messages == ["the use of GPU 63 cannot be measured, NVML says: Invalid Argument"]


def test_who_is_followed_no_longer_is_forgotten() -> None:
    sampler = sampled(FakeNvml(busy={0: 100}), r1=user(0))
    sampler.follow({"r2": user(0)})
    sampler.look(SECOND)
    assert (sampler.seconds("r1"), sampler.seconds("r2")) == (0.0, 1.0)


def test_a_look_stands_for_no_longer_than_the_machine_was_awake() -> None:
    clock = HandClock()
    sampler = GpuSampler(FakeNvml(busy={0: 100}), clock)
    sampler._is_absent = True
    sampler.follow({"r1": user(0)})
    last = clock.now()
    for ahead in (timedelta(hours=9), -timedelta(hours=1), 2 * SECOND):
        clock.time += ahead
        last = sampler._look_since(last)
    assert sampler.seconds("r1") == pytest.approx(10.0 + 0.0 + 2.0)


def wait_until(is_so: Callable[[], object]) -> None:
    pause = threading.Event()
    for _ in range(500):
        if is_so():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen within 5 s")


def test_a_thread_samples_while_a_device_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """In real time, but with a short period: that it goes on by itself is the point."""
    monkeypatch.setattr(gpu_usage, "_PERIOD", timedelta(seconds=0.01))
    nvml = FakeNvml(busy={0: 100})
    sampler = GpuSampler(nvml)
    sampler.follow({})
    assert nvml.open == 0
    sampler.follow({"r1": user(0)})
    sampler.follow({"r1": user(0)})
    wait_until(lambda: sampler.seconds("r1") > 0.02)
    assert nvml.open == 1
    sampler.close()
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("error", "starts"), [(LibraryMissing("no library"), 1), (NvmlError("driver mismatch"), 2)]
)
def test_without_a_driver_nothing_is_measured(
    error: Exception, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = FakeNvml(busy={0: 100}, init_error=error)
    tried: list[int] = []
    sampler = GpuSampler(nvml)
    monkeypatch.setattr(sampler, "_run", lambda run=sampler._run: (tried.append(1), run()))
    for _ in range(2):
        sampler.follow({"r1": user(0)})
        wait_until(lambda: sampler._thread is None)
    assert sampler.seconds("r1") == 0.0
    assert len(tried) == starts
    sampler.close()
