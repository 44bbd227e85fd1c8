"""Activity: what sessions say of themselves, what runs on gangs, and who is idle.

The last report of each session is kept in memory. What a restart of the service forgets, it
takes to have been at the restart: idleness then counts from there, so none ends too early.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from nimbus_hub.control.policies import Policies
from nimbus_hub.control.records import Records
from nimbus_hub.model.activity import (
    Idleness,
    Report,
    gang_idleness,
    idle_sentence,
    session_idleness,
)
from nimbus_hub.model.job import Job
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.policy import LeasePolicy, Signal
from nimbus_hub.model.quantities import format_duration

__all__ = ["Activity"]

_CONFIRMED = timedelta(seconds=5)
"""An end needs a report of its very moment: a kernel may have become busy since the last."""

_OFTEN = timedelta(seconds=30)
_SELDOM = timedelta(seconds=60)
"""How often a session reports whose idleness matters, and one for whom only its use does."""

_SOON = timedelta(seconds=5)


@dataclass(slots=True)
class _Seen:
    """What is known of a lease. ``used`` is what it had used when, in seconds of CPU and GPU."""

    report: Report | None = None
    kept_at: datetime | None = None
    renewals: int = 0
    active_at: dict[Signal, datetime] = field(default_factory=dict)
    used: tuple[datetime, float, float] | None = None
    warned_at: datetime | None = None
    look_at: datetime | None = None


class Activity:
    """Knows who is idle, since when, and what comes of it."""

    def __init__(self, records: Records, policies: Policies) -> None:
        self._records = records
        self._policies = policies
        self._started_at = records.clock.now()
        self._seen: dict[str, _Seen] = {}
        self._followers = Counter[str]()
        self._gangs: Mapping[str, list[Lease]] = {}
        records.listen(self._hear)

    # What happens

    def begin_anew(self, now: datetime) -> None:
        """Count idleness from now: nobody could show that he is there while we were away."""
        self._started_at = now

    def put(self, lease: Lease, report: Report) -> timedelta:
        """Keep a session's report; return when it should send the next one."""
        self._of(lease.id).report = report
        policy, now = self._policies.of(lease), report.received_at
        idle = self.idleness(lease, now)
        if policy.idle is None or idle is None:
            return _SELDOM if policy.idle is None else _OFTEN
        due = [time for time in (idle.warns_at, idle.ends_at) if time is not None]
        if idle.ends_at is not None and idle.ends_at <= now:
            self._records.wake()
        coming = [time - now for time in due if time > now]
        return max(timedelta(seconds=1), min([_OFTEN, *coming]))

    def keep(self, lease: Lease) -> None:
        """Count somebody's word that a lease is wanted as activity now."""
        seen = self._of(lease.id)
        seen.kept_at, seen.warned_at = self._records.clock.now(), None

    @contextmanager
    def following(self, owner: str) -> Iterator[None]:
        """Count a job as attached to its owner's sessions while its output is followed."""
        self._followers[owner] += 1
        try:
            yield
        finally:
            self._followers[owner] -= 1
            self._followers += Counter()  # drops who follows nothing any more

    def note_use(self, gang: Lease, cpu_seconds: float, gpu_seconds: float) -> None:
        """Count a gang's CPUs and GPUs as busy if it used enough since this was last told."""
        seen, now = self._of(gang.id), self._records.clock.now()
        before, seen.used = seen.used, (now, cpu_seconds, gpu_seconds)
        if before is None:
            return
        policy, slots = self._policies.of(gang), max(1, len(gang.slots))
        seconds = slots * max(1.0, (now - before[0]).total_seconds())
        if (cpu_seconds - before[1]) / seconds >= policy.cpu_busy:
            seen.active_at[Signal.CPU] = now
        if (gpu_seconds - before[2]) / seconds >= policy.gpu_busy:
            seen.active_at[Signal.GPU] = now

    def look(self, leases: Iterable[Lease], jobs: Iterable[Job], now: datetime) -> None:
        """Note which sessions and gangs have a job at work now, and whose gangs there are."""
        runs = {job.lease_id for job in jobs if not job.is_holder}
        gangs = defaultdict[str, list[Lease]](list)
        for lease in leases:
            if lease.kind is LeaseKind.DEBUG:
                if lease.parent is not None:
                    gangs[lease.parent].append(lease)
                if lease.id in runs:
                    self._note_run(lease, now)
            elif lease.kind is LeaseKind.SESSION and lease.owner in self._followers:
                self._note_job(lease.id, now)
        self._gangs = dict(gangs)

    # What is known

    def report(self, lease_id: str) -> Report | None:
        """Return what a session last said of itself, if it did since the service started."""
        seen = self._seen.get(lease_id)
        return seen.report if seen is not None else None

    def idleness(self, lease: Lease, now: datetime) -> Idleness | None:
        """Return since when a lease is idle; None while it may not be, or never ends by it."""
        policy = self._policies.of(lease)
        if policy.idle is None or lease.state is not LeaseState.ACTIVE or lease.target:
            return None
        seen = self._seen.get(lease.id) or _Seen()
        times = (self._started_at, lease.active_at, seen.kept_at)
        floor = max(time for time in times if time is not None)
        if lease.kind is LeaseKind.DEBUG:
            idle = gang_idleness(policy, seen.active_at, floor)
        else:
            jobs_at = seen.active_at.get(Signal.JOBS)
            idle = session_idleness(policy, seen.report, jobs_at, floor, now)
        return idle and _warned_in_time(idle, policy, seen.warned_at, now)

    def due(self, lease: Lease, now: datetime) -> Idleness | None:
        """Return the idleness of a lease that is to be warned of or ended; None if it is not.

        Who is not close to it is not looked at in every pass: they are thousands.
        """
        if self._policies.of(lease).idle is None:
            self.forget_told(lease)
            return None
        seen = self._of(lease.id)
        if seen.look_at is not None and now < seen.look_at:
            return None
        idle = self.idleness(lease, now)
        if idle is not None and now >= idle.warns_at:
            return idle
        self.forget_told(lease)
        soon = now + _SOON
        seen.look_at = soon if idle is None else min(soon, idle.warns_at)
        return None

    def idle_gangs(self, session: Lease, now: datetime) -> list[Lease]:
        """Return the gangs of a session of which its user is to be told that they do nothing."""
        return [gang for gang in self._gangs.get(session.id, ()) if self.note(gang, now)]

    def is_told(self, lease: Lease) -> bool:
        """Tell whether people were warned that a lease is idle."""
        seen = self._seen.get(lease.id)
        return seen is not None and seen.warned_at is not None

    def tell(self, lease: Lease, now: datetime) -> None:
        """Note that people are warned that a lease is idle."""
        self._of(lease.id).warned_at = now

    def forget_told(self, lease: Lease) -> None:
        """Note that a lease is not idle any more: who is idle again is warned again."""
        if lease.id in self._seen:
            self._seen[lease.id].warned_at = None

    def is_over(self, lease: Lease, idle: Idleness, now: datetime) -> bool:
        """Tell whether a lease is to end for its idleness, by what is known of this moment."""
        if idle.ends_at is None or now < idle.ends_at or not self.is_told(lease):
            return False
        if lease.kind is LeaseKind.DEBUG:
            return True
        report = self.report(lease.id)
        return report is not None and report.received_at >= max(idle.ends_at, now - _CONFIRMED)

    def reason(self, idle: Idleness, now: datetime) -> str:
        """Return what was idle and for how long, for people."""
        return f"idle for {format_duration(now - idle.since)}: {idle_sentence(idle.signals)}"

    def note(self, lease: Lease, now: datetime) -> str:
        """Return what people were told of a lease that is idle, empty if it is not."""
        idle = self.idleness(lease, now)
        if idle is None or now < idle.warns_at or not self.is_told(lease):
            return ""
        told = self.reason(idle, now)
        if idle.ends_at is None:
            return f"{told}; keep it, or give it back"
        return f"{told}; it ends at {idle.ends_at:%H:%M} UTC unless it is kept"

    def _of(self, lease_id: str) -> _Seen:
        return self._seen.setdefault(lease_id, _Seen())

    def _note_run(self, gang: Lease, now: datetime) -> None:
        self._note_job(gang.id, now)
        if gang.parent is not None:
            self._note_job(gang.parent, now)

    def _note_job(self, lease_id: str, now: datetime) -> None:
        self._of(lease_id).active_at[Signal.JOBS] = now

    def _hear(self, written: Lease | Job) -> None:
        if isinstance(written, Job):
            gang = self._records.known(written.lease_id)
            # A run may begin and end between two looks.
            if gang is not None and gang.kind is LeaseKind.DEBUG and not written.is_holder:
                self._note_run(gang, self._records.clock.now())
            return
        if written.state.is_end:
            self._seen.pop(written.id, None)
            return
        if written.renewals:
            seen = self._of(written.id)
            if written.renewals != seen.renewals:
                seen.renewals = written.renewals
                self.keep(written)


def _warned_in_time(
    idle: Idleness, policy: LeasePolicy, warned_at: datetime | None, now: datetime
) -> Idleness:
    """Return idleness whose end comes no sooner after its warning than policy says."""
    if idle.ends_at is None or now < idle.warns_at:
        return idle
    return replace(idle, ends_at=max(idle.ends_at, (warned_at or now) + policy.idle_warning))
