"""GPUs of this machine, as NVIDIA's management library (NVML) tells them.

NVML counts devices in the order of the PCI bus; CUDA does so only with
``CUDA_DEVICE_ORDER=PCI_BUS_ID``, which the local executor therefore sets.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, Protocol

import pynvml

from nimbus_hub.model.host import Gpu

__all__ = ["Nvml", "find_gpus"]

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

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:  # noqa: N802
        """Return its memory, in bytes, as ``total``."""


def find_gpus(nvml: Nvml = pynvml) -> tuple[Gpu, ...]:
    """Return this machine's GPUs; none without a driver.

    A driver that does not work is logged, once for each message, and counts as no GPUs.
    """
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return ()
    except nvml.NVMLError as error:
        _warn_once(str(error))
        return ()
    try:
        return tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
    except nvml.NVMLError as error:
        _warn_once(str(error))
        return ()
    finally:
        nvml.nvmlShutdown()


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
