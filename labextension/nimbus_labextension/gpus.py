"""How busy the session's GPUs are, as NVIDIA's library (nvidia-ml-py) tells, where it is there."""

from __future__ import annotations

import importlib
import logging
from typing import Any

__all__ = ["Gpus"]

log = logging.getLogger(__name__)


class Gpus:
    """The granted devices; ``devices`` are their indices as in CUDA_VISIBLE_DEVICES."""

    def __init__(self, devices: str | None, nvml: Any = None) -> None:
        self._devices = [int(each) for each in (devices or "").split(",") if each.isdigit()]
        self._nvml = nvml
        self._handles: list[Any] = []
        self._seen_until: dict[int, int] = {}

    def busy_shares(self) -> list[float]:
        """Return how busy each device was since the last call, from 0 to 1.

        Nothing is returned where there are none, or nobody knows.
        """
        if self._devices and self._nvml is None:
            try:
                self._nvml = importlib.import_module("pynvml")
            except ImportError:
                self._devices = []
        if not self._devices:
            return []
        try:
            if not self._handles:
                self._open()
            return [self._share(place, handle) for place, handle in enumerate(self._handles)]
        except self._nvml.NVMLError as error:
            # It is no reason to ask again and again.
            log.info("the session's GPUs are not watched: %s", error)
            self._devices = []
            return []

    def _open(self) -> None:
        self._nvml.nvmlInit()
        self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(each) for each in self._devices]

    def _share(self, place: int, handle: Any) -> float:
        """Return a device's mean use since the last call; its use just now where that is all."""
        nvml = self._nvml
        try:
            _, samples = nvml.nvmlDeviceGetSamples(
                handle, nvml.NVML_GPU_UTILIZATION_SAMPLES, self._seen_until.get(place, 0)
            )
        except nvml.NVMLError:
            return float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
        if not samples:
            return 0.0
        self._seen_until[place] = max(each.timeStamp for each in samples)
        values = [each.sampleValue.uiVal for each in samples]
        return float(sum(values)) / len(values) / 100
