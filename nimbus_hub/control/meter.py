"""The meter: how busy what leases hold is, added up in their figures.

Executors tell what each replica used since its start, sessions report it of themselves. What
is new of it is added to the lease. What of a replica's use was added is noted with it in the
same write, so that a service that takes over counts on from there: nothing twice, and of what
was used while nobody looked nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from nimbus_hub.control.activity import Activity
from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.metrics import Metrics
from nimbus_hub.control.records import Records
from nimbus_hub.control.specs import attempt_replicas
from nimbus_hub.errors import NimbusError, Unavailable
from nimbus_hub.executors.base import Executor
from nimbus_hub.model.job import Job, JobState
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.replica import Replica, Usage
from nimbus_hub.model.usage import LeaseUse
from nimbus_hub.store.store import Live

__all__ = ["Meter"]

log = logging.getLogger(__name__)

_NOTED = timedelta(minutes=1)
"""How long figures may be in memory alone: what a crash loses of them at most."""

_AT_ONCE = 1000
"""How many leases are noted in one write: others who write must not wait for long."""


@dataclass(slots=True)
class _Count:
    """The figures of a lease, or of a replica what of it is in its lease's; in seconds."""

    lease_id: str
    cpu: float
    gpu: float
    host: str = ""
    is_new: bool = False
    """Whether the store does not have it yet."""
    network: tuple[int, int] | None = None
    """What a replica received and sent; None until it is known what was counted before."""

    def raise_by(self, cpu: float, gpu: float) -> None:
        """Add what is new."""
        if cpu or gpu:
            self.cpu += cpu
            self.gpu += gpu
            self.is_new = True


class Meter:
    """Measures every few seconds; writes once a minute and when a lease is over."""

    def __init__(
        self,
        records: Records,
        inventory: Inventory,
        activity: Activity,
        metrics: Metrics,
        every: timedelta,
    ) -> None:
        self._records = records
        self._inventory = inventory
        self._activity = activity
        self._metrics = metrics
        self._every = every
        self._leases: dict[str, _Count] = {}
        self._replicas: dict[str, _Count] = {}
        self._looked_at: datetime | None = None
        self._noted_at = records.clock.now()
        records.listen(self._hear)

    async def prepare(self) -> None:
        """Learn what runs, before anybody records the end of what ended while no service ran."""
        self._follow_live(await self._records.live())

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            await self._try_step(is_last=False)
            await asyncio.sleep(self._every.total_seconds())

    async def close(self) -> None:
        """Measure for the last time, and write all of it."""
        await self._try_step(is_last=True)

    async def _try_step(self, *, is_last: bool) -> None:
        try:
            await self.step(is_last=is_last)
        except Unavailable as error:
            log.warning("use cannot be noted yet: %s", error)
        except Exception:
            log.exception("use could not be measured")
            self._metrics.errors.inc()

    async def step(self, *, is_last: bool = False) -> None:
        """Measure once; write what is due, or all of it when this is the last time."""
        replicas, leases = set(self._replicas), set(self._leases)
        live = await self._records.live()
        self._follow_live(live)
        measured = await self._measure()
        for replica_id, used in measured.items():
            self._add(replica_id, used)
        self._metrics.memory_bytes.set(sum(used.memory_bytes for used in measured.values()))
        now = self._records.clock.now()
        for lease in live.leases:
            if lease.state.is_holding:
                self._look_at(lease, now)
        self._looked_at = now
        # What was known before and is live no more is over: these were its last figures.
        over = leases - {lease.id for lease in live.leases}
        await self._note(now, over, is_all=is_last)
        for replica_id in replicas - {replica.id for replica in live.replicas}:
            del self._replicas[replica_id]
        for lease_id in over - {count.lease_id for count in self._replicas.values()}:
            del self._leases[lease_id]

    def counted(self, use: LeaseUse) -> LeaseUse:
        """Return what a lease used with what is not written yet."""
        count = self._leases.get(use.lease_id)
        return use if count is None else replace(use, cpu_seconds=count.cpu, gpu_seconds=count.gpu)

    def _hear(self, written: Lease | Job) -> None:
        """Follow the replicas of a new attempt, which may be over before the next look."""
        if not isinstance(written, Job) or written.state is not JobState.STARTING:
            return
        lease = self._records.known(written.lease_id)
        if lease is not None:
            self._follow(lease, attempt_replicas(written, lease), network=(0, 0))

    def _follow_live(self, live: Live) -> None:
        leases = {lease.id: lease for lease in live.leases}
        held = {job.id: leases.get(job.lease_id) for job in live.jobs}
        for replica in live.replicas:
            lease = held[replica.job_id]
            if lease is not None:
                self._follow(lease, [replica])

    def _follow(
        self,
        lease: Lease,
        replicas: Iterable[Replica],
        network: tuple[int, int] | None = None,
    ) -> None:
        self._of(lease)
        for each in replicas:
            if each.id not in self._replicas:
                self._replicas[each.id] = _Count(
                    lease.id, each.cpu_seconds, each.gpu_seconds, each.host, network=network
                )

    def _of(self, lease: Lease) -> _Count:
        if lease.id not in self._leases:
            self._leases[lease.id] = _Count(lease.id, lease.cpu_seconds, lease.gpu_seconds)
        return self._leases[lease.id]

    async def _measure(self) -> dict[str, Usage]:
        """Ask every executor once, for all of its replicas."""
        asked: dict[Executor, list[str]] = {}
        for replica_id, count in self._replicas.items():
            try:
                keeper = self._inventory.keeper(count.host, replica_id)
            except Unavailable:
                continue  # Its host is not known now; what it used meanwhile is counted later.
            asked.setdefault(keeper, []).append(replica_id)
        answers = await asyncio.gather(*(self._ask(*each) for each in asked.items()))
        return {replica_id: used for answer in answers for replica_id, used in answer.items()}

    async def _ask(self, executor: Executor, replica_ids: list[str]) -> Mapping[str, Usage]:
        try:
            return await executor.measure(replica_ids)
        except NimbusError as error:
            log.warning("use cannot be measured: %s", error)
            return {}

    def _add(self, replica_id: str, used: Usage) -> None:
        """Add what a replica used since it was last measured."""
        count = self._replicas[replica_id]
        cpu = max(0.0, used.cpu_seconds - count.cpu)
        gpu = max(0.0, used.gpu_seconds - count.gpu)
        count.raise_by(cpu, gpu)
        self._raise(self._leases[count.lease_id], cpu, gpu)
        network = used.received_bytes, used.sent_bytes
        before, count.network = count.network or network, network
        for direction, new, old in zip(("received", "sent"), network, before, strict=True):
            self._metrics.network_bytes.labels(direction=direction).inc(max(0, new - old))

    def _look_at(self, lease: Lease, now: datetime) -> None:
        """Add what a session reported, tell what a gang used, and count what is held."""
        count = self._of(lease)
        if lease.kind is LeaseKind.SESSION:
            report = self._activity.report(lease.id)
            if report is not None:
                gpu = min(report.gpu_seconds, _most_gpu_seconds(lease, now))
                cpu = report.cpu_seconds
                self._raise(count, max(0.0, cpu - count.cpu), max(0.0, gpu - count.gpu))
        elif lease.kind is LeaseKind.DEBUG:
            self._activity.note_use(lease, count.cpu, count.gpu)
        if self._looked_at is not None and lease.granted_at is not None:
            seconds = (now - max(self._looked_at, lease.granted_at)).total_seconds()
            gpus = sum(slot.all_gpus_milli for slot in lease.slots) / 1000
            self._metrics.gpu_seconds_held.inc(max(0.0, gpus * seconds))

    def _raise(self, count: _Count, cpu: float, gpu: float) -> None:
        count.raise_by(cpu, gpu)
        self._metrics.gpu_seconds_busy.inc(gpu)
        self._metrics.cpu_seconds_used.inc(cpu)

    async def _note(self, now: datetime, over: Set[str], *, is_all: bool) -> None:
        """Write what is new: of leases that are over at once, of the others once a minute."""
        is_due = is_all or now - self._noted_at >= _NOTED
        new = [
            key for key, count in self._leases.items() if count.is_new and (is_due or key in over)
        ]
        for start in range(0, len(new), _AT_ONCE):
            leases = {key: self._leases[key] for key in new[start : start + _AT_ONCE]}
            replicas = {
                key: count
                for key, count in self._replicas.items()
                if count.is_new and count.lease_id in leases
            }
            await self._records.note_usage(_figures(leases), _figures(replicas))
            for count in (*leases.values(), *replicas.values()):
                count.is_new = False
        if is_due:
            self._noted_at = now


def _figures(counts: Mapping[str, _Count]) -> dict[str, Usage]:
    return {key: Usage(count.cpu, gpu_seconds=count.gpu) for key, count in counts.items()}


def _most_gpu_seconds(lease: Lease, now: datetime) -> float:
    """Return what a session can have used of its GPUs: the report is its user's word."""
    held = timedelta(0) if lease.granted_at is None else now - lease.granted_at
    return sum(len(slot.gpus) for slot in lease.slots) * held.total_seconds()
