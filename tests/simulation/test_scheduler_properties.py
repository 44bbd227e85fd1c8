"""What holds for the scheduler whatever the cluster, the holdings and the queue."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st

from nimbus_hub.errors import Impossible
from nimbus_hub.model.cluster import Cluster, Queue, Quota, Rules, UserGroup
from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.network import engine_half, part_of, part_starts, slot_addresses
from nimbus_hub.model.slot import PORTS_PER_SLOT, Slot, SlotGroup, Topology
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.capacity import Capacity
from nimbus_hub.scheduler.decisions import Grant, Plan, ReasonCode
from nimbus_hub.scheduler.explain import preview, refuse
from nimbus_hub.scheduler.fragmentation import Fragmentation
from nimbus_hub.scheduler.plan import plan
from nimbus_hub.scheduler.preemption import wants_gpus
from nimbus_hub.scheduler.quota import Held
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
GIB = 2**30
MODELS = ("A100", "T4")
NETWORKS = ("10.64.0.0/24", "10.65.0.0/20")

quick = settings(max_examples=60, deadline=None)

minutes = st.integers(1, 8).map(lambda count: timedelta(minutes=30 * count))


@st.composite
def group(draw: st.DrawFn) -> SlotGroup:
    gpus = draw(st.integers(0, 3))
    return SlotGroup(
        role=draw(st.sampled_from(["worker", "ps", "evaluator"])),
        count=draw(st.integers(1, 5)),
        cpus_milli=draw(st.integers(1, 6)) * 500,
        memory_bytes=draw(st.integers(1, 4)) * GIB,
        gpus=gpus,
        gpu_milli=draw(st.sampled_from([1000, 250, 400])) if gpus == 1 else 1000,
        gpu_models=draw(st.sampled_from([(), (), ("A100",), ("T4",), MODELS])) if gpus else (),
        topology=draw(st.sampled_from([None, None, *Topology])),
    )


groups = st.lists(group(), min_size=1, max_size=3).map(tuple)


@st.composite
def hosts(draw: st.DrawFn) -> tuple[Host, ...]:
    found = []
    for number in range(draw(st.integers(1, 5))):
        models = draw(st.lists(st.sampled_from(MODELS), max_size=4))
        first = draw(st.sampled_from([20000, 20010]))
        found.append(
            Host(
                name=f"h{number}",
                cpus_milli=draw(st.integers(1, 8)) * 1000,
                memory_bytes=draw(st.integers(1, 16)) * GIB,
                gpus=tuple(Gpu(index, model) for index, model in enumerate(models)),
                address=f"10.0.0.{draw(st.integers(1, 3))}",
                datacenter=draw(st.sampled_from(["east", "east", "west"])),
                rack=draw(st.sampled_from(["r1", "r2"])),
                state=draw(st.sampled_from([HostState.READY] * 4 + list(HostState))),
                first_port=first,
                last_port=first + draw(st.sampled_from([10, 40])),
                network=draw(st.sampled_from(["", "", *NETWORKS])),
            )
        )
    return tuple(found)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Return a cluster with holdings that the scheduler itself granted, and a queue."""
    cluster = draw(hosts())
    queue = [
        Waiting(f"l{at}", "ada", wish, draw(minutes), NOW - timedelta(minutes=30 - at))
        for at, wish in enumerate(draw(st.lists(groups, max_size=10)))
    ]
    split = draw(st.integers(0, len(queue)))
    everywhere = tuple(replace(host, state=HostState.READY) for host in cluster)
    before = plan(Snapshot(everywhere, (), tuple(queue[:split])), NOW)
    ends = {each.lease_id: NOW + each.length for each in queue}
    holdings = tuple(
        Holding(
            grant.lease_id,
            "ada",
            grant.slots,
            draw(st.sampled_from([ends[grant.lease_id], ends[grant.lease_id], None, NOW])),
        )
        for grant in before.grants
    )
    return Snapshot(cluster, holdings, tuple(queue[split:]))


@st.composite
def crowded(draw: st.DrawFn) -> Snapshot:
    """Return few full hosts with different ends, and a queue of gangs and small work."""
    cluster = tuple(
        Host(f"h{at}", 64_000, 64 * GIB, tuple(Gpu(n, "A100") for n in range(size)), f"10.0.0.{at}")
        for at, size in enumerate(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    )
    holdings = []
    for host in cluster:
        for gpu in host.gpus:
            if draw(st.integers(0, 3)):
                slot = Slot("worker", 0, host.name, host.address, 1000, GIB, (gpu.index,), ())
                name = f"{host.name}-{gpu.index}"
                holdings.append(Holding(name, "bob", (slot,), NOW + draw(minutes)))
    wishes = st.builds(
        SlotGroup, st.just("worker"), st.integers(1, 4), st.just(1000), st.just(GIB), st.just(1)
    )
    queue = tuple(
        Waiting(f"l{at}", "ada", (wish,), draw(minutes), NOW - timedelta(minutes=30 - at))
        for at, wish in enumerate(draw(st.lists(wishes, min_size=1, max_size=8)))
    )
    return Snapshot(cluster, tuple(holdings), queue)


def held_slots(snapshot: Snapshot, decided: Plan) -> list[Slot]:
    held = [slot for holding in snapshot.holdings for slot in holding.slots]
    return held + [slot for grant in decided.grants for slot in grant.slots]


def after(snapshot: Snapshot, decided: Plan, now: datetime) -> tuple[Holding, ...]:
    """Return what is held at a time if all ends come when they say."""
    lengths = {each.lease_id: each.length for each in snapshot.waiting}
    granted = [
        Holding(grant.lease_id, "", grant.slots, NOW + lengths[grant.lease_id])
        for grant in decided.grants
    ]
    held = [*snapshot.holdings, *granted]
    return tuple(each for each in held if each.ends_at is None or each.ends_at > now)


def assert_no_host_is_over_its_capacity(cluster: Iterable[Host], held: Iterable[Slot]) -> None:
    by_host: dict[str, list[Slot]] = defaultdict(list)
    ports: Counter[tuple[str, int]] = Counter()
    networks = {host.name: host for host in cluster if host.network}
    own = [(networks[slot.host].datacenter, slot.address) for slot in held if slot.host in networks]
    assert len(set(own)) == len(own)
    for slot in held:
        by_host[slot.host].append(slot)
        ports.update((slot.address, port) for port in slot.ports)
    assert all(count == 1 for count in ports.values())
    for host in cluster:
        slots = by_host[host.name]
        devices: Counter[int] = Counter()
        for slot in slots:
            devices.update(dict.fromkeys(slot.gpus, slot.gpu_milli))
        assert sum(slot.cpus_milli for slot in slots) <= host.cpus_milli
        assert sum(slot.memory_bytes for slot in slots) <= host.memory_bytes
        assert all(share <= 1000 for share in devices.values())
        assert set(devices) <= {gpu.index for gpu in host.gpus}


def assert_is_what_was_asked(wish: Waiting, slots: tuple[Slot, ...], cluster: list[Host]) -> None:
    by_name = {host.name: host for host in cluster}
    asked = [each for each in wish.groups for _ in range(each.count)]
    assert len(slots) == len(asked)
    assert len({slot.name for slot in slots}) == len(slots)
    assert len({by_name[slot.host].datacenter for slot in slots}) == 1
    for slot, one in zip(slots, asked, strict=True):
        host = by_name[slot.host]
        models = {gpu.model for gpu in host.gpus if gpu.index in slot.gpus}
        assert host.state is HostState.READY
        assert slot.role == one.role
        if host.network:
            start = IPv4Network(part_of(host.network, slot.address)).network_address
            assert int(IPv4Address(slot.address)) in slot_addresses(host.network, int(start))
        else:
            assert slot.address == host.address
        assert (slot.cpus_milli, slot.memory_bytes) == (one.cpus_milli, one.memory_bytes)
        assert len(slot.gpus) == one.gpus
        assert slot.gpu_milli == one.gpu_milli
        assert not one.gpu_models or models <= set(one.gpu_models)
        assert len(slot.ports) == PORTS_PER_SLOT
        assert all(host.first_port <= port <= host.last_port for port in slot.ports)


@quick
@given(snapshots())
def test_nothing_is_given_twice_and_no_host_holds_more_than_it_has(snapshot: Snapshot) -> None:
    assert_no_host_is_over_its_capacity(snapshot.hosts, held_slots(snapshot, plan(snapshot, NOW)))


@quick
@given(st.lists(snapshots(), min_size=2, max_size=4))
def test_no_two_leases_have_addresses_in_one_part_of_a_network(found: list[Snapshot]) -> None:
    """Over several passes on the hosts of the first, in which some leases end."""
    hosts = {host.name: host for host in found[0].hosts}
    held: list[Holding] = []
    for number, each in enumerate(found):
        held = held[number % 2 :: 2]
        waiting = tuple(replace(w, lease_id=f"{number}.{w.lease_id}") for w in each.waiting)
        decided = plan(Snapshot(found[0].hosts, tuple(held), waiting), NOW)
        held += [Holding(grant.lease_id, "ann", grant.slots, None) for grant in decided.grants]
        owners: dict[tuple[str, str], str] = {}
        for holding in held:
            for slot in holding.slots:
                at = hosts[slot.host]
                if at.network:
                    part = at.datacenter, part_of(at.network, slot.address)
                    assert owners.setdefault(part, holding.lease_id) == holding.lease_id


@quick
@given(st.integers(8, 28), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_the_parts_of_a_network_are_all_of_it_and_do_not_overlap(
    prefix: int, where: int, which: int
) -> None:
    whole = IPv4Network((where, prefix), strict=False)
    starts = part_starts(str(whole))
    assert (starts[0], starts[-1] + starts.step) == (int(whole[0]), int(whole[-1]) + 1)
    address = whole[which % whole.num_addresses]
    part = IPv4Network(part_of(str(whole), str(address)))
    assert address in part
    assert part.num_addresses == starts.step
    slots = slot_addresses(str(whole), int(part.network_address))
    own = IPv4Network(engine_half(str(part)))
    assert own.subnet_of(part)
    assert int(own.broadcast_address) < slots[0] <= slots[-1] < int(part.broadcast_address)
    # A host each may join, beside the network's own address and the gateway.
    assert own.num_addresses - 2 >= len(slots)


@quick
@given(snapshots())
def test_a_gang_gets_exactly_what_it_asked_for_in_one_datacenter(snapshot: Snapshot) -> None:
    wishes = {each.lease_id: each for each in snapshot.waiting}
    for grant in plan(snapshot, NOW).grants:
        assert_is_what_was_asked(wishes[grant.lease_id], grant.slots, list(snapshot.hosts))


@quick
@given(snapshots(), st.randoms(use_true_random=False))
def test_the_same_input_gives_the_same_output_in_any_order(
    snapshot: Snapshot, random: object
) -> None:
    parts = (snapshot.hosts, snapshot.holdings, snapshot.waiting)
    mixed = Snapshot(
        *(tuple(random.sample(part, len(part))) for part in parts)  # type: ignore[attr-defined]
    )
    assert plan(mixed, NOW) == plan(snapshot, NOW)


@quick
@given(snapshots())
def test_every_waiting_lease_is_granted_or_explained_once(snapshot: Snapshot) -> None:
    decided = plan(snapshot, NOW)
    answered = [*(grant.lease_id for grant in decided.grants)]
    answered += [wait.lease_id for wait in decided.waits]
    assert sorted(answered) == sorted(each.lease_id for each in snapshot.waiting)
    assert [wait.position for wait in decided.waits] == list(range(1, len(decided.waits) + 1))
    for wait in decided.waits:
        assert wait.reason
        assert wait.code in ReasonCode
        assert "\n" not in wait.reason
        assert wait.starts_by is None or wait.starts_by > NOW


@quick
@given(crowded() | snapshots())
def test_backfill_never_delays_a_reservation(snapshot: Snapshot) -> None:
    decided = plan(snapshot, NOW)
    wishes = {each.lease_id: each for each in snapshot.waiting}
    for wait in decided.waits:
        if wait.starts_by is not None:
            held = after(snapshot, decided, wait.starts_by)
            alone = Snapshot(snapshot.hosts, held, (wishes[wait.lease_id],))
            assert plan(alone, wait.starts_by).grants


@quick
@given(snapshots())
def test_the_first_in_the_queue_starts_whenever_it_fits(snapshot: Snapshot) -> None:
    if snapshot.waiting:
        first, *others = snapshot.waiting
        if not wants_gpus(first):  # As a guest it would let them go ahead.
            others = [each for each in others if not wants_gpus(each)]
        snapshot = replace(snapshot, waiting=(first, *others))
        alone = plan(replace(snapshot, waiting=(first,)), NOW)
        decided = plan(snapshot, NOW)
        is_granted = first.lease_id in {grant.lease_id for grant in decided.grants}
        assert bool(alone.grants) == is_granted


@quick
@given(snapshots())
def test_what_is_taken_and_given_back_leaves_no_trace(snapshot: Snapshot) -> None:
    rules = snapshot.cluster.rules
    used = Capacity(snapshot.hosts, rules, {}, Fragmentation)
    fresh = Capacity(snapshot.hosts, rules, {}, Fragmentation)
    taken = [used.taken(holding.slots) for holding in snapshot.holdings]
    for each in taken:
        used.take(each)
    copied = used.copy()
    for each in taken:
        used.take(each, -1)
    for each in reversed(taken):
        copied.take(each, -1)
    for wish in snapshot.waiting:
        for name in fresh.fitters:
            expected = fresh.gang(wish.groups, (name,))
            assert used.gang(wish.groups, (name,)) == expected
            assert copied.gang(wish.groups, (name,)) == expected


@quick
@given(hosts(), groups)
def test_what_is_refused_is_what_empty_hosts_do_not_hold(
    cluster: tuple[Host, ...], wish: tuple[SlotGroup, ...]
) -> None:
    # Addresses of their own: that hosts share ports is known only once slots are made.
    ready = tuple(
        replace(host, state=HostState.READY, address=f"10.1.0.{at}", last_port=29999)
        for at, host in enumerate(cluster)
    )
    request = Waiting("dry-run", "ada", wish, timedelta(hours=1), NOW)
    answer = preview(Snapshot(ready), request, NOW).answer
    try:
        refuse(wish, ready)
    except Impossible:
        assert not isinstance(answer, Grant)
    else:
        assert isinstance(answer, Grant)


@quick
@given(hosts(), groups)
def test_a_group_of_equal_slots_fits_exactly_when_its_datacenter_has_room(
    cluster: tuple[Host, ...], wish: tuple[SlotGroup, ...]
) -> None:
    """Compare with counting, for topologies that are no must and without a reserve."""
    one = replace(wish[0], topology=Topology.PACK)
    apart = [
        replace(host, address=f"10.1.0.{at}", last_port=29999, network="")
        for at, host in enumerate(cluster)
    ]
    room: Counter[str] = Counter()
    for host in apart:
        models = [gpu for gpu in host.gpus if not one.gpu_models or gpu.model in one.gpu_models]
        per_device = 1000 // one.gpu_milli
        room[host.datacenter] += min(
            host.cpus_milli // one.cpus_milli,
            host.memory_bytes // one.memory_bytes,
            len(models) * per_device // one.gpus if one.gpus else 10**6,
        )
    rules = Rules(reserve_cpus_milli=0, reserve_memory_bytes=0)
    capacity = Capacity(apart, rules, {}, Fragmentation)
    does_fit = capacity.gang((one,), capacity.fitters) is not None
    assert does_fit == (max(room.values()) >= one.count)


limits = st.none() | st.integers(0, 4)


@quick
@given(crowded() | snapshots(), limits, limits, limits)
def test_quotas_hold(
    snapshot: Snapshot, gpus: int | None, cpus: int | None, leases: int | None
) -> None:
    quota = Quota(
        gpus_milli=None if gpus is None else gpus * 1000,
        cpus_milli=None if cpus is None else cpus * 1000,
        leases=leases,
    )
    cluster = Cluster(groups=(UserGroup("all", frozenset({"ada", "bob"}), quota=quota),))
    decided = plan(replace(snapshot, cluster=cluster), NOW)
    held = Held()
    for holding in snapshot.holdings:
        held.add(Held.by_slots(holding.slots))
    for grant in decided.grants:
        asked = Held.by_slots(grant.slots)
        held.add(asked)
        for what in ("gpus_milli", "cpus_milli", "leases"):
            bound = getattr(quota, what)
            if bound is not None and getattr(asked, what):
                assert getattr(held, what) <= bound


@quick
@given(crowded(), st.integers(0, 3))
def test_only_the_preemptible_are_stopped_and_then_the_request_fits(
    snapshot: Snapshot, spared: int
) -> None:
    cluster = Cluster(queues=(Queue(), Queue("urgent", priority=10, may_preempt=True)))
    holdings = tuple(
        replace(each, is_preemptible=at >= spared) for at, each in enumerate(snapshot.holdings)
    )
    first = replace(snapshot.waiting[0], wishes=Wishes(queue="urgent"))
    asked = Snapshot(snapshot.hosts, holdings, (first,), cluster)
    decided = plan(asked, NOW)
    stopped = {each.lease_id for each in decided.preemptions}
    assert stopped <= {each.lease_id for each in holdings if each.is_preemptible}
    if not stopped:
        return
    kept = tuple(each for each in holdings if each.lease_id not in stopped)
    assert plan(replace(asked, holdings=kept), NOW).grants
    for one in stopped:
        spare = tuple(each for each in holdings if each.lease_id not in stopped - {one})
        assert not plan(replace(asked, holdings=spare, cluster=Cluster()), NOW).grants


@quick
@given(crowded() | snapshots())
def test_an_explanation_agrees_with_the_plan(snapshot: Snapshot) -> None:
    """What a preview says of the last request is what the plan does with it."""
    if not snapshot.waiting:
        return
    *others, last = snapshot.waiting
    alone = preview(replace(snapshot, waiting=tuple(others)), last, NOW).answer
    decided = plan(replace(snapshot, waiting=(*others, replace(last, since=NOW))), NOW)
    answers = {each.lease_id: each for each in (*decided.grants, *decided.waits)}
    assert alone == answers[last.lease_id]
