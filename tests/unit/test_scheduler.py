"""The scheduler's rules, one test each: a snapshot and a time in, decisions out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from itertools import chain

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.network import (
    engine_half,
    most_slots,
    part_of,
    part_starts,
    slot_addresses,
)
from nimbus_hub.model.slot import PORTS_PER_SLOT, Slot, SlotGroup
from nimbus_hub.model.wishes import Wishes
from nimbus_hub.scheduler.addresses import PartPool
from nimbus_hub.scheduler.decisions import Plan
from nimbus_hub.scheduler.plan import plan
from nimbus_hub.scheduler.snapshot import Holding, Snapshot, Waiting

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
GIB = 2**30
HOUR = timedelta(hours=1)


def host(
    name: str,
    cpus: int = 8,
    gpus: int = 0,
    model: str = "A100",
    address: str | None = None,
    datacenter: str = "default",
    rack: str = "default",
    state: HostState = HostState.READY,
    ports: tuple[int, int] = (20000, 29999),
    network: str = "",
) -> Host:
    return Host(
        name=name,
        cpus_milli=cpus * 1000,
        memory_bytes=64 * GIB,
        gpus=tuple(Gpu(index, model) for index in range(gpus)),
        address=address or f"10.0.0.{1 + sum(map(ord, name)) % 250}",
        datacenter=datacenter,
        rack=rack,
        state=state,
        first_port=ports[0],
        last_port=ports[1],
        network=network,
    )


def group(
    role: str = "worker", count: int = 1, cpus: float = 1, gpus: int = 0, model: str | None = None
) -> SlotGroup:
    models = (model,) if model else ()
    return SlotGroup(role, count, int(cpus * 1000), GIB, gpus, gpu_models=models)


def waiting(
    lease_id: str,
    *groups: SlotGroup,
    length: timedelta = HOUR,
    minutes_ago: int = 0,
    priority: int = 0,
) -> Waiting:
    since = NOW - timedelta(minutes=minutes_ago)
    return Waiting(lease_id, "ada", groups, length, since, wishes=Wishes(priority=priority))


def holding(
    lease_id: str,
    at: Host,
    ends_at: datetime | None = NOW + HOUR,
    cpus: int = 1,
    gpus: tuple[int, ...] = (),
    kind: LeaseKind = LeaseKind.JOB,
) -> Holding:
    slot = Slot("worker", 0, at.name, at.address, cpus * 1000, GIB, gpus, ())
    return Holding(lease_id, "bob", (slot,), ends_at, kind)


def slots_of(decided: Plan, lease_id: str) -> tuple[Slot, ...]:
    return next(grant.slots for grant in decided.grants if grant.lease_id == lease_id)


def hosts_of(decided: Plan, lease_id: str) -> list[str]:
    return [slot.host for slot in slots_of(decided, lease_id)]


def only(hosts: tuple[Host, ...], *groups: SlotGroup, holdings: tuple[Holding, ...] = ()) -> Plan:
    return plan(Snapshot(hosts, holdings, (waiting("a", *groups),)), NOW)


# Gangs and packing


def test_a_gang_gets_all_its_slots_in_the_order_of_its_groups() -> None:
    groups = (group("chief"), group("worker", 2, gpus=1), group("worker", 1, cpus=2))
    decided = only((host("cpu"), host("gpu", gpus=2)), *groups)
    slots = slots_of(decided, "a")
    assert [slot.name for slot in slots] == ["chief-0", "worker-0", "worker-1", "worker-2"]
    assert [slot.gpus for slot in slots] == [(), (0,), (1,), ()]
    assert [slot.cpus_milli for slot in slots] == [1000, 1000, 1000, 2000]
    assert decided.waits == ()


def test_a_gang_of_which_one_slot_does_not_fit_gets_none() -> None:
    decided = only((host("a", gpus=2), host("b", gpus=1)), group(count=4, gpus=1))
    assert decided.grants == ()


def test_a_gang_never_spans_datacenters() -> None:
    hosts = (host("a", gpus=2, datacenter="east"), host("b", gpus=2, datacenter="west"))
    assert only(hosts, group(count=3, gpus=1)).grants == ()


def test_the_datacenter_where_the_gang_is_packed_best_is_chosen() -> None:
    east = (host("a", gpus=1, datacenter="east"), host("b", gpus=1, datacenter="east"))
    decided = only((*east, host("c", gpus=2, datacenter="west")), group(count=2, gpus=1))
    assert hosts_of(decided, "a") == ["c", "c"]


def test_workers_share_a_host_where_one_holds_them_all() -> None:
    hosts = (host("a", gpus=2), host("b", gpus=4), host("c", gpus=8))
    assert hosts_of(only(hosts, group(count=4, gpus=1)), "a") == ["b"] * 4


def test_workers_that_need_several_hosts_share_a_rack() -> None:
    hosts = (
        host("a", gpus=3, rack="r1"),
        host("b", gpus=2, rack="r2"),
        host("c", gpus=2, rack="r2"),
    )
    assert hosts_of(only(hosts, group(count=4, gpus=1)), "a") == ["b", "b", "c", "c"]


def test_workers_that_need_several_racks_use_the_fewest_hosts() -> None:
    hosts = tuple(host(f"h{n}", gpus=n, rack=f"r{n}") for n in (1, 2, 4))
    assert hosts_of(only(hosts, group(count=6, gpus=1)), "a") == ["h4"] * 4 + ["h2"] * 2


def test_the_rest_of_a_gang_goes_to_the_tightest_host() -> None:
    hosts = tuple(host(f"h{n}", gpus=n) for n in (1, 2, 4))
    assert hosts_of(only(hosts, group(count=5, gpus=1)), "a") == ["h4"] * 4 + ["h1"]


def test_a_slot_goes_where_the_fewest_gpus_stay_free() -> None:
    big, small = host("a", gpus=4), host("b", gpus=4)
    held = (holding("x", small, gpus=(0, 1, 2)),)
    assert hosts_of(only((big, small), group(gpus=1), holdings=held), "a") == ["b"]


def test_the_first_host_by_name_wins_a_tie_whatever_the_order_given() -> None:
    hosts = (host("b"), host("a"), host("c"))
    assert hosts_of(only(hosts, group()), "a") == ["a"]
    assert hosts_of(only(hosts[::-1], group()), "a") == ["a"]


# CPUs and GPUs


def test_slots_without_gpus_go_to_hosts_without_gpus() -> None:
    hosts = (host("a", cpus=4, gpus=4), host("b", cpus=64))
    assert hosts_of(only(hosts, group(cpus=2)), "a") == ["b"]


def test_slots_without_gpus_take_first_what_free_gpus_can_spare() -> None:
    idle, busy = host("a", cpus=8, gpus=2), host("b", cpus=64, gpus=2)
    held = (holding("x", busy, gpus=(0, 1)),)
    assert hosts_of(only((idle, busy), group(cpus=2), holdings=held), "a") == ["b"]


def test_slots_without_gpus_use_an_idle_gpu_host_when_there_is_nothing_else() -> None:
    assert hosts_of(only((host("a", gpus=1),), group(cpus=6)), "a") == ["a"]


def test_devices_are_the_lowest_free_ones_of_the_model() -> None:
    mixed = Host(
        "a", 8000, 64 * GIB, (Gpu(0, "T4"), Gpu(1, "A100"), Gpu(2, "A100"), Gpu(3, "A100"))
    )
    held = (holding("x", mixed, gpus=(1,)),)
    decided = only((mixed,), group(gpus=2, model="A100"), holdings=held)
    assert slots_of(decided, "a")[0].gpus == (2, 3)


def test_a_model_may_be_written_short() -> None:
    long_name = host("a", gpus=1, model="NVIDIA A100-SXM4-40GB")
    assert only((long_name,), group(gpus=1, model="a100")).grants
    assert not only((long_name,), group(gpus=1, model="A10")).grants


# Hosts that are not there


def test_draining_and_down_hosts_take_nothing() -> None:
    hosts = (host("a", state=HostState.DRAINING), host("b", state=HostState.DOWN))
    decided = only(hosts, group())
    assert decided.grants == ()
    assert decided.waits[0].reason == (
        "waits for hosts that take nothing now: a (draining), b (down)"
    )


def test_a_request_that_only_a_down_host_can_hold_names_it() -> None:
    hosts = (host("a"), host("b", gpus=1, state=HostState.DOWN))
    reason = only(hosts, group(gpus=1)).waits[0].reason
    assert reason == "waits for host b, which is down"


def test_holdings_on_unknown_hosts_and_devices_do_no_harm() -> None:
    here = host("a", gpus=1)
    held = (holding("x", host("gone")), holding("y", here, gpus=(7,)))
    assert only((here,), group(gpus=1), holdings=held).grants


def test_a_device_that_two_holdings_claim_is_free_after_the_last() -> None:
    here = host("a", gpus=1)
    held = (
        holding("x", here, NOW + HOUR, gpus=(0,)),
        holding("y", here, NOW + 3 * HOUR, gpus=(0,)),
    )
    assert only((here,), group(gpus=1), holdings=held).waits[0].starts_by == NOW + 3 * HOUR


# Ports


def test_ports_are_unique_per_address_not_per_host() -> None:
    hosts = (host("a", cpus=2, address="127.0.0.1"), host("b", cpus=2, address="127.0.0.1"))
    slots = slots_of(only(hosts, group(count=4)), "a")
    ports = list(chain.from_iterable(slot.ports for slot in slots))
    assert len(set(ports)) == len(ports) == 4 * PORTS_PER_SLOT


def test_ports_held_on_a_draining_host_are_not_given_again_at_its_address() -> None:
    drained = host("a", address="127.0.0.1", state=HostState.DRAINING, ports=(20000, 20007))
    ready = host("b", address="127.0.0.1", ports=(20000, 20007))
    slot = Slot("worker", 0, "a", "127.0.0.1", 1000, GIB, (), (20000, 20001, 20002, 20003))
    held = (Holding("x", "bob", (slot,), None),)
    decided = only((drained, ready), group(), holdings=held)
    assert sorted(slots_of(decided, "a")[0].ports) == [20004, 20005, 20006, 20007]


def test_a_host_without_ports_takes_nothing() -> None:
    assert only((host("a", ports=(20000, 20002)),), group()).grants == ()


def test_another_lease_does_not_get_the_ports_that_were_just_given_back() -> None:
    hosts = (host("a"),)
    first = slots_of(plan(Snapshot(hosts, (), (waiting("l-1", group()),)), NOW), "l-1")
    second = slots_of(plan(Snapshot(hosts, (), (waiting("l-2", group()),)), NOW), "l-2")
    assert not set(first[0].ports) & set(second[0].ports)


# Addresses of networks


def test_slots_of_hosts_with_a_network_have_the_addresses_of_one_part_and_the_first_ports() -> None:
    hosts = (host("a", cpus=2, network="10.64.0.0/24"), host("b", cpus=2, network="10.64.0.0/24"))
    slots = slots_of(only(hosts, group(count=4)), "a")
    first = IPv4Address(slots[0].address)
    assert int(first) % 16 == 8
    assert [slot.address for slot in slots] == [str(first + at) for at in range(4)]
    assert {slot.ports for slot in slots} == {(20000, 20001, 20002, 20003)}


def part_held(at: int, address: str, host: str = "a") -> Holding:
    return Holding(f"x{at}", "bob", (Slot("worker", 0, host, address, 1000, GIB),), None)


def test_a_part_held_on_a_draining_host_is_not_given_again_in_its_network() -> None:
    drained = host("a", state=HostState.DRAINING, network="10.64.0.0/26")
    ready = host("b", network="10.64.0.0/26")
    held = tuple(part_held(at, f"10.64.0.{at + 9}") for at in (0, 16, 48))
    decided = only((drained, ready), group(), holdings=held)
    assert slots_of(decided, "a")[0].address == "10.64.0.40"


def test_a_network_without_a_free_part_is_waited_for_and_another_datacenters_is_not() -> None:
    east = host("a", network="10.64.0.0/28", datacenter="east")
    west = host("b", network="10.64.0.0/28", datacenter="west")
    queue = tuple(
        replace(waiting(name, group(count=2)), wishes=Wishes(datacenter=name))
        for name in ("east", "west")
    )
    decided = plan(Snapshot((east, west), (part_held(0, "10.64.0.8"),), queue), NOW)
    assert [slot.address for slot in slots_of(decided, "west")] == ["10.64.0.8", "10.64.0.9"]
    assert [(wait.lease_id, wait.reason) for wait in decided.waits] == [
        ("east", "waits for free ports or addresses at the hosts")
    ]


def test_another_lease_does_not_get_the_part_that_was_just_given_back() -> None:
    hosts = (host("a", network="10.64.0.0/16"),)
    first = slots_of(plan(Snapshot(hosts, (), (waiting("l-1", group()),)), NOW), "l-1")
    second = slots_of(plan(Snapshot(hosts, (), (waiting("l-2", group()),)), NOW), "l-2")
    assert first[0].address != second[0].address


@pytest.mark.parametrize(
    ("network", "address", "part", "own", "first", "last", "parts"),
    [
        ("10.64.0.0/12", "10.65.2.9", "10.65.2.0/23", "10.65.2.0/24", "3.0", "3.253", 2048),
        ("10.64.0.0/16", "10.64.3.200", "10.64.3.128/25", "10.64.3.128/26", "3.192", "3.253", 512),
        ("10.64.0.0/20", "10.64.9.1", "10.64.9.0/27", "10.64.9.0/28", "9.16", "9.29", 128),
        ("10.64.3.0/24", "10.64.3.31", "10.64.3.16/28", "10.64.3.16/29", "3.24", "3.29", 16),
        ("10.64.3.16/28", "10.64.3.24", "10.64.3.16/28", "10.64.3.16/29", "3.24", "3.29", 1),
    ],
)
def test_half_of_each_part_of_a_network_is_for_slots(
    network: str, address: str, part: str, own: str, first: str, last: str, parts: int
) -> None:
    assert (part_of(network, address), engine_half(part)) == (part, own)
    slots = slot_addresses(network, int(IPv4Network(part).network_address))
    ends = tuple(str(IPv4Address(each)) for each in (slots[0], slots[-1]))
    assert (ends[0].endswith(f".{first}"), ends[1].endswith(f".{last}")) == (True, True)
    assert (len(part_starts(network)), len(slots)) == (parts, most_slots(network))


def test_an_address_of_another_network_is_in_no_part() -> None:
    with pytest.raises(InvalidRequest, match=r"10.65.0.1 is none of the network 10.64.0.0/16"):
        part_of("10.64.0.0/16", "10.65.0.1")


def test_a_pool_gives_each_of_its_parts_once_and_then_none() -> None:
    pool = PartPool("10.64.0.0/24")
    given = [next(pool.pick(f"l-{turn}") or iter(())) for turn in range(16)]
    assert sorted(given, key=IPv4Address) == [f"10.64.0.{16 * at + 8}" for at in range(16)]
    assert pool.pick("l-16") is None
    pool.give(given[3])
    assert next(pool.pick("l-16") or iter(())) == given[3]


# Order, reservation, back-fill


def test_priority_goes_before_arrival() -> None:
    queue = (
        waiting("late", group(cpus=8), minutes_ago=1),
        waiting("early", group(cpus=8), minutes_ago=2),
        waiting("urgent", group(cpus=8), priority=1),
    )
    decided = plan(Snapshot((host("a"),), (), queue), NOW)
    assert [grant.lease_id for grant in decided.grants] == ["urgent"]
    assert [(wait.lease_id, wait.position) for wait in decided.waits] == [("early", 1), ("late", 2)]


def test_the_first_that_does_not_fit_is_promised_the_earliest_time_it_will() -> None:
    here = host("a", gpus=4)
    held = tuple(
        holding(f"x{n}", here, NOW + hours * HOUR, gpus=(n,)) for n, hours in enumerate((3, 1, 2))
    )
    decided = only((here,), group(gpus=3), holdings=held)
    assert decided.waits[0].starts_by == NOW + 2 * HOUR
    assert decided.waits[0].reason == (
        "waits for 2 more GPUs; 1 comes back at 13:00, 1 at 14:00, 1 at 15:00 UTC"
    )


def test_there_is_no_promise_when_nobody_knows_when_a_holding_ends() -> None:
    here = host("a", gpus=1)
    wait = only((here,), group(gpus=1), holdings=(holding("x", here, None, gpus=(0,)),)).waits[0]
    assert wait.starts_by is None
    assert wait.reason == "waits for 1 GPU"


def test_an_overdue_holding_promises_no_time() -> None:
    here = host("a", gpus=1)
    held = (holding("x", here, NOW - HOUR, gpus=(0,)),)
    wait = only((here,), group(gpus=1), holdings=held).waits[0]
    assert wait.starts_by is None
    assert wait.reason == "waits for 1 GPU; 1 comes back any moment"


def backfill(length: timedelta, cpus: int, host_cpus: int = 8) -> Plan:
    """Plan with 6 CPUs held for an hour, a first request for 8, and one behind it."""
    here = host("a", cpus=host_cpus)
    queue = (
        waiting("first", group(cpus=8), minutes_ago=2),
        waiting("small", group(cpus=cpus), length=length, minutes_ago=1),
    )
    return plan(Snapshot((here,), (holding("x", here, cpus=6),), queue), NOW)


def test_short_work_goes_ahead_of_a_reservation() -> None:
    decided = backfill(HOUR, cpus=2)
    assert [grant.lease_id for grant in decided.grants] == ["small"]
    assert decided.waits[0].starts_by == NOW + HOUR


def test_long_work_that_would_delay_the_reservation_waits() -> None:
    decided = backfill(2 * HOUR, cpus=2)
    assert decided.grants == ()
    assert decided.waits[1].reason == "behind 1 earlier request, which starting now would delay"


def test_long_work_beside_the_reservation_goes_ahead() -> None:
    assert backfill(2 * HOUR, cpus=1, host_cpus=9).grants[0].lease_id == "small"


def test_long_work_is_moved_off_the_reserved_host() -> None:
    tight, other = host("a", gpus=2), host("b", gpus=2)
    queue = (
        waiting("first", group(count=2, gpus=1, cpus=3), minutes_ago=2),
        waiting("small", group(gpus=1), length=5 * HOUR, minutes_ago=1),
    )
    held = (
        holding("x", tight, gpus=(0,)),
        holding("z", other, None, cpus=6, kind=LeaseKind.SESSION),
    )
    decided = plan(Snapshot((tight, other), held, queue), NOW)
    assert hosts_of(only((tight, other), group(gpus=1), holdings=held), "a") == ["a"]
    assert hosts_of(decided, "small") == ["b"]
    assert decided.waits[0].starts_by == NOW + HOUR


def test_what_can_never_start_does_not_hold_up_the_others() -> None:
    here, away = host("a"), host("b", gpus=1, state=HostState.DOWN)
    queue = (
        waiting("first", group(gpus=1), minutes_ago=3),
        waiting("second", group(cpus=8), minutes_ago=2),
        waiting("third", group(cpus=2), minutes_ago=1, length=2 * HOUR),
    )
    decided = plan(Snapshot((here, away), (holding("x", here),), queue), NOW)
    assert [wait.starts_by for wait in decided.waits] == [None, NOW + HOUR, None]


# Reasons


def reason(hosts: tuple[Host, ...], *groups: SlotGroup, held: tuple[Holding, ...] = ()) -> str:
    return only(hosts, *groups, holdings=held).waits[0].reason


def test_reasons_name_the_gpus_that_are_missing() -> None:
    here = host("a", gpus=4)
    held = (holding("x", here, gpus=(0, 1, 2)),)
    assert reason((here,), group(gpus=2, model="A100"), held=held) == (
        "waits for 1 more GPU A100; 3 come back at 13:00 UTC"
    )


def test_reasons_say_when_gpus_are_free_but_not_on_one_host() -> None:
    hosts = (host("a", gpus=2), host("b", gpus=2))
    held = tuple(holding(at.name, at, gpus=(0,)) for at in hosts)
    assert reason(hosts, group(gpus=2), held=held) == (
        "waits for 2 GPUs on one host: at most 1 free on one; 2 come back at 13:00 UTC"
    )


def test_reasons_name_missing_cpus_and_memory() -> None:
    here = host("a", cpus=4)
    held = (holding("x", here, cpus=2),)
    assert reason((here,), group(cpus=3), held=held) == (
        "waits for 3 CPUs on one host: at most 2 are free"
    )
    much = SlotGroup("worker", 1, 1000, 64 * GIB)
    assert reason((here,), much, held=held) == (
        "waits for 64G of memory on one host: at most 63G are free"
    )


def test_reasons_say_that_free_gpus_keep_cpus() -> None:
    here = host("a", cpus=4, gpus=1)
    assert reason((here,), group(cpus=3), held=(holding("x", here, cpus=1),)) == (
        "waits for 3 CPUs on one host: at most 1 are free beside what free GPUs keep"
    )


def test_reasons_count_the_hosts_whose_gpus_lack_cpus_or_memory() -> None:
    hosts = (host("a", cpus=4, gpus=1), host("b", cpus=4, gpus=1))
    held = tuple(holding(at.name, at, cpus=2, kind=LeaseKind.SESSION) for at in hosts)
    assert reason(hosts, group(cpus=3, gpus=1), held=held) == (
        "waits for 1 GPU, 3 CPUs and 1G of memory on one host; "
        "2 hosts with free GPUs have too few CPUs"
    )


def test_reasons_say_how_much_of_a_gang_fits() -> None:
    here = host("a", cpus=4)
    assert reason((here,), group(count=4), held=(holding("x", here, cpus=2),)) == (
        "waits for 4 workers, each with 1 CPU and 1G of memory: 2 fit now"
    )


def test_reasons_count_the_requests_in_front() -> None:
    here = host("a")
    queue = tuple(waiting(f"w{n}", group(cpus=8), minutes_ago=9 - n) for n in range(3))
    decided = plan(Snapshot((here,), (holding("x", here, cpus=6),), queue), NOW)
    lack = "waits for 8 CPUs on one host: at most 2 are free"
    assert [wait.reason for wait in decided.waits] == [
        lack,
        f"{lack}; behind 1 earlier request",
        f"{lack}; behind 2 earlier requests",
    ]
