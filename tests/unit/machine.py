"""A machine whose clocks are moved by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nimbus_hub.model.heartbeat import Heartbeat
from nimbus_hub.steady_clock import SteadyClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass
class Machine:
    """What a machine's clocks show."""

    system: datetime = START
    uptime: timedelta = timedelta(days=1)
    boot: str = "boot-1"

    def pass_by(self, time: timedelta) -> None:
        self.system += time
        self.uptime += time

    def start_again(self, down: timedelta) -> None:
        """Switch the machine off and on."""
        self.system += down
        self.uptime, self.boot = timedelta(seconds=20), f"{self.boot}+1"

    def clock(self, last: Heartbeat | None = None) -> SteadyClock:
        return SteadyClock(
            last,
            system_ns=lambda: (self.system - _EPOCH) // _MICROSECOND * 1000,
            uptime_ns=lambda: self.uptime // _MICROSECOND * 1000,
            boot_id=lambda: self.boot,
        )
