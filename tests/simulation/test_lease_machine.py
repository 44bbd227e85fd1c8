"""Leases under random use, on a machine whose clocks are set, that sleeps, and crashes.

The control layer, its store (SQLite) and its clock are the real ones; hosts, replicas,
notebook servers and the machine's own clocks are simulated, and outlive the service. Time
passes as it does for the service: it makes a pass when something woke it or when it said that
it would look again. Every write of a lease is checked as it happens.
"""

import asyncio
import tempfile
from collections.abc import Awaitable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import TypeVar
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from nimbus_hub.control.accounting import By, Period
from nimbus_hub.control.bus import Subscription, Warned
from nimbus_hub.control.capacity import host_uses
from nimbus_hub.control.control import Control
from nimbus_hub.control.settings import Settings
from nimbus_hub.errors import Conflict, Impossible, NimbusError, Unavailable
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.model.host import Gpu, Host
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.policy import LeasePolicy
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.store.snapshots import SnapshotStore
from nimbus_hub.store.store import Store
from tests.simulation.checks import JOB_SEEN, LEASE_SEEN, check_capacity, check_history
from tests.unit.machine import START, Machine

T = TypeVar("T")

# A failure is shrunk for minutes before it is told.
pytestmark = pytest.mark.timeout(900)

GIB = 2**30
HOSTS = (
    Host("big", 6000, 16 * GIB, (Gpu(0, "A100"), Gpu(1, "A100")), address="10.0.0.1"),
    Host("one", 3000, 8 * GIB, (Gpu(0, "A100"),), address="10.0.0.2"),
)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
GRACE = 2 * MINUTE
SAVE = 5 * SECOND
LATEST = 2 * SECOND
"""No lease lives longer past its end, but for saving and stopping that take their time."""
BACK_OFF = 30 * SECOND
"""The longest pause after the hub or a host did not answer."""

POLICY = LeasePolicy(
    default=MINUTE,
    longest=5 * MINUTE,
    renewal=MINUTE,
    renewals=6,
    latest_end=8 * MINUTE,
    warnings=(30 * SECOND, 10 * SECOND),
)
SETTINGS = Settings(
    api_url="http://hub",
    job_token_secret=b"secret",
    policies=dict.fromkeys(LeaseKind, POLICY),
    save=SAVE,
    start=30 * SECOND,
    stop_grace=SECOND,
)
LENGTHS = st.none() | st.sampled_from([20 * SECOND, 90 * SECOND, 5 * MINUTE])
WAITS = st.none() | st.sampled_from([10 * SECOND, 2 * MINUTE])
OWNERS = st.sampled_from(["ada", "bob"])
STEPS = st.sampled_from([5 * SECOND, MINUTE, HOUR, 24 * HOUR]).flatmap(
    lambda step: st.sampled_from([step, -step])
)
RAN_OUT = "its lease ran out and was not renewed"
MOST_PASSES = 40


class ServiceClock:
    """The clock of the service that runs now."""

    def __init__(self, machine: "LeaseMachine") -> None:
        self.machine = machine

    def now(self) -> datetime:
        return self.machine.clock.now()


@dataclass
class Servers:
    """The notebook servers; they live until the hub stops them or they die."""

    alive: set[tuple[str, str]] = field(default_factory=set)
    is_down: bool = False

    async def stop(self, owner: str, name: str) -> bool:
        self._reach()
        self.alive.discard((owner, name))
        return True

    async def running(self) -> frozenset[tuple[str, str]]:
        self._reach()
        return frozenset(self.alive)

    def _reach(self) -> None:
        if self.is_down:
            raise Unavailable("the hub does not answer")


class LeaseMachine(RuleBasedStateMachine):
    """Users and the machine's clocks, against one service after another."""

    sessions: Bundle[str] = Bundle("sessions")
    jobs: Bundle[str] = Bundle("jobs")
    gangs: Bundle[str] = Bundle("gangs")

    def __init__(self) -> None:
        super().__init__()
        # Ids decide who is first among those who come at the same time.
        self.resources = ExitStack()
        choice = Random(0).choice
        self.resources.enter_context(mock.patch("nimbus_hub.control.tokens.secrets.choice", choice))
        self.state = Path(self.resources.enter_context(tempfile.TemporaryDirectory()))
        self.runner = self.resources.enter_context(asyncio.Runner())
        self.machine = Machine()
        self.servers = Servers()
        self.executor = FakeExecutor(HOSTS, clock=ServiceClock(self))
        self.seen: dict[str, Lease] = {}
        self.failures: list[AssertionError] = []
        self.asked: set[str] = set()
        self.ended_servers: dict[tuple[str, str], datetime] = {}
        self.promised: dict[str, tuple[timedelta, timedelta]] = {}
        self.warned: set[tuple[str, datetime | None]] = set()
        self.ill_until = self.returned_at = self.graced_at = START - HOUR
        self.swept = self.woken_at = self.machine.uptime
        self.held = {"cpus": 0, "gpus": 0}
        self.counted_at = self.latest = START
        self.start()

    def teardown(self) -> None:
        try:
            self.everything_comes_to_an_end()
        finally:
            self.control.close()
            self.resources.close()

    # The service

    def start(self) -> None:
        """Start a service over what there is, as its composition root does."""
        store = Store.open(f"sqlite:///{self.state / 'nimbus.sqlite'}")
        last = store.last_beat() if store.leases(is_live=True, limit=1) else None
        self.clock = self.machine.clock(last)
        self.control = Control(
            store=store,
            snapshots=SnapshotStore(self.state / "snapshots"),
            executors=[self.executor],
            sessions=self.servers,
            settings=SETTINGS,
            clock=self.clock,
            heartbeat=self.clock.heartbeat,
        )
        self.control.records.listen(self.hear)
        self.hearing = self.control.bus.subscribe(lambda change: isinstance(change, Warned))
        self.warnings: Subscription = self.hearing.__enter__()
        self.count()
        self.do(self.control.reconciler.prepare())

    def do(self, what: Awaitable[T]) -> T:
        """Run something in the one event loop."""

        async def run() -> T:
            return await what

        return self.runner.run(run())

    async def act(self) -> datetime:
        """Make passes for as long as something wakes the service; return when it looks again."""
        for _ in range(MOST_PASSES):
            self.control.reconciler._woken.clear()
            next_look = await self.control.reconciler.make_pass()
            await self.control.reconciler.settle()
            if not self.control.reconciler._woken.is_set():
                return next_look
        raise AssertionError(f"{MOST_PASSES} passes, and it is still awake: {self.seen}")

    def pass_by(self, time: timedelta) -> None:
        """Let time pass while the service acts."""
        end = self.machine.uptime + time
        while True:
            pause = self.do(self.act()) - self.clock.now()
            self.check_now()
            if self.machine.uptime >= end:
                return
            pause = min(max(pause, SECOND / 100), end - self.machine.uptime)
            self.machine.pass_by(pause)
            self.count()
            if not self.is_well:
                self.ill_until = self.clock.now()
            if self.machine.uptime - self.swept >= SETTINGS.sweep:
                self.swept = self.machine.uptime
                if not self.servers.is_down:
                    self.do(self.control.reconciler._sweep_sessions())

    def return_after(self, time: timedelta) -> None:
        """Note that the service is back; it was away, or only started again."""
        self.returned_at = self.clock.now()
        if time >= 40 * SECOND:
            self.graced_at, self.woken_at = self.returned_at, self.machine.uptime
        self.pass_by(timedelta(0))

    @property
    def is_well(self) -> bool:
        """Tell whether everything answers and stops when asked to."""
        return self.executor.auto_stop and not self.servers.is_down

    def count(self) -> None:
        """Add up what was held since this was last done, by the service's clock."""
        now = self.clock.now()
        time = (now - self.counted_at) // timedelta(microseconds=1)
        is_live = any(not lease.state.is_end for lease in self.seen.values())
        assert time >= 0 or not is_live, "the service's clock went back"
        self.counted_at, self.latest = now, max(now, self.latest)
        for lease in self.seen.values():
            for slot in lease.slots if lease.state.is_holding else ():
                self.held["cpus"] += slot.cpus_milli * time
                self.held["gpus"] += slot.all_gpus_milli * time

    def refusable(self, *what: Awaitable[object]) -> list[object]:
        """Do what may be refused, all at once and while a pass is made; return what was not."""

        async def race() -> list[object]:
            *found, failure = await asyncio.gather(*what, self.act(), return_exceptions=True)
            if isinstance(failure, BaseException):
                raise failure
            return found

        results = self.do(race())
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Conflict):
                raise result
        return [result for result in results if not isinstance(result, BaseException)]

    # What is seen of each write

    def hear(self, written: Lease | Job) -> None:
        """Check what is written; a step of the service would only log that it failed."""
        if isinstance(written, Job):
            return
        try:
            self.check_write(written)
        except AssertionError as error:
            self.failures.append(error)

    def check_write(self, written: Lease) -> None:
        before = self.seen.get(written.id)
        self.seen[written.id] = written
        for change in list(self.warnings._changes):
            assert isinstance(change, Warned)
            self.warned.add((change.lease.id, change.lease.expires_at))
        now = self.clock.now()
        if before is None:
            assert written.state is LeaseState.QUEUED
            return
        assert written.version == before.version + 1, (before, written)
        assert not before.state.is_end, (before, written)
        if written.expires_at != before.expires_at:
            self.check_new_end(before, written, now)
        is_asked = before.target is not None
        if not is_asked and (written.target is not None or written.state.is_end):
            self.check_cause(before, written, now)
        if written.state.is_end:
            assert written.reason, written
            assert written.ended_at == now
            if is_asked:
                self.check_stopped_in_time(written, now)

    def check_new_end(self, before: Lease, lease: Lease, now: datetime) -> None:
        assert lease.expires_at is not None
        assert lease.latest_end is not None
        self.promised[lease.id] = (self.machine.uptime, lease.expires_at - now)
        assert before.expires_at is None or lease.expires_at > before.expires_at, (before, lease)
        is_told = lease.note != before.note and lease.note.startswith("the service was away")
        if is_told or lease.expires_at > lease.latest_end:
            assert lease.expires_at == self.graced_at + GRACE, lease
            assert lease.kind is not LeaseKind.JOB

    def check_cause(self, before: Lease, lease: Lease, now: datetime) -> None:
        """Every end has a reason, and it is so."""
        reason = lease.reason
        if reason == RAN_OUT:
            self.check_ran_out(before, lease, now)
        elif reason.startswith("nothing was free within"):
            assert before.wait_until is not None
            assert before.wait_until <= now <= max(before.wait_until, self.returned_at) + LATEST
        elif reason.startswith("the session did not start within"):
            assert before.granted_at is not None
            assert before.state is LeaseState.GRANTED
            assert now >= before.granted_at + SETTINGS.start
        elif reason == "the session's server is gone":
            assert (lease.owner, lease.name) not in self.servers.alive
        elif reason.startswith("its session ended"):
            parent = self.seen[lease.parent or ""]
            assert parent.target is not None or parent.state.is_end
        elif reason.startswith(("job ", "its warm replicas failed")):
            assert lease.kind is not LeaseKind.SESSION
        elif LeaseState.PREEMPTED in (lease.state, lease.target):
            # Work without GPUs is a guest on hosts that have some.
            assert lease.kind is LeaseKind.JOB
            assert not any(slot.gpus for slot in lease.slots)
        else:
            assert lease.id in self.asked, f"{lease} ends, and nobody asked"

    def check_ran_out(self, before: Lease, lease: Lease, now: datetime) -> None:
        """Neither early, nor late, nor without a word."""
        assert before.expires_at is not None
        late = now - before.expires_at
        assert late >= timedelta(0), f"{late} early: {lease}"
        assert now <= max(before.expires_at, self.returned_at) + LATEST, f"{late} late: {lease}"
        promised_at, length = self.promised[lease.id]
        passed = self.machine.uptime - promised_at
        assert passed >= length - passed / 500, f"{length} were promised, it had {passed}: {lease}"
        if lease.kind is not LeaseKind.JOB and promised_at < self.woken_at:
            assert now >= self.graced_at + GRACE, f"nobody could act in time: {lease}"
        if lease.length > POLICY.warnings[0] and self.returned_at < before.expires_at:
            assert (lease.id, before.expires_at) in self.warned, f"nobody was warned: {lease}"

    def check_stopped_in_time(self, lease: Lease, now: datetime) -> None:
        assert lease.ending_at is not None
        since = max(lease.ending_at, self.returned_at, self.ill_until + BACK_OFF)
        time = SAVE if lease.kind is LeaseKind.SESSION else timedelta(0)
        assert now <= since + time + LATEST, f"{now - since} to stop: {lease}"

    def check_now(self) -> None:
        """Nothing is over that was not noticed."""
        for failure in self.failures:
            raise failure
        now = self.clock.now()
        for lease in self.seen.values():
            if lease.state is LeaseState.QUEUED:
                assert lease.wait_until is None or now < lease.wait_until, lease
            if lease.state.is_holding and lease.target is None:
                assert lease.expires_at is not None
                assert now < lease.expires_at, lease

    # Users

    @rule(
        target=sessions,
        owner=OWNERS,
        name=st.sampled_from(["", "second"]),
        cpus=st.sampled_from([500, 2000]),
        gpus=st.integers(0, 2),
        length=LENGTHS,
        wait=WAITS,
        is_started=st.booleans(),
    )
    def request(
        self,
        owner: str,
        name: str,
        cpus: int,
        gpus: int,
        length: timedelta | None,
        wait: timedelta | None,
        is_started: bool,
    ) -> MultipleResults[str] | str:
        groups = [SlotGroup("notebook", 1, cpus, GIB, gpus)]
        leases = self.control.leases
        try:
            draft = leases.draft(
                LeaseKind.SESSION, owner, groups, name=name, length=length, wait=wait
            )
            self.do(leases.request(draft))
        except (Impossible, Conflict):
            return multiple()
        if is_started:
            self.pass_by(timedelta(0))
            self.activate(draft.id)
        return draft.id

    @rule(lease_id=sessions)
    def activate(self, lease_id: str) -> None:
        lease = self.seen[lease_id]
        was_active = lease.state is LeaseState.ACTIVE
        if self.refusable(self.control.leases.activate(lease_id)) and not was_active:
            self.servers.alive.add((lease.owner, lease.name))

    @rule(lease_id=st.one_of(sessions, gangs), length=LENGTHS)
    def renew(self, lease_id: str, length: timedelta | None) -> None:
        self.refusable(self.control.leases.renew(lease_id, length))

    @rule(lease_id=st.one_of(sessions, gangs), length=LENGTHS)
    def renew_in_two_tabs(self, lease_id: str, length: timedelta | None) -> None:
        """Both are told the same, and it counts once."""
        before = self.seen[lease_id].renewals
        renew = self.control.leases.renew
        found = self.refusable(renew(lease_id, length), renew(lease_id, length))
        assert len({(lease.expires_at, lease.renewals) for lease in found}) <= 1  # type: ignore[attr-defined]
        assert self.seen[lease_id].renewals <= before + 1

    @rule(lease_id=st.one_of(sessions, gangs), length=LENGTHS)
    def renew_at_the_last_moment(self, lease_id: str, length: timedelta | None) -> None:
        lease = self.seen[lease_id]
        if not lease.state.is_holding or lease.target is not None or lease.expires_at is None:
            return
        self.pass_by(lease.expires_at - self.clock.now() - SECOND / 2)
        if self.seen[lease_id].expires_at != lease.expires_at:
            return
        self.renew(lease_id, length)
        lease = self.seen[lease_id]
        self.pass_by(SECOND)
        if lease.target is None and lease.expires_at != lease.latest_end and length != MINUTE:
            assert lease.expires_at is not None

    @rule(lease_id=st.one_of(sessions, gangs))
    def release(self, lease_id: str) -> None:
        self.asked.add(lease_id)
        self.refusable(self.control.leases.release(lease_id, "given back by its owner"))

    @rule(lease_id=sessions)
    def saved(self, lease_id: str) -> None:
        self.refusable(self.control.leases.saved(lease_id))

    @rule(lease_id=consumes(sessions), is_told=st.booleans())
    def server_dies(self, lease_id: str, is_told: bool) -> None:
        """The hub tells of it, or the service finds out."""
        lease = self.seen[lease_id]
        if lease.state.is_end:
            return
        self.servers.alive.discard((lease.owner, lease.name))
        if is_told:
            self.asked.add(lease_id)
            self.do(self.control.leases.stopped(lease_id, "the session's server ended"))
        elif lease.state is LeaseState.ACTIVE:
            self.pass_by(2 * SETTINGS.sweep + SECOND)
            if not self.servers.is_down:
                assert self.seen[lease_id].state.is_end, "it is held by nobody"

    @rule(
        target=jobs,
        owner=OWNERS,
        workers=st.integers(1, 2),
        gpus=st.integers(0, 1),
        retries=st.integers(0, 1),
        length=LENGTHS,
    )
    def submit(
        self, owner: str, workers: int, gpus: int, retries: int, length: timedelta | None
    ) -> MultipleResults[str] | str:
        launch = Launch(("python", "train.py"), retries=retries)
        groups = [SlotGroup("worker", workers, 1000, GIB, gpus)]
        try:
            view = self.do(self.control.jobs.submit(owner, launch, groups, length=length))
        except Impossible:
            return multiple()
        return view.job.id

    @rule(job_id=jobs)
    def stop(self, job_id: str) -> None:
        self.asked.add(self.control.records.store.job(job_id).lease_id)
        self.refusable(self.control.jobs.stop(job_id, "stopped by its owner"))

    @rule(
        target=gangs,
        owner=OWNERS,
        workers=st.integers(1, 2),
        gpus=st.integers(0, 1),
        length=LENGTHS,
        session=st.none() | sessions,
    )
    def hold(
        self, owner: str, workers: int, gpus: int, length: timedelta | None, session: str | None
    ) -> MultipleResults[str] | str:
        groups = [SlotGroup("worker", workers, 1000, GIB, gpus)]
        parent = None if session is None else self.seen[session]
        request = self.control.gangs.request
        try:
            gang = self.do(
                request(
                    parent.owner if parent else owner,
                    "script",
                    groups,
                    length=length,
                    parent=parent,
                )
            )
        except NimbusError:
            return multiple()
        self.pass_by(timedelta(0))
        return gang.lease.id

    @rule(target=jobs, lease_id=gangs)
    def run(self, lease_id: str) -> MultipleResults[str] | str:
        gangs = self.control.gangs
        launch = Launch(("python", "train.py"))
        try:
            view = self.do(gangs.submit(self.do(gangs.find(lease_id)), launch))
        except Conflict:
            return multiple()
        return view.job.id

    # Faults

    @precondition(lambda self: self.running_replicas())
    @rule(which=st.integers(0, 11), code=st.sampled_from([0, 0, 1, None]))
    def replica_ends(self, which: int, code: int | None) -> None:
        running = self.running_replicas()
        replica = running[which % len(running)]
        if code is None:
            self.executor.lose(replica)
        else:
            self.executor.exit(replica, code)

    def running_replicas(self) -> list[str]:
        """Return all that ever started and are not over, as their host knows it."""
        replicas = self.executor._replicas
        return [
            each.id for each in self.executor.started if not replicas[each.id].status.state.is_end
        ]

    @rule(is_slow=st.booleans(), is_down=st.booleans())
    def hosts_and_hub_change_pace(self, is_slow: bool, is_down: bool) -> None:
        self.executor.auto_stop = not is_slow
        self.servers.is_down = is_down
        self.ill_until = self.clock.now()

    @rule(by=st.sampled_from([1, 9, 20, 45, 130]))
    def time_passes(self, by: int) -> None:
        self.pass_by(by * SECOND)

    @rule(step=STEPS)
    def the_system_clock_is_set(self, step: timedelta) -> None:
        before = self.clock.now()
        self.machine.system += step
        assert self.clock.now() == before

    @rule(asleep=st.sampled_from([40 * SECOND, 5 * MINUTE, 10 * HOUR]), step=st.none() | STEPS)
    def the_machine_sleeps(self, asleep: timedelta, step: timedelta | None) -> None:
        self.machine.pass_by(asleep)
        self.machine.system += step or timedelta(0)
        self.count()
        self.return_after(asleep)

    @rule(
        passes=st.integers(0, 2),
        down=st.sampled_from([0, 1, 5, 40, 700]).map(lambda seconds: seconds * SECOND),
        step=st.none() | STEPS,
    )
    def crash(self, passes: int, down: timedelta, step: timedelta | None) -> None:
        """Kill the service in the middle of its work, and start another after a while."""

        async def cut_off() -> None:
            acting = [asyncio.ensure_future(self.act()) for _ in range(passes)]
            for _ in range(passes * 3):
                await asyncio.sleep(0)
            steps = list(self.control.reconciler._steps.values())
            for task in [*acting, *steps]:
                task.cancel()
            await asyncio.gather(*acting, *steps, return_exceptions=True)

        self.do(cut_off())
        self.control.close()
        self.look_after_crash()
        self.machine.pass_by(down)
        self.machine.system += step or timedelta(0)
        self.start()
        self.return_after(down)

    def look_after_crash(self) -> None:
        """Take what was written and told nobody as it is."""
        store = Store.open(f"sqlite:///{self.state / 'nimbus.sqlite'}")
        for lease in store.leases(limit=10_000):
            if self.seen[lease.id].version != lease.version:
                self.hear(lease)
        store.close()

    # What must always hold

    @invariant()
    def rules_hold(self) -> None:
        self.pass_by(timedelta(0))
        store = self.control.records.store
        live, known = store.live(), self.do(self.control.records.live())
        assert by_id(known) == by_id(live)
        leases, jobs = store.leases(limit=10_000), store.jobs(limit=10_000)
        assert {lease.id: lease for lease in leases} == self.seen
        check_capacity(HOSTS, leases)
        self.check_holders(live.jobs)
        self.check_free(leases)
        for lease in leases:
            check_history(store, lease.id, LEASE_SEEN)
            assert lease.reason or not lease.state.is_end, lease
        for job in jobs:
            check_history(store, job.id, JOB_SEEN)
        self.check_accounts()

    def check_holders(self, jobs: tuple[Job, ...]) -> None:
        """What is held is held by somebody."""
        working = {job.lease_id for job in jobs if job.is_holder or job.run == 0}
        for lease in self.seen.values():
            if lease.kind is not LeaseKind.SESSION:
                assert (lease.id in working) == (not lease.state.is_end), lease
            elif lease.state.is_holding and lease.target is None:
                is_alive = (lease.owner, lease.name) in self.servers.alive
                is_starting = lease.state is LeaseState.GRANTED
                found_by = max(self.ill_until, self.returned_at) + 2 * SETTINGS.sweep
                is_looked_for = self.servers.is_down or self.clock.now() <= found_by
                assert is_alive or is_starting or is_looked_for, f"nobody holds it: {lease}"

    def check_free(self, leases: tuple[Lease, ...]) -> None:
        held = [slot for lease in leases if not lease.state.is_end for slot in lease.slots]
        for use in host_uses(HOSTS, leases):
            own = [slot for slot in held if slot.host == use.host.name]
            assert use.cpus_free_milli == use.host.cpus_milli - sum(s.cpus_milli for s in own)
            gpus = sum(len(slot.gpus) for slot in own)
            assert len(use.free_gpus()) == len(use.host.gpus) - gpus

    def check_accounts(self) -> None:
        """What everybody held adds up to what was held."""
        period = Period(START - 365 * 24 * HOUR, self.latest + SECOND)
        report = self.do(self.control.accounting.report(period, By.USER, None))
        total = {"cpus": report.total.cpus_milli, "gpus": report.total.gpus_milli}
        assert total == self.held
        assert sum(each.cpus_milli for each in report.items.values()) == self.held["cpus"]

    def everything_comes_to_an_end(self) -> None:
        """Once all answer again and time is over, nothing is held, and all can be had again."""
        self.hosts_and_hub_change_pace(is_slow=False, is_down=False)
        for _ in range(100):
            for replica in self.running_replicas():
                self.executor.exit(replica, 0)
            self.pass_by(MINUTE)
            if all(lease.state.is_end for lease in self.seen.values()):
                break
        else:
            store = self.control.records.store
            raise AssertionError(f"these never end: {store.live().jobs} {store.live().leases}")
        self.rules_hold()
        wholes = [SlotGroup("notebook", 1, host.cpus_milli, GIB, len(host.gpus)) for host in HOSTS]
        for number, whole in enumerate(wholes):
            draft = self.control.leases.draft(LeaseKind.SESSION, f"owner-{number}", [whole])
            self.do(self.control.leases.request(draft))
        self.pass_by(timedelta(0))
        granted = [lease for lease in self.seen.values() if lease.state.is_holding]
        assert len(granted) == len(HOSTS), "not all that was given back can be had"


def by_id(live: tuple[tuple[object, ...], ...]) -> list[dict[str, object]]:
    return [{each.id: each for each in records} for records in live]  # type: ignore[attr-defined]


LeaseMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
test_leases_under_random_use_on_a_machine_with_bad_clocks = LeaseMachine.TestCase
