"""The control layer under random use, faults and crashes, on a clock moved by hand.

The store is real (SQLite); hosts, replicas and notebook servers are simulated, and outlive
the service. Hosts go down, leave and come back; some work may be stopped for other work.
After every step passes are made until nothing changes, then what must always
hold is checked.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
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

from nimbus_hub.control.control import Control
from nimbus_hub.control.settings import Settings
from nimbus_hub.errors import Conflict, Impossible, Unavailable
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.model.cluster import Cluster, Queue
from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.job import Job, JobState, Launch
from nimbus_hub.model.lease import Lease, LeaseKind, LeaseState
from nimbus_hub.model.replica import ReplicaState
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.store.snapshots import SnapshotStore
from nimbus_hub.store.store import Store
from tests.simulation.checks import JOB_SEEN, LEASE_SEEN, check_capacity, check_history
from tests.unit.control_harness import HandFile

T = TypeVar("T")

# A failure is shrunk for minutes before it is told.
pytestmark = pytest.mark.timeout(900)

GIB = 2**30
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
A100 = tuple(Gpu(index, "A100") for index in range(2))
# Two of them share an address, and few ports: these run out as well.
HOSTS = (
    Host("big", 8000, 32 * GIB, A100, address="10.0.0.1", first_port=20000, last_port=20023),
    Host("one", 4000, 8 * GIB, A100[:1], address="10.0.0.1", first_port=20000, last_port=20023),
    Host("cpu", 2000, 4 * GIB, address="10.0.0.2", first_port=20000, last_port=20011),
)
NAMES = [host.name for host in HOSTS]
CLUSTER = Cluster(
    queues=(
        Queue(),
        Queue("urgent", priority=10, may_preempt=True),
        Queue("spare", priority=-10, is_preemptible=True),
    )
)
QUEUES = st.sampled_from([queue.name for queue in CLUSTER.queues])
MINUTES = st.sampled_from([1, 5, 30, 120]).map(lambda minutes: timedelta(minutes=minutes))
# Which of those there are: how many these are may differ from run to run.
WHICH = st.integers(0, 11)
MOST_ROUNDS = 30
# To save documents (10 s), and the longest pause after the hub or a host did not answer.
LATEST = timedelta(seconds=10 + 30)


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time


@dataclass
class Servers:
    """The notebook servers; they live until the hub stops them or they die."""

    alive: set[tuple[str, str]] = field(default_factory=set)
    is_down: bool = False
    is_slow: bool = False

    async def stop(self, owner: str, name: str) -> bool:
        self._reach()
        was_alive = (owner, name) in self.alive
        self.alive.discard((owner, name))
        return not (was_alive and self.is_slow)

    async def running(self) -> frozenset[tuple[str, str]]:
        self._reach()
        return frozenset(self.alive)

    def _reach(self) -> None:
        if self.is_down:
            raise Unavailable("the hub does not answer")


class ServiceMachine(RuleBasedStateMachine):
    """Users, hosts, the hub and time, against one service after another."""

    sessions: Bundle[str] = Bundle("sessions")
    jobs: Bundle[str] = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        # Ids decide who is first among those who come at the same time.
        self.ids = mock.patch("nimbus_hub.control.tokens.secrets.choice", Random(0).choice)
        self.ids.start()
        self.directory = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.clock = HandClock()
        self.servers = Servers()
        self.executor = FakeExecutor(HOSTS, clock=self.clock)
        self.versions: dict[str, int] = {}
        self.asked: set[str] = set()
        self.ill_until = START
        self.away: set[str] = set()
        self.down: set[str] = set()
        self.last_lease: dict[str, Lease] = {}
        self.control = self.service()

    def teardown(self) -> None:
        try:
            self.everything_comes_to_an_end()
        finally:
            self.ids.stop()
            self.control.close()
            self.runner.close()
            self.directory.cleanup()

    def service(self) -> Control:
        """Start a service over what there is."""
        state = Path(self.directory.name)
        control = Control(
            store=Store.open(f"sqlite:///{state / 'nimbus.sqlite'}"),
            snapshots=SnapshotStore(state / "snapshots"),
            executors=[self.executor],
            sessions=self.servers,
            settings=Settings(api_url="http://hub", job_token_secret=b"secret"),
            clock=self.clock,
            cluster_file=HandFile(CLUSTER),
        )
        self.do(control.inventory.refresh())
        self.do(control.scheduling.load())
        self.do(control.reconciler._leftovers.load())
        return control

    def do(self, what: Awaitable[T]) -> T:
        """Run something in the one event loop."""

        async def run() -> T:
            return await what

        return self.runner.run(run())

    def settle(self) -> None:
        """Make passes until nothing changes, twice: replicas run when they are polled."""
        quiet, seen = 0, self.picture()
        for _ in range(MOST_ROUNDS):
            self.do(self.a_pass())
            now = self.picture()
            quiet = quiet + 1 if now == seen else 0
            if quiet == 2:
                return
            seen = now
        raise AssertionError(f"after {MOST_ROUNDS} passes things still change: {seen}")

    async def a_pass(self) -> None:
        await self.control.reconciler.make_pass()
        await self.control.reconciler.settle()

    def picture(self) -> object:
        live = self.control.records.store.live()
        return live, tuple(self.servers.alive), len(self.executor.started)

    @property
    def is_well(self) -> bool:
        """Tell whether everything answers and stops when asked to."""
        is_ill = self.executor.unreachable or self.servers.is_down
        return self.executor.auto_stop and not is_ill

    def leases(self) -> tuple[Lease, ...]:
        return self.control.records.store.leases(limit=10_000)

    def all_jobs(self) -> tuple[Job, ...]:
        return self.control.records.store.jobs(limit=10_000)

    def running_replicas(self) -> list[str]:
        """Return all that ever started and are not over, as their host knows it."""
        return [
            spec.id
            for spec in self.executor.started
            if not self.executor._replicas[spec.id].status.state.is_end
        ]

    def refusable(self, what: Awaitable[object]) -> bool:
        """Do what may be refused for the state things are in; tell whether it was not.

        A pass is made at the same time: each may come first, and neither may undo the other.
        """

        async def race() -> BaseException | None:
            refusal, failure = await asyncio.gather(what, self.a_pass(), return_exceptions=True)
            if isinstance(failure, BaseException):
                raise failure
            return refusal if isinstance(refusal, BaseException) else None

        refusal = self.do(race())
        if refusal is not None and not isinstance(refusal, Conflict):
            raise refusal
        return refusal is None

    # Users

    @rule(
        target=sessions,
        owner=st.sampled_from(["ada", "bob"]),
        name=st.sampled_from(["", "second"]),
        cpus=st.sampled_from([500, 1000, 4000, 9000]),
        gpus=st.integers(0, 2),
        queue=QUEUES,
        length=st.none() | MINUTES,
        wait=st.none() | MINUTES,
    )
    def request(
        self,
        owner: str,
        name: str,
        cpus: int,
        gpus: int,
        queue: str,
        length: timedelta | None,
        wait: timedelta | None,
    ) -> MultipleResults[str] | str:
        groups = [SlotGroup("notebook", 1, cpus, GIB, gpus)]
        try:
            lease = self.control.leases.draft(
                LeaseKind.SESSION,
                owner,
                groups,
                name=name,
                length=length,
                wait=wait,
                wishes=Wishes(queue=queue),
            )
            self.do(self.control.leases.request(lease))
        except (Impossible, Conflict):
            return multiple()
        return lease.id

    @rule(lease_id=sessions)
    def activate(self, lease_id: str) -> None:
        if self.refusable(self.control.leases.activate(lease_id)):
            lease = self.control.records.store.lease(lease_id)
            self.servers.alive.add((lease.owner, lease.name))

    @rule(lease_id=sessions, length=st.none() | MINUTES)
    def renew(self, lease_id: str, length: timedelta | None) -> None:
        self.refusable(self.control.leases.renew(lease_id, length))

    @rule(lease_id=sessions)
    def release(self, lease_id: str) -> None:
        self.asked.add(lease_id)
        self.refusable(self.control.leases.release(lease_id, "given back by its owner"))

    @rule(lease_id=sessions)
    def saved(self, lease_id: str) -> None:
        self.refusable(self.control.leases.saved(lease_id))

    @rule(lease_id=consumes(sessions))
    def server_dies(self, lease_id: str) -> None:
        lease = self.control.records.store.lease(lease_id)
        if not lease.state.is_end:
            self.servers.alive.discard((lease.owner, lease.name))
            self.asked.add(lease_id)
            self.do(self.control.leases.stopped(lease_id, "the session's server ended"))

    @rule(
        target=jobs,
        owner=st.sampled_from(["ada", "bob"]),
        workers=st.integers(1, 3),
        cpus=st.sampled_from([500, 2000]),
        gpus=st.integers(0, 1),
        retries=st.integers(0, 1),
        framework=st.sampled_from(["script", "pytorch"]),
        queue=QUEUES,
        length=st.none() | MINUTES,
    )
    def submit(
        self,
        owner: str,
        workers: int,
        cpus: int,
        gpus: int,
        retries: int,
        framework: str,
        queue: str,
        length: timedelta | None,
    ) -> MultipleResults[str] | str:
        launch = Launch(("python", "train.py"), framework, retries=retries)
        groups = [SlotGroup("worker", workers, cpus, GIB, gpus)]
        submit = self.control.jobs.submit
        try:
            view = self.do(submit(owner, launch, groups, length=length, wishes=Wishes(queue=queue)))
        except Impossible:
            return multiple()
        return view.job.id

    @rule(target=jobs, spare=st.integers(1, 3), urgent=st.integers(1, 2), is_guest=st.booleans())
    def work_that_may_be_stopped_meets_work_that_may_stop_it(
        self, spare: int, urgent: int, is_guest: bool
    ) -> MultipleResults[str]:
        first = self.try_to_submit(spare, 2000, 0 if is_guest else 1, "spare")
        self.settle()
        self.clock.time += timedelta(seconds=1)
        second = self.try_to_submit(urgent, 2000, 1, "urgent")
        return multiple(*first, *second)

    def try_to_submit(self, workers: int, cpus: int, gpus: int, queue: str) -> list[str]:
        launch = Launch(("python", "train.py"), retries=1)
        groups = [SlotGroup("worker", workers, cpus, GIB, gpus)]
        submit = self.control.jobs.submit
        try:
            view = self.do(submit("eve", launch, groups, wishes=Wishes(queue=queue)))
        except Impossible:
            return []
        return [view.job.id]

    @rule(job_id=jobs)
    def stop(self, job_id: str) -> None:
        self.asked.add(self.control.records.store.job(job_id).lease_id)
        self.refusable(self.control.jobs.stop(job_id, "stopped by its owner"))

    @rule(target=jobs, owner=st.sampled_from(["ada", "bob"]), is_lease=st.booleans())
    def change_of_mind(self, owner: str, is_lease: bool) -> MultipleResults[str] | str:
        """Submit and stop at once: the stop meets the grant and the start."""
        launch = Launch(("python", "train.py"))
        groups = [SlotGroup("worker", 1, 500, GIB)]
        try:
            view = self.do(self.control.jobs.submit(owner, launch, groups))
        except Impossible:
            return multiple()
        self.asked.add(view.lease.id)
        if is_lease:
            self.refusable(self.control.leases.release(view.lease.id, "given back by its owner"))
        else:
            self.refusable(self.control.jobs.stop(view.job.id, "stopped by its owner"))
        self.settle()
        job = self.control.records.store.job(view.job.id)
        assert job.state.is_end or job.target is not None, f"the stop of {job} was lost"
        return view.job.id

    @rule(job_id=jobs)
    def release_a_jobs_lease(self, job_id: str) -> None:
        lease_id = self.control.records.store.job(job_id).lease_id
        self.asked.add(lease_id)
        self.refusable(self.control.leases.release(lease_id, "given back by its owner"))

    @rule(job_id=jobs)
    def the_hub_mistakes_a_job_for_a_session(self, job_id: str) -> None:
        lease_id = self.control.records.store.job(job_id).lease_id
        before = self.control.records.store.lease(lease_id)
        assert not self.refusable(self.control.leases.stopped(lease_id, "gone")) or (
            before.state.is_end
        )
        assert not self.refusable(self.control.leases.activate(lease_id)) or (
            before.state is LeaseState.ACTIVE
        )

    @rule(job_id=jobs, fraction=st.floats(0, 1))
    def report(self, job_id: str, fraction: float) -> None:
        self.refusable(self.control.jobs.report(job_id, fraction, "step"))

    # Faults

    @precondition(lambda self: self.running_replicas())
    @rule(which=WHICH, how=st.sampled_from([0, 0, 0, 1, 3, None]))
    def replica_ends(self, which: int, how: int | None) -> None:
        replica = one_of(self.running_replicas(), which)
        if how is None:
            self.executor.lose(replica)
        else:
            self.executor.write(replica, b"the last line\n")
            self.executor.exit(replica, how)

    @rule(is_slow=st.booleans())
    def hosts_change_pace(self, is_slow: bool) -> None:
        """Replicas stay in starting, and ask for time to end, while hosts are slow."""
        self.executor.auto_run = not is_slow
        self.executor.auto_stop = not is_slow
        self.servers.is_slow = is_slow

    @rule(is_unreachable=st.booleans())
    def hosts_stop_answering_or_come_back(self, is_unreachable: bool) -> None:
        self.executor.unreachable = is_unreachable
        self.look_for_hosts()

    @rule(which=WHICH)
    def a_host_leaves(self, which: int) -> None:
        """A machine is taken away, and all that ran there is gone with it."""
        name = one_of(self.busy_hosts(), which)
        self.away.add(name)
        for spec in self.executor.started:
            if spec.host == name and spec.id in self.running_replicas():
                self.executor.lose(spec.id)
        self.look_for_hosts()

    @rule(which=WHICH, minutes=st.sampled_from([0, 1, 3]))
    def a_host_goes_down(self, which: int, minutes: int) -> None:
        """A machine is said to be down; what runs there does not know."""
        self.down.add(one_of(self.busy_hosts(), which))
        self.look_for_hosts()
        self.settle()
        self.clock.time += timedelta(minutes=minutes)

    def busy_hosts(self) -> list[str]:
        """Return the hosts on which something runs, or all."""
        alive = set(self.running_replicas())
        return sorted({s.host for s in self.executor.started if s.id in alive}) or NAMES

    @precondition(lambda self: self.away or self.down)
    @rule()
    def all_hosts_come_back(self) -> None:
        self.away.clear()
        self.down.clear()
        self.look_for_hosts()

    def look_for_hosts(self) -> None:
        self.executor._hosts = tuple(
            replace(host, state=HostState.DOWN) if host.name in self.down else host
            for host in HOSTS
            if host.name not in self.away
        )
        self.do(self.control.reconciler._refresh())

    @rule(is_down=st.booleans())
    def the_hub_goes_or_comes_back(self, is_down: bool) -> None:
        self.servers.is_down = is_down

    @rule(by=st.sampled_from([1, 11, 61, 400, 3600, 90_000]))
    def time_passes(self, by: int) -> None:
        self.clock.time += timedelta(seconds=by)

    @precondition(lambda self: not self.executor.unreachable)
    @rule(passes=st.integers(0, 2))
    def crash(self, passes: int) -> None:
        """Kill the service in the middle of its work, and start another."""

        async def cut_off() -> None:
            acting = [asyncio.ensure_future(self.a_pass()) for _ in range(passes)]
            for _ in range(passes * 3):
                await asyncio.sleep(0)
            steps = list(self.control.reconciler._steps.values())
            for task in [*acting, *steps]:
                task.cancel()
            await asyncio.gather(*acting, *steps, return_exceptions=True)

        self.do(cut_off())
        self.control.close()
        self.control = self.service()

    # What must always hold

    @invariant()
    def rules_hold(self) -> None:
        if not self.is_well:
            self.ill_until = self.clock.now()
        self.settle()
        leases, jobs = self.leases(), self.all_jobs()
        check_capacity(HOSTS, leases)
        self.check_what_runs()
        self.check_replicas(jobs, {lease.id: lease for lease in leases})
        self.check_ends(leases)
        for lease in leases:
            self.check_versions(lease.id, lease.version)
            check_history(self.control.records.store, lease.id, LEASE_SEEN)
        for job in jobs:
            self.check_versions(job.id, job.version)
            shown = job.version + self.control.records.store.lease(job.lease_id).version
            self.check_versions(f"{job.id} as people see it", shown)
            check_history(self.control.records.store, job.id, JOB_SEEN)
            assert job.reason or not job.state.is_end or job.state is JobState.SUCCEEDED, job

    def check_replicas(self, jobs: Iterable[Job], leases: dict[str, Lease]) -> None:
        started = Counter(spec.id for spec in self.executor.started)
        assert not [replica for replica, times in started.items() if times > 1]
        by_id = {job.id: job for job in jobs}
        lost = {
            replica.id
            for job in jobs
            for replica in self.control.records.store.replicas(job.id)
            if replica.state is ReplicaState.LOST
        }
        for replica in set(self.running_replicas()) - lost:
            job = by_id[replica.partition(".")[0]]
            assert not job.state.is_end, f"{replica} runs, and its job is {job.state}"
            assert replica.startswith(f"{job.id}.{job.attempt}."), f"{replica} is of the past"
            assert leases[job.lease_id].state.is_holding, f"{replica} runs without its slots"
        for job in jobs:
            lease = leases[job.lease_id]
            assert job.state.is_end == lease.state.is_end, (job, lease)

    def check_what_runs(self) -> None:
        """What runs for real, leftovers too, never takes more of a host than there is."""
        alive = set(self.running_replicas())
        for host in HOSTS:
            own = [s for s in self.executor.started if s.id in alive and s.host == host.name]
            assert sum(spec.cpus_milli for spec in own) <= host.cpus_milli
            devices = [gpu for spec in own for gpu in spec.gpus]
            assert len(set(devices)) == len(devices), f"a GPU of {host.name} is used twice"

    def check_ends(self, leases: Iterable[Lease]) -> None:
        now = self.clock.now()
        for lease in leases:
            assert lease.reason or not lease.state.is_end, lease
            before = self.last_lease.get(lease.id, lease)
            assert lease == before or lease.version > before.version, (before, lease)
            assert not before.state.is_end or lease == before, (before, lease)
            self.last_lease[lease.id] = lease
            if lease.state.is_end and not before.state.is_end:
                self.check_end(lease, now)
            if lease.state.is_holding and lease.expires_at is not None and now >= lease.expires_at:
                assert lease.target is not None, f"{lease.id} was not asked to end"
            if lease.state.is_holding and lease.ending_at is not None:
                since = max(lease.ending_at, self.ill_until)
                assert now < since + LATEST, f"{lease.id} lives past its end: {lease}"

    def check_end(self, lease: Lease, now: datetime) -> None:
        """A lease ends when somebody asked, its time or patience is over, or its job is."""
        causes = [
            lease.id in self.asked,
            lease.kind is LeaseKind.JOB and lease.reason.startswith("job "),
            lease.expires_at is not None and now >= lease.expires_at,
            lease.wait_until is not None and now >= lease.wait_until,
            lease.active_at is None
            and lease.granted_at is not None
            and now >= lease.granted_at + self.control.settings.start,
            lease.state is LeaseState.LOST and lease.reason.startswith("host "),
            lease.state is LeaseState.PREEMPTED and may_be_preempted(lease),
        ]
        assert any(causes), f"{lease} ended, and nobody asked"

    def check_versions(self, object_id: str, version: int) -> None:
        assert version >= self.versions.get(object_id, 1), f"{object_id} went back"
        self.versions[object_id] = version

    def everything_comes_to_an_end(self) -> None:
        """Once all answer again and all time is over, nothing lives and nothing is held."""
        self.executor.unreachable = self.servers.is_down = False
        self.hosts_change_pace(is_slow=False)
        self.all_hosts_come_back()
        for _ in range(40):
            self.clock.time += timedelta(days=1)
            for replica in self.running_replicas():
                self.executor.exit(replica, 0)
            self.settle()
            live = self.control.records.store.live()
            if not live.leases and not live.jobs:
                return
            is_held = any(lease.state.is_holding for lease in live.leases)
            assert is_held, f"these wait, and nobody holds anything: {live.leases}"
        raise AssertionError(f"these never end: {live}")


def one_of(there_are: list[str], which: int) -> str:
    return there_are[which % len(there_are)]


def may_be_preempted(lease: Lease) -> bool:
    """Tell whether a lease was asked for as preemptible, or is that of a job without GPUs."""
    has_gpus = any(slot.gpus for slot in lease.slots)
    return lease.wishes.queue == "spare" or (lease.kind is LeaseKind.JOB and not has_gpus)


ServiceMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
test_the_service_under_random_use_faults_and_crashes = ServiceMachine.TestCase
