from __future__ import annotations

import logging
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from nimbus_hub.executors.gpus import find_gpus, held_memory
from nimbus_hub.model.host import Gpu, HeldMemory


class NvmlError(Exception):
    pass


class LibraryMissing(NvmlError):
    pass


class DriverMissing(NvmlError):
    pass


@dataclass
class FakeNvml:
    """The module pynvml on a machine with these devices, failing at one of its calls."""

    devices: list[tuple[str | bytes, int, str | bytes]] = field(default_factory=list)
    failing: str = ""
    error: Exception | None = None
    is_open: bool = False
    is_old: bool = False
    kept: int = 0
    used: dict[int, int] = field(default_factory=dict)
    computing: dict[int, list[int]] = field(default_factory=dict)
    drawing: dict[int, list[int]] = field(default_factory=dict)

    nvmlMemory_v2 = 2  # noqa: N815
    NVMLError = NvmlError
    NVMLError_LibraryNotFound = LibraryMissing
    NVMLError_DriverNotLoaded = DriverMissing

    def _call(self, name: str) -> None:
        if self.error is not None and self.failing == name:
            raise self.error

    def nvmlInit(self) -> None:  # noqa: N802
        self._call("init")
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        self._call("handle")
        return index

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:  # noqa: N802
        return self.devices[handle][0]

    def nvmlDeviceGetMemoryInfo(  # noqa: N802
        self, handle: int, version: int | None = None
    ) -> Any:
        if version is not None and self.is_old:
            raise NvmlError("version mismatch")
        kept = 0 if version == self.nvmlMemory_v2 else self.kept
        used = self.used.get(handle, 0) + kept
        return SimpleNamespace(total=self.devices[handle][1], used=used)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        self._call("processes")
        return [SimpleNamespace(pid=pid) for pid in self.computing.get(handle, ())]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        self._call("processes")
        return [SimpleNamespace(pid=pid) for pid in self.drawing.get(handle, ())]

    def nvmlDeviceGetUUID(self, handle: int) -> str | bytes:  # noqa: N802
        return self.devices[handle][2]


def test_each_device_has_its_index_model_and_memory() -> None:
    nvml = FakeNvml([("NVIDIA A100", 40 * 2**30, "GPU-1"), (b"Tesla V100", 2**34, b"GPU-2")])
    assert find_gpus(nvml) == (
        Gpu(0, "NVIDIA A100", 40 * 2**30, "GPU-1"),
        Gpu(1, "Tesla V100", 2**34, "GPU-2"),
    )
    assert not nvml.is_open


@pytest.mark.parametrize("error", [LibraryMissing("no library"), DriverMissing("no driver")])
def test_a_machine_without_a_driver_has_none_and_says_nothing(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert find_gpus(FakeNvml(failing="init", error=error)) == ()
    assert caplog.records == []


@pytest.mark.parametrize("failing", ["init", "handle"])
def test_a_broken_driver_is_logged_once(failing: str, caplog: pytest.LogCaptureFixture) -> None:
    nvml = FakeNvml([("A100", 1, "")], failing, NvmlError(f"mismatch at {failing}"))
    with caplog.at_level(logging.WARNING):
        assert find_gpus(nvml) == ()
        assert find_gpus(nvml) == ()
    assert caplog.messages == [f"GPUs cannot be used, NVML says: mismatch at {failing}"]
    assert not nvml.is_open


def test_the_real_library_answers_on_any_machine() -> None:
    assert isinstance(find_gpus(), tuple)


def machine(count: int, **values: Any) -> FakeNvml:
    return FakeNvml([("A100", 2**35, "")] * count, **values)


def test_what_is_held_is_told_without_what_the_driver_keeps_for_itself() -> None:
    held = machine(3, kept=600, used={0: 500, 1: 70}, computing={0: [12, 9]})
    assert held_memory(held) == {0: HeldMemory(500, (9, 12)), 1: HeldMemory(70), 2: HeldMemory(0)}
    assert not held.is_open


def test_a_driver_that_knows_no_second_version_is_asked_as_before() -> None:
    assert held_memory(machine(1, is_old=True, used={0: 5})) == {0: HeldMemory(5)}


def test_a_display_holds_nothing_but_who_computes_beside_it_does() -> None:
    shown = machine(2, used={0: 900, 1: 900}, drawing={0: [1, 2], 1: [1]})
    shown.computing = {0: [2], 1: [1, 3]}
    assert held_memory(shown) == {1: HeldMemory(900, (3,))}


def test_a_device_that_tells_no_processes_tells_its_memory() -> None:
    quiet = machine(1, failing="processes", error=NvmlError("not supported"), used={0: 7})
    assert held_memory(quiet) == {0: HeldMemory(7)}


def test_without_a_driver_nothing_is_held() -> None:
    assert held_memory(FakeNvml(failing="init", error=LibraryMissing("no library"))) == {}
    assert isinstance(held_memory(), dict)
