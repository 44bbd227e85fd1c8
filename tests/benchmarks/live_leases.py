"""Ten thousand live leases: how fast they are renewed, how late reclaimed, what they weigh.

It drives the control layer as the API does, with its reconciler acting, over a store on a
real disk; hosts and notebook servers exist in memory alone and are gone when asked to stop.
Many tabs renew without a pause, while some of the leases end one after the other.

    python -m tests.benchmarks.live_leases
    python -m tests.benchmarks.live_leases --leases 1000 --ending 100 --over 10 --json
"""

from __future__ import annotations

import asyncio
import gc
import json
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import click
import numpy as np
import psutil

from nimbus_hub.clock import SystemClock
from nimbus_hub.control.control import Control
from nimbus_hub.control.settings import Settings
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.model.host import Host
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.policy import LeasePolicy
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.store.snapshots import SnapshotStore
from nimbus_hub.store.store import Store
from tests.benchmarks.leases import NoServers, disk, durability

__all__ = ["LATEST_SECONDS", "LEAST_RATE", "MOST_MIB", "Figures", "main", "measure"]

LEAST_RATE = 1000
"""Renewals per second, at least."""

LATEST_SECONDS = 1.0
"""From the end of a lease until its slots are free, the 99th percentile at most."""

MOST_MIB = 300
"""Resident memory of the process, at most."""

_GIB = 2**30
_MIB = 2**20
_SLOTS = 16
_SLOT = SlotGroup("notebook", cpus_milli=1000, memory_bytes=_GIB)
_AT_ONCE = 500
_LEAD = timedelta(seconds=5)
"""From the last grant until the first end."""

_POLICY = LeasePolicy(renewals=10**9, warnings=(timedelta(minutes=1),))
_STEP = timedelta(seconds=1)
"""Each renewal moves the end by this at least: one that moves nothing is not written."""

_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured."""

    database: str
    durability: str
    leases: int
    tabs: int
    seconds: float
    processor_seconds: float
    renewals: int
    renewal_seconds: Sequence[float]
    late_seconds: Sequence[float]
    stall_seconds: Sequence[float]
    passes: int
    pass_seconds: float
    mib_before: float
    mib: float

    @property
    def rate(self) -> float:
        """Return the renewals per second."""
        return self.renewals / self.seconds

    @property
    def is_met(self) -> bool:
        """Tell whether all goals are kept."""
        is_fast = self.rate >= LEAST_RATE
        return is_fast and _at(self.late_seconds, 99) < LATEST_SECONDS and self.mib < MOST_MIB

    def as_text(self) -> str:
        """Return the figures as lines for people."""
        busy = self.processor_seconds / self.seconds
        each = self.pass_seconds / max(1, self.passes)
        return "\n".join(
            (
                f"{self.leases:,} live leases on {self.database} ({self.durability}), "
                f"{self.tabs} tabs renew for {self.seconds:.0f} s:",
                f"  renewals: {self.rate:,.0f}/s, each {_spread(self.renewal_seconds)}; "
                f"goal at least {LEAST_RATE:,}/s: {_verdict(self.rate >= LEAST_RATE)}",
                f"  {len(self.late_seconds):,} leases ended, late by {_spread(self.late_seconds)}; "
                f"goal p99 under {LATEST_SECONDS:.0f} s: "
                f"{_verdict(_at(self.late_seconds, 99) < LATEST_SECONDS)}",
                f"  memory: {self.mib:.0f} MiB, {self.mib_before:.0f} before there were leases; "
                f"goal under {MOST_MIB}: {_verdict(self.mib < MOST_MIB)}",
                f"  {self.passes:,} passes of {each * 1e3:.1f} ms; the event loop came late by "
                f"{_spread(self.stall_seconds)}",
                f"  processor: {busy:.0%} of a core, "
                f"{self.processor_seconds / max(1, self.renewals) * 1e3:.2f} ms a renewal",
            )
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "database": self.database,
            "durability": self.durability,
            "leases": self.leases,
            "tabs": self.tabs,
            "seconds": round(self.seconds, 1),
            "renewals_per_second": round(self.rate),
            "renewal_seconds": _summary(self.renewal_seconds),
            "ended": len(self.late_seconds),
            "late_seconds": _summary(self.late_seconds),
            "stall_seconds": _summary(self.stall_seconds),
            "passes": self.passes,
            "pass_seconds": round(self.pass_seconds / max(1, self.passes), 4),
            "processor_seconds": round(self.processor_seconds, 1),
            "mib_before": round(self.mib_before),
            "mib": round(self.mib),
            "is_met": self.is_met,
        }


def measure(url: str, leases: int, ending: int, over: timedelta, tabs: int) -> Figures:
    """Have ``ending`` of ``leases`` end evenly ``over`` a time while ``tabs`` renew others."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="nimbus-bench-"))
        store = Store.open(url)
        hosts = [
            Host(
                f"host-{number:04}",
                1000 * _SLOTS,
                _GIB * _SLOTS,
                # Ports are given out for each address.
                address=f"10.0.{number // 256}.{number % 256}",
            )
            for number in range(-(-leases // _SLOTS))
        ]
        control = Control(
            store=store,
            snapshots=SnapshotStore(Path(directory)),
            executors=[FakeExecutor(hosts)],
            sessions=NoServers(),
            settings=Settings(
                api_url="http://hub",
                job_token_secret=b"secret",
                policies=dict.fromkeys(LeaseKind, _POLICY),
                save=timedelta(0),
                sweep=timedelta(days=1),  # There are no servers that it could find.
            ),
            clock=SystemClock(),
        )
        stack.callback(control.close)
        database = url.partition(":")[0]
        run = _Run(control, tabs)
        asyncio.run(run.measure(leases, ending, over))
        return run.figures(database, durability(store, database), leases)


@dataclass(slots=True)
class _Run:
    """One run, and what was seen in it."""

    control: Control
    tabs: int
    renewals: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    seconds: float = 0.0
    processor_seconds: float = 0.0
    passes: int = 0
    pass_seconds: float = 0.0
    before: float = 0.0
    after: float = 0.0

    async def measure(self, leases: int, ending: int, over: timedelta) -> None:
        """Make the leases, then watch them for as long as it takes them to end."""
        await self.control.inventory.refresh()
        gc.collect()
        self.before = _resident_mib()
        staying = await self._sessions("stays", [_POLICY.default] * (leases - ending))
        lengths = [_LEAD + over * (number / ending) for number in range(ending)]
        await self._sessions("ends", lengths)
        self.control.records.listen(self._hear)
        async with self._acting():
            counted = self._passes()
            began, processor = perf_counter(), process_time()
            await self._renew_until_ended(staying, ending, over + 4 * _LEAD)
            self.seconds = perf_counter() - began
            self.processor_seconds = process_time() - processor
            self.passes, self.pass_seconds = (
                now - then for now, then in zip(self._passes(), counted, strict=True)
            )
        self.after = _resident_mib()

    def figures(self, database: str, durability: str, leases: int) -> Figures:
        """Return what was seen."""
        return Figures(
            database=database,
            durability=durability,
            leases=leases,
            tabs=self.tabs,
            seconds=self.seconds,
            processor_seconds=self.processor_seconds,
            renewals=len(self.renewals),
            renewal_seconds=self.renewals,
            late_seconds=self.late,
            stall_seconds=self.stalls,
            passes=int(self.passes),
            pass_seconds=self.pass_seconds,
            mib_before=self.before,
            mib=self.after,
        )

    async def _sessions(self, owner: str, lengths: Sequence[timedelta]) -> list[str]:
        """Return the ids of leases that were asked for, granted and activated."""

        async def ask(number: int) -> Lease:
            draft = self.control.leases.draft(
                LeaseKind.SESSION, f"{owner}-{number}", [_SLOT], length=lengths[number]
            )
            return await self.control.leases.request(draft)

        ids: list[str] = []
        for start in range(0, len(lengths), _AT_ONCE):
            some = range(start, min(start + _AT_ONCE, len(lengths)))
            asked = [lease.id for lease in await asyncio.gather(*map(ask, some))]
            await self._grant()
            await asyncio.gather(*map(self.control.leases.activate, asked))
            ids += asked
        return ids

    async def _grant(self) -> None:
        """Make passes until nobody waits."""
        while await self.control.records.queued():
            await self.control.reconciler.make_pass()

    async def _renew_until_ended(self, ids: Sequence[str], ending: int, bound: timedelta) -> None:
        turns = ((each, _POLICY.default + _STEP * turn) for turn in count(1) for each in ids)
        helping = [asyncio.create_task(self._renew(turns)) for _ in range(self.tabs)]
        helping.append(asyncio.create_task(self._watch()))
        with suppress(TimeoutError):
            async with asyncio.timeout(bound.total_seconds()):
                while len(self.late) < ending:  # noqa: ASYNC110 - looks on, and must not be woken
                    await asyncio.sleep(0.1)
        for task in helping:
            task.cancel()
        for result in await asyncio.gather(*helping, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        # Those that have not ended yet are as late as was waited for them.
        self.late += [bound.total_seconds()] * (ending - len(self.late))

    async def _renew(self, turns: Iterator[tuple[str, timedelta]]) -> None:
        for lease_id, length in turns:
            began = perf_counter()
            before = self.control.records.known(lease_id)
            after = await self.control.leases.renew(lease_id, length)
            if before is None or after.version == before.version:
                raise RuntimeError(f"lease {lease_id} was not renewed")
            self.renewals.append(perf_counter() - began)

    async def _watch(self) -> None:
        """Note by how much the event loop is late."""
        while True:
            began = perf_counter()
            await asyncio.sleep(_POLL_SECONDS)
            self.stalls.append(perf_counter() - began - _POLL_SECONDS)

    def _hear(self, written: Lease | Job) -> None:
        if isinstance(written, Lease) and written.state is LeaseState.EXPIRED:
            assert written.expires_at is not None
            self.late.append((self.control.clock.now() - written.expires_at).total_seconds())

    def _passes(self) -> tuple[float, float]:
        """Return how many passes there were, and how long they took together."""
        samples = {
            sample.name.rpartition("_")[2]: sample.value
            for metric in self.control.metrics.pass_seconds.collect()
            for sample in metric.samples
        }
        return samples["count"], samples["sum"]

    @asynccontextmanager
    async def _acting(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.control.reconciler.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _resident_mib() -> float:
    return float(psutil.Process().memory_info().rss) / _MIB


def _at(seconds: Iterable[float], percent: float) -> float:
    found = [*seconds]
    return float(np.percentile(found, percent)) if found else float("inf")


def _summary(seconds: Sequence[float]) -> dict[str, float]:
    return {name: round(_at(seconds, percent), 4) for name, percent in _PERCENTS.items()}


def _spread(seconds: Sequence[float]) -> str:
    found = _summary(seconds)
    return ", ".join(f"{name} {value * 1e3:,.0f} ms" for name, value in found.items())


_PERCENTS = {"median": 50, "p99": 99, "most": 100}


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


@click.command()
@click.option("--database", help="URL of an empty database; default: a new SQLite one.")
@click.option("--leases", default=10_000, show_default=True, help="How many are live at first.")
@click.option("--ending", default=1_000, show_default=True, help="How many of them end.")
@click.option("--over", default=60.0, show_default=True, help="Seconds that their ends take.")
@click.option("--tabs", default=64, show_default=True, help="How many renew at the same time.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
def main(
    database: str | None, leases: int, ending: int, over: float, tabs: int, is_json: bool
) -> None:
    """Measure renewals, reclaim and memory with many live leases."""
    if not 0 < ending < leases:
        raise click.BadParameter(f"must be between 0 and {leases}, got {ending}")
    with tempfile.TemporaryDirectory(prefix="nimbus-bench-", dir=disk()) as directory:
        url = database or f"sqlite:///{directory}/nimbus.sqlite"
        found = measure(url, leases, ending, timedelta(seconds=over), tabs)
    click.echo(json.dumps(found.as_json(), indent=2) if is_json else found.as_text())
    if not found.is_met:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
