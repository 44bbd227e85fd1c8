from __future__ import annotations

import logging
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from nimbus_hub.executors.gpus import find_gpus
from nimbus_hub.model.host import Gpu


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

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(total=self.devices[handle][1])

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
