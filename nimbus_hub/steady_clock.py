"""The clock of the service, which takes UTC once and goes on by the time that passes.

Also while the machine sleeps. The system clock may be set by hours, forward or back; leases
go by what passes, and none ends early or late for it. What the system clock is corrected by
is followed too slowly to matter: by a thousandth of the time that passes, which is 3.6 seconds
an hour, so that the small corrections of NTP are kept up with and a step of a minute is
made up for within a day.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nimbus_hub.model.heartbeat import Heartbeat

__all__ = ["SteadyClock"]

log = logging.getLogger(__name__)

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = 10**3
_SECOND = 10**9
_SLEW = 1000
"""The clock follows the system's by one part in so many of the time that passes."""

_UNSEEN = 15 * _SECOND
"""For so long the last service may have gone on after its last sign of life, as fast as that."""


def _uptime_ns() -> int:
    """Return the time since the machine started, that asleep included where it can be had."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _boot_id() -> str:
    """Return what tells this start of the machine from all others; empty if nothing does."""
    with contextlib.suppress(OSError):
        return _BOOT.read_text().strip()
    return ""


class SteadyClock:
    """UTC that never goes back and does not step when the system clock is set.

    A service that is started again goes on by the clock of the one before (``last``): by the
    time that passed since its last sign of life or, if the machine was started meanwhile,
    by the system clock, but not from before that sign. Threads may share it.
    """

    def __init__(
        self,
        last: Heartbeat | None = None,
        *,
        system_ns: Callable[[], int] = time.time_ns,
        uptime_ns: Callable[[], int] = _uptime_ns,
        boot_id: Callable[[], str] = _boot_id,
    ) -> None:
        self._system = system_ns
        self._uptime = uptime_ns
        self._boot = boot_id()
        self._lock = threading.Lock()
        self._seen = uptime_ns()
        self._time = self._begin(last)
        self._ahead = self._time - system_ns()
        if abs(self._ahead) > _SECOND:
            log.warning("the service's clock is %s the system clock's", _told(self._ahead))

    def now(self) -> datetime:
        """Return the present moment, in UTC."""
        with self._lock:
            self._go_on()
            return _moment(self._time)

    def heartbeat(self) -> Heartbeat:
        """Return a sign of life as of now."""
        with self._lock:
            self._go_on()
            return Heartbeat(_moment(self._time), self._boot, self._seen / _SECOND)

    def seen(self, moment: datetime) -> datetime:
        """Return when it was by this clock that the system clock showed a moment."""
        return moment + timedelta(microseconds=self._ahead // _MICROSECOND)

    def _begin(self, last: Heartbeat | None) -> int:
        now = self._system()
        if last is None:
            return now
        then = (last.at - _EPOCH) // timedelta(microseconds=1) * _MICROSECOND
        if last.boot and last.boot == self._boot:
            passed = max(0, self._seen - round(last.uptime_seconds * _SECOND))
            return then + passed + min(passed, _UNSEEN) // _SLEW + _MICROSECOND
        return max(now, then)

    def _go_on(self) -> None:
        uptime = max(self._seen, self._uptime())
        passed, self._seen = uptime - self._seen, uptime
        self._time += passed
        ahead = self._time - self._system()
        if abs(ahead - self._ahead) > _SECOND:
            log.warning("the system clock was set: the service's is %s it now", _told(ahead))
        most = passed // _SLEW
        correction = min(max(-ahead, -most), most)
        self._time += correction
        self._ahead = ahead + correction


def _moment(since_epoch_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=since_epoch_ns // _MICROSECOND)


def _told(ahead_ns: int) -> str:
    amount = timedelta(seconds=round(abs(ahead_ns) / _SECOND))
    return f"{amount} {'ahead of' if ahead_ns > 0 else 'behind'}"
