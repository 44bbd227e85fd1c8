"""The cluster file: what it may say, and how it is refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from nimbus_hub.control.cluster import KEYS, parse_bandwidth, read_cluster
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.cluster import (
    Cluster,
    Datacenter,
    Link,
    Queue,
    Quota,
    Renewals,
    Rules,
    UserGroup,
)
from nimbus_hub.model.engine import Engine, Swarm
from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.policy import LeaseRule, Signal

GIB = 2**30
HOUR = timedelta(hours=1)
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "cluster.yaml"
NORTH = frozenset({"north", "south"})


def file(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def host(**values: str) -> str:
    """Return a file with one host; a value replaces that key's."""
    entry = {"name": "gpu-1", "cpus": "16", "memory": "64G", **values}
    return "hosts:\n  - " + "\n    ".join(
        f"{key}: {value}" for key, value in entry.items() if value
    )


def refusal(path: Path) -> str:
    """Return why a file is refused, after its name."""
    with pytest.raises(InvalidRequest) as refused:
        read_cluster(path, ["local"])
    name, _, sentence = refused.value.message.partition(str(path))
    assert not name
    return sentence


# What it says


def test_hosts_are_read_with_all_they_have(tmp_path: Path) -> None:
    text = host(
        gpus="[{model: A100, count: 2, memory: 40G}, {model: T4}]",
        datacenter="north",
        rack="007",
        address="10.0.0.1",
        state="draining",
        first_port="20000",
        last_port="20099",
        labels="{zone: 1, is_new: no}",
    )
    assert read_cluster(file(tmp_path, text)).hosts == (
        Host(
            "gpu-1",
            16000,
            64 * GIB,
            (Gpu(0, "A100", 40 * GIB), Gpu(1, "A100", 40 * GIB), Gpu(2, "T4")),
            address="10.0.0.1",
            datacenter="north",
            rack="007",
            state=HostState.DRAINING,
            first_port=20000,
            last_port=20099,
            labels={"zone": "1", "is_new": "no"},
        ),
    )


@pytest.mark.parametrize("text", ["", "# nothing yet", "hosts:", "hosts: []", "{}"])
def test_a_file_may_say_nothing(tmp_path: Path, text: str) -> None:
    assert read_cluster(file(tmp_path, text)) == Cluster()


def test_the_documented_example_says_all_there_is_to_say() -> None:
    cluster = read_cluster(EXAMPLE, ["local"])
    assert [(each.name, len(each.gpus)) for each in cluster.hosts] == [
        ("gpu-1", 8),
        ("gpu-2", 6),
        ("cpu-1", 0),
    ]
    assert cluster.datacenters == (
        Datacenter("north", ("s3://north-", "https://data.north.example.org/")),
        Datacenter("south", ("s3://south-",)),
        Datacenter("east"),
        Datacenter("west"),
    )
    assert cluster.links == (Link(NORTH, 1_250_000_000),)
    assert cluster.bytes_per_second == 125_000_000
    assert cluster.groups == (
        UserGroup("vision", frozenset({"ann", "bob"}), 2, Quota(16000, 128000, 40)),
        UserGroup("speech", frozenset({"eve"})),
    )
    assert cluster.queues == (
        Queue("default", highest=10),
        Queue("urgent", 100, 50, frozenset({"ann", "root"}), may_preempt=True),
        Queue("spare", -100, is_preemptible=True),
    )
    assert cluster.rules == Rules()
    assert cluster.leases == (
        LeaseRule(LeaseKind.SESSION, sets={"idle": 4 * HOUR, "idle_warning": HOUR / 3}),
        LeaseRule(
            LeaseKind.SESSION,
            gpus=1,
            sets={
                "idle": HOUR,
                "idle_ends": True,
                "activity": frozenset(Signal),
                "cpu_busy": 0.05,
                "gpu_busy": 0.05,
            },
        ),
        LeaseRule(
            group="speech",
            sets={
                "default": HOUR,
                "longest": 4 * HOUR,
                "renewal": HOUR,
                "renewals": 3,
                "latest_end": 8 * HOUR,
                "warnings": (HOUR / 2, HOUR / 6, HOUR / 30),
            },
        ),
        LeaseRule(size="small", sets={"idle": None}),
    )


def test_the_documented_example_has_every_key() -> None:
    text = EXAMPLE.read_text()
    assert [key for keys in KEYS.values() for key in keys if f"{key}:" not in text] == []


def test_engines_and_swarms_are_read_with_all_that_is_said_of_them() -> None:
    cluster = read_cluster(EXAMPLE)
    assert cluster.engines == (
        Engine(
            "box-1",
            "tcp://10.3.0.5:2376",
            "/etc/nimbus/tls/west",
            "10.3.0.5",
            "west",
            "w1",
            {"gpus": "A100:2"},
            "bridge",
            "10.65.0.0/16",
        ),
    )
    assert cluster.swarms == (
        Swarm(
            "east",
            "tcp://10.2.0.1:2376",
            "/etc/nimbus/tls/east",
            "tcp://{address}:2376",
            "nimbus",
            "10.64.0.0/16",
        ),
    )


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("tcp://10.3.0.5:2376", "10.3.0.5"),
        ("tcp://gpu-1.example.org:2376", "127.0.0.1"),
        ("unix:///var/run/docker.sock", "127.0.0.1"),
    ],
)
def test_an_engine_is_reached_at_the_address_of_its_endpoint(
    tmp_path: Path, endpoint: str, address: str
) -> None:
    tls = ", tls: /tls" if endpoint.startswith("tcp") else ""
    text = f'engines: [{{host: a, endpoint: "{endpoint}"{tls}}}]'
    (engine,) = read_cluster(file(tmp_path, text)).engines
    assert engine.address == address


def test_a_users_own_quota_leaves_out_what_is_as_for_everybody() -> None:
    cluster = read_cluster(EXAMPLE)
    assert cluster.user_quota("bob") == Quota(8000, 64000, 20)
    assert cluster.user_quota("ann") == Quota(12000, 64000, 20)
    assert cluster.user_quota("root") == Quota()


def test_a_quota_of_nothing_is_a_quota(tmp_path: Path) -> None:
    text = "quota: {gpus: 0.5, cpus: 0, leases: 0}"
    assert read_cluster(file(tmp_path, text)).quota == Quota(500, 0, 0)


def test_rules_are_read_in_peoples_units(tmp_path: Path) -> None:
    text = (
        "rules: {placement: tightest, ordering: arrival, reserve_cpus: 0.5, reserve_memory: 0, "
        "half_life: 36h, aging: 3600, renewals: refused}"
    )
    hours = timedelta(hours=1)
    rules = Rules("tightest", "arrival", 500, 0, 36 * hours, hours, Renewals.REFUSED)
    assert read_cluster(file(tmp_path, text)).rules == rules


def test_the_default_queue_is_there_beside_those_named(tmp_path: Path) -> None:
    cluster = read_cluster(file(tmp_path, "queues: [{name: night}]"))
    assert cluster.queues == (Queue(), Queue("night"))


def test_equal_hosts_may_share_what_they_have(tmp_path: Path) -> None:
    text = """\
hosts:
  - &first {name: a, cpus: 4, memory: 8G, rack: r1}
  - {<<: *first, name: b, cpus: 8}
  - {<<: [{rack: r2}, *first], name: c}
"""
    hosts = read_cluster(file(tmp_path, text)).hosts
    assert [(each.name, each.cpus_milli, each.rack) for each in hosts] == [
        ("a", 4000, "r1"),
        ("b", 8000, "r1"),
        ("c", 4000, "r2"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10Gbit", 1_250_000_000),
        ("10 Gbit/s", 1_250_000_000),
        ("100Mbit", 12_500_000),
        ("2.5GB", 2_500_000_000),
        ("1.25GB/s", 1_250_000_000),
        ("64kbit", 8000),
        ("8bit", 1),
    ],
)
def test_bandwidth_is_bits_or_bytes_by_its_unit(text: str, found: int) -> None:
    assert parse_bandwidth(text) == found


@pytest.mark.parametrize("text", ["10G", "10", "fast", "0Gbit", "-1GB", "1bit", "9999999999TB"])
def test_bandwidth_that_could_be_either_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="bandwidth must be"):
        parse_bandwidth(text)


# How it is refused


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"hosts: \xff\xfe", " must be text in UTF-8: invalid start byte"),
        ("hosts:\n  - [", ":3: this is not YAML: "),
        ("hosts: []\n---\nhosts: []", ":2: this is not YAML: "),
        ("\nhosts: \x01", ":2: this is not YAML: control characters are not allowed"),
        ("- a", ":1: the file must be a mapping, got a list"),
        ("host: []", ":1: host is not known; did you mean hosts? known are bandwidth, data"),
        ("{[a]: b}", ":1: the file has a key that is no text"),
        ("rules: {}\nquota: {}\nrules: {}", ":3: rules is given twice, first in line 1"),
        ("hosts: {}", ":1: hosts must be a list, got a mapping"),
        ("hosts: 0", ":1: hosts must be a list, got 0"),
        ("hosts: [gpu-1]", ":1: hosts[0] must be a mapping, got 'gpu-1'"),
        ("hosts:\n  -\n", ":2: hosts[0].name is missing"),
        ("hosts: [&a {<<: *a}]", ": this refers to itself"),
        (host(name=""), ":2: hosts[0].name is missing"),
        (host(memory=""), ":2: hosts[0].memory is missing"),
        (host(memory="null"), ":4: hosts[0].memory is missing"),
        (host(name="[a]"), ":2: hosts[0].name must be a text or a number, got a list"),
        (host(name="''"), ":2: hosts[0].name must be a text, got ''"),
        (host(cpus="many"), ":3: hosts[0].cpus must be a number like 2 or 0.5, got 'many'"),
        (host(cpus="0"), ":3: hosts[0].cpus must be more than 0, got 0"),
        (host(memory="lots"), ":4: hosts[0].memory must be a size like 4G or 512M, got 'lots'"),
        (host(state="up"), ":5: hosts[0].state must be one of ready, draining, down, got 'up'"),
        (host(state="[]"), ":5: hosts[0].state must be a text or a number, got a list"),
        (host(address="gpu-1.local"), ":5: hosts[0].address must be an IPv4 address, got 'gpu-1"),
        (host(first_port="x"), "first_port must be a whole number from 1024 to 65535, got 'x'"),
        (host(first_port="80"), ":5: hosts[0].first_port must be a whole number from 1024"),
        (host(first_port="30000"), ":2: hosts[0] is wrong: host gpu-1 must have ports"),
        ("engines: [{host: a}]", ":1: engines[0].endpoint is missing"),
        ("engines: [{endpoint: ssh://a}]", ":1: engines[0].host is missing"),
        ("engines: [{host: a, endpoint: a}]", "engines[0] is wrong: an endpoint must be like unix"),
        ("engines: [{host: a, endpoint: 'tcp://b:1'}]", "is wrong: tls must name the directory"),
        ("engines: [{host: a, endpoint: ssh://a, ports: 1}]", "engines[0].ports is not known"),
        (
            "engines:\n  - {host: a, endpoint: ssh://a, subnet: 10.1.0.0/8}",
            ":2: engines[0].subnet must be an IPv4 network like 10.64.0.0/16, got '10.1.0.0/8'",
        ),
        (
            "engines:\n  - {host: a, endpoint: ssh://a}\n  - {host: a, endpoint: ssh://b}",
            ":3: engines[1].host must differ from the others, got 'a' as in line 2",
        ),
        (
            "engines:\n  - {host: a, endpoint: ssh://a}\n  - {host: b, endpoint: ssh://b}",
            ":2: engines[0].network must be host or an overlay: default has other hosts",
        ),
        (
            "engines:\n  - host: a\n    endpoint: ssh://a\n    network: bridge\n"
            "swarms: [{datacenter: default, manager: ssh://b, engine: ssh://c}]",
            ":4: engines[0].network must be host or an overlay: default has other hosts",
        ),
        (
            "datacenters: [{name: north}]\nengines: [{host: a, endpoint: ssh://a}]",
            ":2: engines[0].datacenter must be one of north, got 'default'",
        ),
        (
            "datacenters: [{name: north, racks: [n1]}]\n"
            "engines: [{host: a, endpoint: ssh://a, datacenter: north, rack: n2}]",
            ":2: engines[0].rack must be one of n1, got 'n2'",
        ),
        ("swarms: [{manager: ssh://a}]", ":1: swarms[0].datacenter is missing"),
        (
            "swarms: [{datacenter: a, manager: ssh://a}]",
            "who reaches tcp://{address}:2376 without it is root there",
        ),
        ("swarms: [{datacenter: a}]", ":1: swarms[0].manager is missing"),
        (
            "swarms:\n  - {datacenter: a, manager: ssh://a, engine: here}",
            ":2: swarms[0] is wrong: an endpoint must be like unix",
        ),
        (
            "swarms:\n  - &s {datacenter: a, manager: ssh://a, engine: ssh://b}\n  - *s",
            ":2: swarms[1].datacenter must differ from the others, got 'a' as in line 2",
        ),
        (
            "datacenters: [{name: north}]\nswarms: [{datacenter: a, manager: ssh://a, engine: ssh://b}]",
            ":2: swarms[0].datacenter must be one of north, got 'a'",
        ),
        (host(labels="abc"), ":5: hosts[0].labels must be a mapping, got 'abc'"),
        (host(cpu="4"), ":5: hosts[0].cpu is not known; did you mean cpus? known are address"),
        (host(executor="slurm"), ":5: hosts[0].executor must be one of local, got 'slurm'"),
        (host(gpus="4"), ":5: hosts[0].gpus must be like {model: A100, count: 4}, got 4"),
        (host(gpus="[4]"), ":5: hosts[0].gpus[0] must be like {model: A100, count: 4}, got 4"),
        (host(gpus="{count: 4}"), ":5: hosts[0].gpus.model is missing"),
        (
            host(gpus="{model: A100, count: -1}"),
            ":5: hosts[0].gpus.count must be a whole number from 0 to 1000, got -1",
        ),
        (
            host(gpus="[{model: A, count: 600}, {model: B, count: 600}]"),
            ":5: hosts[0].gpus must be at most 1000 devices, got 1200",
        ),
        (host(gpus="{model: A100, count: 0x10}"), "from 0 to 1000, got 0x10"),
        (host(gpus="{model: A100, memory: big}"), ":5: hosts[0].gpus.memory must be a size"),
        (host(gpus="{model: A100, counts: 2}"), "gpus.counts is not known; did you mean count?"),
        (
            host() + "\n" + host().partition("\n")[2],
            ":5: hosts[1].name must differ from the others, got 'gpu-1' as in line 2",
        ),
        ("datacenters: [{name: n, locations: [data]}]", "must be the start of a URL like s3://"),
        (
            "datacenters: [{name: north}]\n" + host(datacenter="nort"),
            ":6: hosts[0].datacenter must be one of north, got 'nort'",
        ),
        (
            "datacenters: [{name: north}]\n" + host(),
            ":3: hosts[0].datacenter must be one of north, got 'default'",
        ),
        (
            "datacenters: [{name: north, racks: [r1]}]\n" + host(datacenter="north", rack="r2"),
            ":7: hosts[0].rack must be one of r1, got 'r2'",
        ),
        ("datacenters: [{name: a}, {name: a}]", "datacenters[1].name must differ"),
        (
            "links: [{between: [a, b], bandwidth: 1GB}]",
            ":1: links[0].between[0] must be declared as a datacenter, got 'a'",
        ),
        (
            "datacenters: [{name: a}]\nlinks: [{between: [a, b], bandwidth: 1GB}]",
            ":2: links[0].between[1] must be one of a, got 'b'",
        ),
        (
            "links: [{between: [a, a], bandwidth: 1GB}]",
            ":1: links[0].between must be two different datacenters, got a, a",
        ),
        (
            "datacenters: [{name: a}, {name: b}]\nlinks:\n"
            "  - {between: [a, b], bandwidth: 1GB}\n  - {between: [b, a], bandwidth: 2GB}",
            ":4: links[1].between must be another pair, got a and b again",
        ),
        ("links: [{between: [a, b]}]", ":1: links[0].bandwidth is missing"),
        ("bandwidth: 10G", ":1: bandwidth must be bits or bytes a second like 10Gbit or 1.25GB"),
        (
            "groups: [{name: a, users: [x]}, {name: b, users: [y, x]}]",
            ":1: groups[1].users[1] must be in one group, got 'x', who is in 'a'",
        ),
        ("groups: [{name: a, weight: 0}]", "groups[0].weight must be a number from 0.001 to 1000"),
        ("groups: [{name: a, quota: {gpu: 1}}]", "groups[0].quota.gpu is not known; did you mean"),
        ("queues: [{name: a, priority: 1.5}]", "queues[0].priority must be a whole number from -1"),
        ("queues: [{name: a, highest: 2000}]", "must be a whole number from -1000 to 1000, got 2"),
        ("queues: [{name: a, may_preempt: 1}]", "may_preempt must be true or false, got 1"),
        ("queues: [{name: a}, {name: a}]", ":1: queues[1].name must differ from the others"),
        ("quota: {gpus: -1}", ":1: quota.gpus must be a number from 0 to 1e+06, got -1"),
        ("quota: {leases: many}", ":1: quota.leases must be a whole number of at least 0, got 'm"),
        ("quotas: [ann]", ":1: quotas must be a mapping, got a list"),
        ("quotas:\n  ann: {gpu: 2}", ":2: quotas.ann.gpu is not known; did you mean gpus?"),
        ("quotas:\n  ann: {}\n  ann: {}", ":3: quotas.ann is given twice, first in line 2"),
        ("rules: {half_life: soon}", ":1: rules.half_life must be like 90m, 2h or 1d, got 'soon'"),
        ("rules: {placement: magic}", ":1: rules.placement is wrong: there is no placement policy"),
        ("rules: {ordering: magic}", ":1: rules.ordering is wrong: there is no ordering policy"),
        ("rules: {renewals: never}", "must be one of allowed, patience, refused, got 'never'"),
        ("rules: {aging: 0}", ":1: rules.aging must be more than 0 and at most 3650d, got 0"),
    ],
)
def test_a_fault_is_named_with_file_line_and_key(
    tmp_path: Path, content: str | bytes, sentence: str
) -> None:
    found = refusal(file(tmp_path, content))
    assert found.startswith(sentence) if sentence[0] in ": " else sentence in found
    assert "\n" not in found


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == " cannot be read: No such file or directory"


def test_a_file_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    assert "this is" in refusal(file(tmp_path, "[" * 20_000))
