"""The scheduler over a long time, against a ledger that is slow and obviously right.

The ledger keeps nothing but the list of what is held and counts from it anew each time.
100 runs of 100 events each: requests, early ends, renewals, hosts that drain, go and come.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.scheduler.decisions import Plan
from nimbus_hub.scheduler.plan import plan
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
GIB = 2**30
MINUTE = timedelta(minutes=1)

gangs = st.builds(
    SlotGroup,
    role=st.just("worker"),
    count=st.integers(1, 6),
    cpus_milli=st.sampled_from([500, 1000, 4000]),
    memory_bytes=st.sampled_from([GIB, 8 * GIB]),
    gpus=st.sampled_from([1, 1, 2, 4]),
    gpu_models=st.sampled_from([(), (), ("A100",)]),
) | st.builds(
    SlotGroup,
    role=st.just("worker"),
    count=st.integers(1, 4),
    cpus_milli=st.sampled_from([500, 1000]),
    memory_bytes=st.just(GIB),
    gpus=st.just(1),
    gpu_milli=st.sampled_from([250, 300, 500]),
)


@dataclass(frozen=True)
class Promise:
    at: datetime
    changes: int
    """How often leases were renewed or hosts went away before it was given."""


class Ledger:
    """What is held, counted slot by slot."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.held: dict[str, Holding] = {}

    def free(self, name: str) -> tuple[int, int, dict[int, int]]:
        """Return free CPUs, memory and thousandths of each device of a host."""
        host = self.hosts[name]
        cpus, memory = host.cpus_milli, host.memory_bytes
        devices = {gpu.index: 1000 for gpu in host.gpus}
        for holding in self.held.values():
            for slot in holding.slots:
                if slot.host == name:
                    cpus -= slot.cpus_milli
                    memory -= slot.memory_bytes
                    for device in slot.gpus:
                        devices[device] -= slot.gpu_milli
        return cpus, memory, devices

    def check(self) -> None:
        """Nothing is held twice, on any device, host or port."""
        for name in self.hosts:
            cpus, memory, devices = self.free(name)
            assert cpus >= 0
            assert memory >= 0
            assert all(left >= 0 for left in devices.values())
        slots = [slot for holding in self.held.values() for slot in holding.slots]
        ports = Counter((slot.address, port) for slot in slots for port in slot.ports)
        assert all(count == 1 for count in ports.values())

    def room(self, name: str, group: SlotGroup) -> int:
        """Return how many slots of a group fit on a host, one after the other."""
        host = self.hosts[name]
        if host.state is not HostState.READY:
            return 0
        cpus, memory, devices = self.free(name)
        models = {gpu.index: gpu.model for gpu in host.gpus}
        count = 0
        while cpus >= group.cpus_milli and memory >= group.memory_bytes:
            fitting = [
                device
                for device, left in devices.items()
                if left >= group.gpu_milli
                and (not group.gpu_models or models[device] in group.gpu_models)
            ]
            if len(fitting) < group.gpus:
                break
            for device in fitting[: group.gpus]:
                devices[device] -= group.gpu_milli
            cpus, memory, count = cpus - group.cpus_milli, memory - group.memory_bytes, count + 1
        return count

    def fits(self, group: SlotGroup) -> bool:
        """Tell whether a gang fits in one datacenter now."""
        room: Counter[str] = Counter()
        for host in self.hosts.values():
            room[host.datacenter] += self.room(host.name, group)
        return max(room.values()) >= group.count


class SchedulerMachine(RuleBasedStateMachine):
    """Random events; after each, one pass of the scheduler is checked and applied."""

    @initialize(sizes=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=5))
    def build(self, sizes: list[int]) -> None:
        models = ("A100", "T4")
        hosts = [
            Host(
                f"h{at}",
                16_000,
                64 * GIB,
                tuple(Gpu(n, models[at % 2]) for n in range(size)),
                f"10.0.0.{at}",
                datacenter="east" if at < 3 else "west",
                rack=f"r{at % 2}",
            )
            for at, size in enumerate(sizes)
        ]
        self.ledger = Ledger(hosts)
        self.queue: dict[str, Waiting] = {}
        self.promises: dict[str, Promise] = {}
        self.now = START
        self.number = 0
        self.changes = 0

    # Events

    @rule(group=gangs, minutes=st.integers(1, 120))
    def submit(self, group: SlotGroup, minutes: int) -> None:
        self.number += 1
        name = f"l{self.number:05}"
        self.queue[name] = Waiting(name, "ada", (group,), minutes * MINUTE, self.now)
        self.make_pass()

    @rule(minutes=st.integers(1, 60))
    def let_time_pass(self, minutes: int) -> None:
        until = self.now + minutes * MINUTE
        while ends := [each.ends_at for each in self.ledger.held.values() if each.ends_at]:
            if min(ends) > until:
                break
            self.now = min(ends)
            for name, each in list(self.ledger.held.items()):
                if each.ends_at == self.now:
                    del self.ledger.held[name]
            self.make_pass()
        self.now = until
        self.make_pass()

    @rule(data=st.data())
    def end_early(self, data: st.DataObject) -> None:
        if self.ledger.held:
            del self.ledger.held[data.draw(st.sampled_from(sorted(self.ledger.held)))]
            self.make_pass()

    @rule(data=st.data(), minutes=st.integers(1, 60))
    def renew(self, data: st.DataObject, minutes: int) -> None:
        if self.ledger.held:
            name = data.draw(st.sampled_from(sorted(self.ledger.held)))
            held = self.ledger.held[name]
            assert held.ends_at is not None
            self.ledger.held[name] = replace(held, ends_at=held.ends_at + minutes * MINUTE)
            self.changes += 1
            self.make_pass()

    @rule(data=st.data(), state=st.sampled_from(HostState))
    def change_host(self, data: st.DataObject, state: HostState) -> None:
        name = data.draw(st.sampled_from(sorted(self.ledger.hosts)))
        self.ledger.hosts[name] = replace(self.ledger.hosts[name], state=state)
        if state is HostState.DOWN:  # What ran there is lost.
            for lease, held in list(self.ledger.held.items()):
                if any(slot.host == name for slot in held.slots):
                    del self.ledger.held[lease]
        self.changes += 1
        self.make_pass()

    # The pass

    def make_pass(self) -> None:
        snapshot = Snapshot(
            tuple(self.ledger.hosts.values()),
            tuple(self.ledger.held.values()),
            tuple(self.queue.values()),
        )
        decided = plan(snapshot, self.now)
        self.check_first(decided)
        assert decided.preemptions == ()
        for grant in decided.grants:
            self.grant(self.queue.pop(grant.lease_id), grant.slots)
        self.check_promises(decided)

    def check_first(self, decided: Plan) -> None:
        """Who came first starts whenever the ledger has room."""
        if self.queue:
            first = next(iter(self.queue.values()))
            granted = {grant.lease_id for grant in decided.grants}
            assert self.ledger.fits(first.groups[0]) == (first.lease_id in granted)

    def grant(self, waiting: Waiting, slots: tuple[Slot, ...]) -> None:
        (group,) = waiting.groups
        assert len(slots) == group.count
        hosts = [self.ledger.hosts[slot.host] for slot in slots]
        assert len({host.datacenter for host in hosts}) == 1
        assert all(host.state is HostState.READY for host in hosts)
        for slot in slots:
            size = (slot.cpus_milli, slot.memory_bytes, len(slot.gpus), slot.gpu_milli)
            wanted = (group.cpus_milli, group.memory_bytes, group.gpus, group.gpu_milli)
            assert size == wanted
        self.ledger.held[waiting.lease_id] = Holding(
            waiting.lease_id, "ada", slots, self.now + waiting.length, LeaseKind.SESSION
        )
        self.ledger.check()

    def check_promises(self, decided: Plan) -> None:
        """A promise only moves when a lease was renewed or a host went away."""
        for wait in decided.waits:
            promise = self.promises.get(wait.lease_id)
            if promise is not None and promise.changes == self.changes:
                assert self.now < promise.at
                assert wait.starts_by is not None
                assert wait.starts_by <= promise.at
            if wait.starts_by is not None:
                assert wait.starts_by > self.now
                self.promises[wait.lease_id] = Promise(wait.starts_by, self.changes)

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.check()
            assert not set(self.queue) & set(self.ledger.held)


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=100,
    stateful_step_count=100,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
