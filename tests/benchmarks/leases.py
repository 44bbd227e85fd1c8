"""Leases per second: asked for, granted by a pass and given back, with durable writes.

It drives the control layer as the API does, over a store on a real disk, with hosts that
exist in memory alone: nothing but the service's own work is measured. Everybody asks at
once, a pass grants, everybody gives back; then the next batch.

    python -m tests.benchmarks.leases
    python -m tests.benchmarks.leases --database postgresql://nimbus@/nimbus --seconds 10 --json
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, ParamSpec, TypeVar

import click
import psutil
from sqlalchemy import text

from nimbus_hub.clock import SystemClock
from nimbus_hub.control.control import Control
from nimbus_hub.control.scheduling import ShippedPolicy
from nimbus_hub.control.settings import Settings
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.model.host import Host
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.store.snapshots import SnapshotStore
from nimbus_hub.store.store import Store
from tests.contract.store.postgresql import programs, server

__all__ = ["GOAL", "NoServers", "Rates", "Round", "disk", "durability", "main", "run"]

P = ParamSpec("P")
T = TypeVar("T")

GOAL = 2000
"""Leases per second on SQLite, at least."""

_ROUNDS = 5
_BATCH = 500
_GIB = 2**30
_HOSTS = tuple(Host(f"host-{number:03}", 8000, 64 * _GIB) for number in range(100))
_SLOT = SlotGroup("notebook", cpus_milli=1000, memory_bytes=_GIB)
_DURABILITY = {
    "sqlite": ("journal_mode", "synchronous"),
    "postgresql": ("fsync", "synchronous_commit"),
}
_LEVELS = ("OFF", "NORMAL", "FULL", "EXTRA")
"""How SQLite counts what ``synchronous`` may be."""


class Stopwatch:
    """Adds up the seconds that some calls take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, call: Callable[P, T]) -> Callable[P, T]:
        """Return a call that is timed."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            began = perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += perf_counter() - began

        return timed


Watches = tuple[Stopwatch, Stopwatch]
"""The store's and the scheduler's."""


class TimedStore(Store):
    """A store whose calls are timed; they come from one thread, so none overlap."""

    watch = Stopwatch()

    def __getattribute__(self, name: str) -> Any:
        """Return a public method with the watch around it."""
        found = super().__getattribute__(name)
        return found if name.startswith("_") or name == "watch" else self.watch.around(found)


class TimedPolicy:
    """The shipped policy, timed."""

    def __init__(self) -> None:
        self.watch = Stopwatch()
        self.plan = self.watch.around(ShippedPolicy().plan)
        self.preview = self.watch.around(ShippedPolicy.preview)
        self.refuse = self.watch.around(ShippedPolicy.refuse)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did in how long, and what of that the store and the scheduler took."""

    leases: int
    seconds: float
    store_seconds: float
    plan_seconds: float
    processor_seconds: float

    @property
    def rate(self) -> float:
        """Return the leases per second."""
        return self.leases / self.seconds


@dataclass(frozen=True, slots=True)
class Rates:
    """All rounds on one database."""

    database: str
    durability: str
    rounds: tuple[Round, ...]

    @property
    def median(self) -> float:
        """Return the median of the leases per second."""
        return statistics.median(one.rate for one in self.rounds)

    @property
    def goal(self) -> int | None:
        """Return the least that is good enough, if anything is asked of this database."""
        return GOAL if self.database == "sqlite" else None

    @property
    def is_met(self) -> bool:
        """Tell whether the goal is kept."""
        return self.goal is None or self.median >= self.goal

    @property
    def shares(self) -> dict[str, float]:
        """Return which part of the time went where; the rest is the control layer's own."""
        seconds = sum(one.seconds for one in self.rounds)
        store = sum(one.store_seconds for one in self.rounds) / seconds
        plan = sum(one.plan_seconds for one in self.rounds) / seconds
        return {"store": store, "plan": plan, "rest": 1 - store - plan}

    @property
    def processor_microseconds(self) -> float:
        """Return the processor time of the service for one lease."""
        leases = sum(one.leases for one in self.rounds)
        return sum(one.processor_seconds for one in self.rounds) / leases * 1e6

    def as_text(self) -> str:
        """Return the figures as lines for people."""
        rates = [one.rate for one in self.rounds]
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        lines = [
            f"{self.database} ({self.durability}): {self.median:,.0f} leases/s, "
            f"{min(rates):,.0f} to {max(rates):,.0f}",
            f"  of the time: {shares}; {self.processor_microseconds:.0f} µs of processor a lease",
        ]
        if self.goal is not None:
            verdict = "met" if self.is_met else "MISSED"
            lines.append(f"  goal at least {self.goal:,}: {verdict}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "database": self.database,
            "durability": self.durability,
            "leases_per_second": round(self.median),
            "rounds": [round(one.rate) for one in self.rounds],
            "shares": {name: round(share, 3) for name, share in self.shares.items()},
            "processor_microseconds": round(self.processor_microseconds),
            "goal": self.goal,
            "is_met": self.is_met,
        }


class NoServers:
    """The hub's side: sessions that are stopped are gone at once."""

    async def stop(self, owner: str, name: str) -> bool:
        """Say that the server is gone."""
        return True

    async def running(self) -> frozenset[tuple[str, str]]:
        """Return no server."""
        return frozenset()


def run(seconds: float, url: str | None = None) -> list[Rates]:
    """Measure rounds of so many seconds: on a database, else on SQLite and PostgreSQL."""
    return [_measure(found, seconds) for found in _databases(url)]


def _databases(url: str | None) -> Iterator[str]:
    """Yield URLs of databases, each for as long as it is there."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="nimbus-bench-", dir=disk()) as directory:
        yield f"sqlite:///{directory}/nimbus.sqlite"
    binaries = programs()
    if binaries is not None:
        with server(binaries, is_durable=True, parent=disk()) as found:
            yield found


def disk() -> Path:
    """Return a directory for temporary files that is not in memory."""
    kinds = {Path(found.mountpoint): found.fstype for found in psutil.disk_partitions(all=True)}
    for directory in (Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()):
        path = directory.resolve()
        if next(kinds[at] for at in (path, *path.parents) if at in kinds) not in {"tmpfs", "ramfs"}:
            return path
    raise click.ClickException("no directory for temporary files is on a disk; set TMPDIR to one")


def _measure(url: str, seconds: float) -> Rates:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="nimbus-bench-"))
        store, policy = TimedStore.open(url), TimedPolicy()
        control = Control(
            store=store,
            snapshots=SnapshotStore(Path(directory)),
            executors=[FakeExecutor(_HOSTS)],
            sessions=NoServers(),
            settings=Settings(api_url="http://hub", job_token_secret=b"secret"),
            clock=SystemClock(),
            policy=policy,
        )
        stack.callback(control.close)
        database = url.partition(":")[0]
        rounds = asyncio.run(_rounds(control, (store.watch, policy.watch), seconds))
        return Rates(database, durability(store, database), rounds)


def durability(store: Store, database: str) -> str:
    """Return what the database does to lose nothing, as it says itself."""
    show = "PRAGMA" if database == "sqlite" else "SHOW"
    with store._database.reading() as connection:
        found = {name: connection.scalar(text(f"{show} {name}")) for name in _DURABILITY[database]}
    return ", ".join(
        f"{name}={_LEVELS[value] if isinstance(value, int) else value}"
        for name, value in found.items()
    )


async def _rounds(control: Control, watches: Watches, seconds: float) -> tuple[Round, ...]:
    await control.inventory.refresh()
    await _lifecycles(control)  # to warm up
    return tuple([await _round(control, watches, seconds) for _ in range(_ROUNDS)])


async def _round(control: Control, watches: Watches, seconds: float) -> Round:
    before = [watch.seconds for watch in watches]
    began, processor, leases = perf_counter(), process_time(), 0
    while perf_counter() - began < seconds:
        leases += await _lifecycles(control)
    taken, processor = perf_counter() - began, process_time() - processor
    store, plan = (watch.seconds - since for watch, since in zip(watches, before, strict=True))
    return Round(leases, taken, store, plan, processor)


async def _lifecycles(control: Control) -> int:
    """Take a batch of leases from the request to the end; return how many that were."""

    async def ask(number: int) -> Lease:
        draft = control.leases.draft(LeaseKind.SESSION, f"user-{number}", [_SLOT])
        return await control.leases.request(draft)

    queued = await asyncio.gather(*map(ask, range(_BATCH)))
    await control.reconciler.make_pass()
    ended = await asyncio.gather(
        *(control.leases.stopped(lease.id, "stopped by its owner") for lease in queued)
    )
    if any(lease.state is not LeaseState.RELEASED for lease in ended):
        raise RuntimeError("not all leases of a batch were granted and released")
    return _BATCH


@click.command()
@click.option("--database", help="URL of an empty database; default: new ones for this.")
@click.option("--seconds", default=5.0, show_default=True, help="How long each round takes.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
def main(database: str | None, seconds: float, is_json: bool) -> None:
    """Measure how many leases are granted and released per second."""
    found = run(seconds, database)
    if is_json:
        click.echo(json.dumps([rates.as_json() for rates in found], indent=2))
    else:
        click.echo("\n".join(rates.as_text() for rates in found))
    if not all(rates.is_met for rates in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
