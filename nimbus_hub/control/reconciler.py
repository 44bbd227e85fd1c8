"""The reconciler: the one loop that acts.

It is woken by every write, by every executor that saw a change, and by the clock. Each
pass reads the live records, ends what is due, asks the scheduler who gets what, and takes
every job a step further, each job on its own so that a slow host holds up nobody else.
News that a job waits for has it stepped at once: the pass may be waiting for the scheduler.
A restart is just another pass: all live records are looked at again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence, Set
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

from nimbus_hub.control.absences import Absences
from nimbus_hub.control.devices import Devices
from nimbus_hub.control.gangs import Gangs
from nimbus_hub.control.granting import Granting
from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.leftovers import Leftovers
from nimbus_hub.control.metrics import Metrics
from nimbus_hub.control.reaper import Reaper
from nimbus_hub.control.records import Records
from nimbus_hub.control.retention import Retention
from nimbus_hub.control.runner import Runner
from nimbus_hub.control.scheduling import Scheduling
from nimbus_hub.control.specs import job_id_of
from nimbus_hub.errors import Conflict, Unavailable
from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState

__all__ = ["Reconciler"]

log = logging.getLogger(__name__)

_TICK = timedelta(seconds=1)
_IDLE = timedelta(seconds=10)
_INVENTORY = timedelta(minutes=1)
_LEFTOVERS = "leftovers"
_RETENTION = "retention"
_DEVICES = "devices"
_LEFT_OVER = "left over"
_LONGEST_BACKOFF_SECONDS = 30.0
_SHORT_PASS_SECONDS = 0.02
_LONGEST_REST_SECONDS = 0.25


class Reconciler:
    """Brings the world to what the records want."""

    def __init__(
        self,
        records: Records,
        inventory: Inventory,
        scheduling: Scheduling,
        absences: Absences,
        leftovers: Leftovers,
        gangs: Gangs,
        granting: Granting,
        reaper: Reaper,
        runner: Runner,
        retention: Retention,
        devices: Devices,
        metrics: Metrics,
        *,
        sweep: timedelta,
    ) -> None:
        self._records = records
        self._inventory = inventory
        self._scheduling = scheduling
        self._absences = absences
        self._leftovers = leftovers
        self._gangs = gangs
        self._granting = granting
        self._reaper = reaper
        self._runner = runner
        self._retention = retention
        self._devices = devices
        self._metrics = metrics
        self._sweep = sweep
        self._woken = asyncio.Event()
        self._steps: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, tuple[int, ...]] = {}
        self._wanted_again: set[str] = set()
        self._retry_at: dict[str, datetime] = {}
        self._failures: dict[str, int] = {}
        self._is_prepared = False
        self._is_acting = False
        records.wake = self.wake
        records.listen(self._note)

    def wake(self) -> None:
        """Have a pass made soon."""
        self._woken.set()

    async def prepare(self) -> None:
        """Learn which hosts there are and what was before; requests can be answered then."""
        await self._inventory.refresh()
        await self._scheduling.load()
        await self._leftovers.load()
        self._devices.begin()
        self._inventory.watch(self._hear)
        self._is_prepared = True

    async def run(self) -> None:
        """Act until cancelled."""
        if not self._is_prepared:
            await self.prepare()
        chores = [
            asyncio.create_task(self._every(_INVENTORY, self._refresh)),
            asyncio.create_task(self._every(self._sweep, self._sweep_sessions)),
        ]
        self._is_acting = True
        try:
            await self._passes()
        finally:
            self._is_acting = False
            for task in [*chores, *self._steps.values()]:
                task.cancel()
            await asyncio.gather(*chores, *self._steps.values(), return_exceptions=True)

    async def make_pass(self) -> datetime:
        """Look at everything once; return when to look again at the latest."""
        live = await self._records.live()
        now = self._records.clock.now()
        self._absences.look()
        held = await self._reaper.step(live.leases, live.jobs, now)
        held = await self._gangs.follow_sessions(held)
        await self._granting.step(held, now)
        for job in live.jobs:
            lease = self._records.known(job.lease_id)  # As it is since the scheduler decided.
            if lease is None or lease.state is not LeaseState.QUEUED or job.target is not None:
                self._step(job, lease, now)
        for lease in held:
            if lease.kind is LeaseKind.SESSION and lease.target is not None:
                step = partial(self._reaper.end_session, lease)
                self._take(lease.id, (lease.version,), step, now)
        if self._reaper.has_new_left_over:
            self._take(_LEFT_OVER, (), self._reaper.stop_left_over, now)
        if self._leftovers.are_within_reach:
            self._take(_LEFTOVERS, (), self._leftovers.clear, now)
        if self._retention.is_due(now):
            self._take(_RETENTION, (), self._retention.step, now)
        for host in self._devices.due(now):
            self._take(f"{_DEVICES} of {host}", (), partial(self._devices.look, host), now)
        self._forget_all_but({*(lease.id for lease in held), *(job.id for job in live.jobs)})
        self._metrics.observe(self._inventory.hosts, held, live.jobs, now)
        return self._next_look(held, live.jobs, now)

    async def settle(self) -> None:
        """Wait for the steps that are under way."""
        while self._steps:
            await asyncio.gather(*self._steps.values(), return_exceptions=True)

    def _hear(self, replica_id: str) -> None:
        """Have a job looked at whose replica changed, also if a step of it is under way."""
        job_id = job_id_of(replica_id)
        if job_id in self._steps:
            self._wanted_again.add(job_id)
        elif (job := self._records.known_job(job_id)) is not None:
            self._hurry(job)
        self.wake()

    def _note(self, written: Lease | Job) -> None:
        """Have the jobs looked at that a write is news to."""
        for job in self._records.concerned(written):
            self._hurry(job)

    def _hurry(self, job: Job) -> None:
        """Take a job a step further without waiting for a pass."""
        if self._is_acting and not job.state.is_end:
            self._step(job, self._records.known(job.lease_id), self._records.clock.now())

    def _step(self, job: Job, lease: Lease | None, now: datetime) -> None:
        versions = (job.version, 0 if lease is None else lease.version)
        self._take(job.id, versions, partial(self._runner.step, job), now)

    async def _passes(self) -> None:
        failures = 0
        while True:
            self._woken.clear()
            began = asyncio.get_running_loop().time()
            try:
                with self._metrics.pass_seconds.time():
                    next_look = await self.make_pass()
                failures = 0
            except Exception:
                log.exception("a pass failed")
                self._metrics.errors.inc()
                failures += 1
                await asyncio.sleep(_pause_seconds(0.1, failures))
                continue
            took = asyncio.get_running_loop().time() - began
            # With thousands of leases a pass is work: others get half of the time at least.
            await asyncio.sleep(min(max(0.0, took - _SHORT_PASS_SECONDS), _LONGEST_REST_SECONDS))
            pause = (next_look - self._records.clock.now()).total_seconds()
            # Not wait_for(): on Python 3.11 it loses a cancellation that comes with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause, 0.01)):
                    await self._woken.wait()

    def _take(
        self,
        key: str,
        versions: tuple[int, ...],
        step: Callable[[], Awaitable[None]],
        now: datetime,
    ) -> None:
        """Run one step of a job or an ending session, never two of the same at once.

        What changed while a step was under way is looked at again after it; what did not
        is not, or jobs whose steps overlap would have each other stepped without end.
        """
        if key in self._steps:
            if versions != self._seen[key]:
                self._wanted_again.add(key)
        elif now >= self._retry_at.get(key, now):
            self._seen[key] = versions
            self._steps[key] = asyncio.create_task(self._run_step(key, step))

    async def _run_step(self, key: str, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
            self._failures.pop(key, None)
            self._retry_at.pop(key, None)
        except Conflict:
            self._wanted_again.add(key)
        except Unavailable as error:
            log.warning("%s: %s", key, error)
            self._back_off(key)
        except Exception:
            log.exception("the step of %s failed", key)
            self._metrics.errors.inc()
            self._back_off(key)
        finally:
            del self._steps[key], self._seen[key]
            if key in self._wanted_again:
                self._wanted_again.discard(key)
                job = self._records.known_job(key)
                if job is not None and self._is_acting:
                    self._hurry(job)
                else:
                    self.wake()

    def _back_off(self, key: str) -> None:
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        pause = timedelta(seconds=_pause_seconds(0.25, failures))
        self._retry_at[key] = self._records.clock.now() + pause

    def _forget_all_but(self, live: Set[str]) -> None:
        """Drop what is remembered of the failures of what is over."""
        for key in [key for key in self._failures if key not in live and key not in self._steps]:
            del self._failures[key]
            self._retry_at.pop(key, None)

    def _next_look(self, leases: Sequence[Lease], jobs: Sequence[Job], now: datetime) -> datetime:
        is_moving = any(job.state is not JobState.QUEUED for job in jobs) or any(
            lease.target is not None for lease in leases
        )
        times = [self._reaper.next_due(lease) for lease in leases]
        times += [self._retention.next_due, self._devices.next_due, self._granting.next_due]
        times += [self._absences.next_due(leases)]
        known = [time for time in times if time is not None and time > now]
        warnings = _TICK if any(lease.state.is_holding for lease in leases) else _IDLE
        return min([now + (_TICK if is_moving else warnings), *known])

    async def _every(self, period: timedelta, chore: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(period.total_seconds())
            try:
                await chore()
            except Unavailable as error:
                log.warning("%s", error)
            except Exception:
                log.exception("a chore failed")
                self._metrics.errors.inc()

    async def _refresh(self) -> None:
        await self._inventory.refresh()
        self._absences.look()
        await self._scheduling.refresh()
        await self._records.refresh()
        self.wake()

    async def _sweep_sessions(self) -> None:
        live = await self._records.live()
        await self._reaper.sweep(live.leases)
        await self._leftovers.sweep()


def _pause_seconds(first: float, failures: int) -> float:
    """Return how long to wait after so many failures: twice as long each time, bounded."""
    doublings = min(failures, 20)  # 2**1024 is no float any more.
    return min(first * 2.0**doublings, _LONGEST_BACKOFF_SECONDS)
