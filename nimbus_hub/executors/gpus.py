"""GPUs of this machine, as NVIDIA's management library (NVML) tells them.

NVML counts devices in the order of the PCI bus; CUDA does so only with
``CUDA_DEVICE_ORDER=PCI_BUS_ID``, which the local executor therefore sets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import pynvml

from nimbus_hub.model.host import Gpu, HeldMemory

__all__ = ["Nvml", "find_gpus", "held_memory"]

R = TypeVar("R")

log = logging.getLogger(__name__)


class Nvml(Protocol):
    """The part of the module ``pynvml`` that is used. Handles are opaque."""

    @property
    def NVMLError(self) -> type[Exception]:  # noqa: N802 (their name)
        """Return the base of its errors."""

    @property
    def NVMLError_LibraryNotFound(self) -> type[Exception]:  # noqa: N802
        """Return what is raised where no driver is installed."""

    @property
    def NVMLError_DriverNotLoaded(self) -> type[Exception]:  # noqa: N802
        """Return what is raised where the driver is not loaded."""

    def nvmlInit(self) -> None:  # noqa: N802
        """Load the driver's library."""

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Give it back."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """Return how many devices there are."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        """Return a device."""

    def nvmlDeviceGetName(self, handle: Any) -> str | bytes:  # noqa: N802
        """Return its model; old versions answer bytes."""

    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes:  # noqa: N802
        """Return its UUID."""

    @property
    def nvmlMemory_v2(self) -> int:  # noqa: N802
        """Return the version of memory's answer that has apart what a driver keeps for itself."""

    def nvmlDeviceGetMemoryInfo(self, handle: Any, version: int | None = None) -> Any:  # noqa: N802
        """Return its memory, in bytes, as ``total`` and ``used``."""

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]:  # noqa: N802
        """Return the processes that compute on it, each with ``pid``."""

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Any) -> Sequence[Any]:  # noqa: N802
        """Return the processes that draw with it, each with ``pid``."""


def find_gpus(nvml: Nvml = pynvml) -> tuple[Gpu, ...]:
    """Return this machine's GPUs; none without a driver.

    A driver that does not work is logged, once for each message, and counts as no GPUs.
    """
    return tuple(_of_each(nvml, _gpu).values())


def held_memory(nvml: Nvml = pynvml) -> dict[int, HeldMemory]:
    """Return what programs hold of the memory of this machine's GPUs, by index.

    A device that only draws, for a display, is left out: it does so from boot to shutdown.
    """
    found = _of_each(nvml, _held)
    return {index: held for index, held in found.items() if held is not None}


def _of_each(nvml: Nvml, look: Callable[[Nvml, int], R]) -> dict[int, R]:
    """Return what is found of each device, by index; nothing without a driver that works."""
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return {}
    except nvml.NVMLError as error:
        _warn_once(str(error))
        return {}
    try:
        return {index: look(nvml, index) for index in range(nvml.nvmlDeviceGetCount())}
    except nvml.NVMLError as error:
        _warn_once(str(error))
        return {}
    finally:
        nvml.nvmlShutdown()


def _held(nvml: Nvml, index: int) -> HeldMemory | None:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    drawing = _pids(nvml, nvml.nvmlDeviceGetGraphicsRunningProcesses, handle)
    computing = _pids(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    if drawing and computing <= drawing:
        return None
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)  # A driver before 510.
    return HeldMemory(int(memory.used), tuple(sorted(computing - drawing)))


def _pids(nvml: Nvml, ask: Callable[[Any], Sequence[Any]], handle: Any) -> set[int]:
    try:
        return {each.pid for each in ask(handle)}
    except nvml.NVMLError:
        return set()  # Not every device can tell.


def _gpu(nvml: Nvml, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return Gpu(
        index=index,
        model=_text(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@lru_cache(maxsize=16)
def _warn_once(message: str) -> None:
    log.warning("GPUs cannot be used, NVML says: %s", message)
