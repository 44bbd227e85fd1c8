"""How busy replicas keep this machine's GPUs: looked at every few seconds, and added up.

A device that one replica has to itself counts with its own utilisation. One that others use
too counts by process; a driver that cannot tell processes apart has it split evenly.
Source: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol

import pynvml

from nimbus_hub.clock import Clock, SystemClock

__all__ = ["GpuSampler", "GpuUser", "UsageNvml"]

log = logging.getLogger(__name__)

_PERIOD = timedelta(seconds=2)
_LONGEST = 5 * _PERIOD
"""One look stands for no more than this: the machine may have slept since the last."""


class UsageNvml(Protocol):
    """The part of the module ``pynvml`` that is used here. Handles are opaque."""

    @property
    def NVMLError(self) -> type[Exception]:  # noqa: N802 (their name)
        """Return the base of its errors."""

    @property
    def NVMLError_LibraryNotFound(self) -> type[Exception]:  # noqa: N802
        """Return what is raised where no driver is installed."""

    @property
    def NVMLError_NotFound(self) -> type[Exception]:  # noqa: N802
        """Return what is raised when no process used a device since the last look."""

    def nvmlInit(self) -> None:  # noqa: N802
        """Load the driver's library."""

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Give it back."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        """Return a device."""

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:  # noqa: N802
        """Return its utilisation in percent, as ``gpu``."""

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]:  # noqa: N802
        """Return the processes on it, each with ``pid``."""

    def nvmlDeviceGetProcessUtilization(  # noqa: N802
        self, handle: Any, since: int
    ) -> Sequence[Any]:
        """Return samples after a time, each with ``pid``, ``timeStamp`` and ``smUtil``."""


@dataclass(frozen=True, slots=True)
class GpuUser:
    """Who holds devices, by index; ``processes`` tells the pids it has now."""

    devices: tuple[int, ...]
    processes: Callable[[], Collection[int]]


class GpuSampler:
    """Samples in a thread of its own, for as long as anybody holds a device."""

    def __init__(self, nvml: UsageNvml = pynvml, clock: Clock | None = None) -> None:
        self._nvml = nvml
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._users: Mapping[str, GpuUser] = {}
        self._seconds: dict[str, float] = {}
        self._seen: dict[int, int] = {}
        self._is_absent = False
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, users: Mapping[str, GpuUser]) -> None:
        """Look at what these replicas hold from now on; forget all others."""
        with self._lock:
            self._users = dict(users)
            self._seconds = {key: self._seconds.get(key, 0.0) for key in users}
        if users and self._thread is None and not self._is_absent:
            self._thread = threading.Thread(target=self._run, name="nimbus-gpus", daemon=True)
            self._thread.start()

    def seconds(self, replica_id: str) -> float:
        """Return GPUs times seconds, weighed by how busy, since a replica is followed."""
        with self._lock:
            return self._seconds.get(replica_id, 0.0)

    def close(self) -> None:
        """End the thread."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def look(self, elapsed: timedelta) -> None:
        """Take one sample of every device that is held; it stands for the time elapsed."""
        with self._lock:
            users = self._users
        holders: dict[int, list[str]] = {}
        for replica_id, user in users.items():
            for device in user.devices:
                holders.setdefault(device, []).append(replica_id)
        for device, replica_ids in holders.items():
            held = {replica_id: users[replica_id] for replica_id in replica_ids}
            try:
                shares = self._shares(device, held)
            except self._nvml.NVMLError as error:
                _warn_once(device, str(error))
                continue
            with self._lock:
                for replica_id, share in shares.items():
                    if replica_id in self._seconds:
                        self._seconds[replica_id] += share * elapsed.total_seconds()

    def _run(self) -> None:
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            # Declared devices of a machine without a driver: how busy they are nobody knows.
            self._is_absent = isinstance(error, self._nvml.NVMLError_LibraryNotFound)
            log.info("the use of GPUs cannot be measured, NVML says: %s", error)
            self._thread = None
            return
        last = self._clock.now()
        while not self._ending.wait(_PERIOD.total_seconds()):
            last = self._look_since(last)
        self._nvml.nvmlShutdown()

    def _look_since(self, last: datetime) -> datetime:
        now = self._clock.now()
        try:
            self.look(max(timedelta(0), min(now - last, _LONGEST)))
        except Exception:
            # Whatever a driver answers: the next look may find it well again.
            log.exception("the use of GPUs could not be measured")
        return now

    def _shares(self, device: int, held: Mapping[str, GpuUser]) -> dict[str, float]:
        """Return how busy each holder keeps a device, from 0 to 1."""
        handle = self._nvml.nvmlDeviceGetHandleByIndex(device)
        processes = {each.pid for each in self._processes(handle)}
        pids = {replica_id: set(user.processes()) for replica_id, user in held.items()}
        if len(held) > 1 or any(processes - mine for mine in pids.values()):
            return self._by_process(device, handle, processes, pids)
        return dict.fromkeys(held, self._utilisation(handle))

    def _by_process(
        self, device: int, handle: Any, processes: set[int], pids: Mapping[str, set[int]]
    ) -> dict[str, float]:
        try:
            samples = self._nvml.nvmlDeviceGetProcessUtilization(handle, self._seen.get(device, 0))
        except self._nvml.NVMLError_NotFound:
            return {}
        except self._nvml.NVMLError:
            each = self._utilisation(handle) / max(1, len(processes))
            return {key: each * len(processes & mine) for key, mine in pids.items()}
        self._seen[device] = max(
            (each.timeStamp for each in samples), default=self._seen.get(device, 0)
        )
        newest = {each.pid: each.smUtil for each in sorted(samples, key=lambda s: s.timeStamp)}
        return {
            key: min(1.0, sum(_share(newest[pid]) for pid in mine & newest.keys()))
            for key, mine in pids.items()
        }

    def _processes(self, handle: Any) -> Sequence[Any]:
        try:
            return self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except self._nvml.NVMLError:
            return ()  # Not every device can tell; then its holder is taken to be alone on it.

    def _utilisation(self, handle: Any) -> float:
        return _share(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def _share(percent: int) -> float:
    """Return percent as a share; drivers are known to answer nonsense now and then."""
    return percent / 100 if 0 <= percent <= 100 else 0.0


@lru_cache(maxsize=64)
def _warn_once(device: int, message: str) -> None:
    log.warning("the use of GPU %d cannot be measured, NVML says: %s", device, message)
