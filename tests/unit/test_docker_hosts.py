"""Engines as hosts, nodes of a Swarm as engines: pure values out of what engines answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.docker import swarm
from nimbus_hub.executors.docker.gpus import (
    declared_gpus,
    driver_gpus,
    driver_memory,
    generic_gpus,
    gpu_query,
    has_nvidia,
)
from nimbus_hub.executors.docker.hosts import Standing, down_host, host_of
from nimbus_hub.executors.docker.networks import attachment, bridge_network, free_subnet
from nimbus_hub.executors.docker.swarm import Member, member
from nimbus_hub.model.engine import Engine, Swarm
from nimbus_hub.model.host import Gpu, HeldMemory, Host, HostState
from nimbus_hub.model.replica import ReplicaSpec

GIB = 2**30
ENGINE = Engine("gpu-1", "unix:///var/run/docker.sock", address="10.0.0.5", datacenter="north")
INFO: dict[str, Any] = {
    "NCPU": 16,
    "MemTotal": 64 * GIB,
    "Labels": ["rack=n1", "disk=nvme", "fast"],
    "Runtimes": {"runc": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime"}},
}
SWARM = Swarm("north", "ssh://manager", "/etc/nimbus/tls")
NODE: dict[str, Any] = {
    "ID": "n1",
    "Spec": {
        "Labels": {"rack": "n1", "gpu": "T4"},
        "Role": "worker",
        "Availability": "active",
    },
    "Description": {"Hostname": "gpu-1", "Engine": {"Labels": {"rack": "old", "gpus": "2"}}},
    "Status": {"State": "ready", "Addr": "10.0.0.5"},
}

# Hosts


def test_a_host_is_what_its_engine_tells_and_what_the_cluster_says_of_it() -> None:
    gpus = (Gpu(0, "A100", 40 * GIB, "GPU-1"),)
    assert host_of(ENGINE, INFO, gpus, "10.64.0.0/16") == Host(
        name="gpu-1",
        cpus_milli=16_000,
        memory_bytes=64 * GIB,
        gpus=gpus,
        address="10.0.0.5",
        datacenter="north",
        rack="n1",
        executor="docker",
        state=HostState.READY,
        first_port=20000,
        last_port=29999,
        labels={"rack": "n1", "disk": "nvme", "fast": ""},
        state_reason="",
        network="10.64.0.0/16",
    )


def test_what_the_cluster_says_wins_over_the_engines_labels() -> None:
    engine = Engine("a", "ssh://a", rack="n2", labels={"disk": "none"})
    host = host_of(engine, INFO)
    assert (host.rack, host.labels) == ("n2", {"rack": "n1", "disk": "none", "fast": ""})
    labelled = Engine("a", "ssh://a", labels={"rack": "n3"})
    assert host_of(labelled, INFO).rack == "n3"


def test_a_host_that_does_not_answer_is_as_it_last_was_but_down() -> None:
    last = host_of(ENGINE, INFO, (Gpu(0, "A100"),), "10.64.0.0/16")
    down = down_host(ENGINE, "no route", last)
    assert (down.cpus_milli, down.gpus, down.network) == (16_000, (Gpu(0, "A100"),), last.network)
    assert (down.state, down.state_reason) == (HostState.DOWN, "no route")


def test_a_host_that_never_answered_is_there_all_the_same() -> None:
    assert down_host(ENGINE, "no route") == Host(
        "gpu-1", 1000, 1, (), "10.0.0.5", "north", executor="docker", state=HostState.DOWN,
        state_reason="no route",
    )  # fmt: skip


# GPUs


def test_the_driver_is_asked_in_a_container_without_a_network() -> None:
    assert gpu_query("debian:12") == {
        "Image": "debian:12",
        "Entrypoint": [],
        "Cmd": [
            "nvidia-smi",
            "--query-gpu=index,uuid,name,memory.total",
            "--format=csv,noheader,nounits",
        ],
        "Env": ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=utility"],
        "Labels": {"nimbus.query": "gpus"},
        "HostConfig": {"Runtime": "nvidia", "NetworkMode": "none"},
    }


def test_devices_are_read_as_the_driver_prints_them() -> None:
    output = (
        "0, GPU-5f1c, NVIDIA A100-SXM4-40GB, 40960\r\n"
        "1, GPU-77aa, NVIDIA GB10, [N/A]\n"
    )  # fmt: skip
    assert driver_gpus(output) == (
        Gpu(0, "NVIDIA A100-SXM4-40GB", 40 * GIB, "GPU-5f1c"),
        Gpu(1, "NVIDIA GB10", 0, "GPU-77aa"),
    )
    assert driver_gpus("") == ()


def test_memory_that_is_held_is_read_as_the_driver_prints_it() -> None:
    assert gpu_query("debian:12", "index,memory.used")["Cmd"] == [
        *("nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits")
    ]
    output = "0, 3072\r\n1, [N/A]\n2, 4\n"
    assert driver_memory(output) == {0: HeldMemory(3 * GIB), 2: HeldMemory(4 * 2**20)}
    with pytest.raises(ValueError, match="not enough values"):
        driver_memory("No devices were found")


@pytest.mark.parametrize("output", ["No devices were found", "a, b, c, d", "0, GPU-1, T4"])
def test_what_is_no_list_of_devices_is_not_taken_for_one(output: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|not enough values"):
        driver_gpus(output)


def test_generic_resources_that_are_called_gpus_are_devices() -> None:
    named = [
        {"NamedResourceSpec": {"Kind": "NVIDIA-GPU", "Value": "GPU-1"}},
        {"NamedResourceSpec": {"Kind": "NVIDIA-GPU", "Value": "GPU-2"}},
        {"NamedResourceSpec": {"Kind": "SSD", "Value": "sda"}},
    ]
    assert generic_gpus(named, "A100") == (Gpu(0, "A100", 0, "GPU-1"), Gpu(1, "A100", 0, "GPU-2"))
    counted = [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]
    assert generic_gpus(counted) == (Gpu(0, "GPU"), Gpu(1, "GPU"))
    assert generic_gpus(None) == ()


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("0", ()),
        ("2", (Gpu(0, "GPU"), Gpu(1, "GPU"))),
        ("A100:2", (Gpu(0, "A100"), Gpu(1, "A100"))),
        ("A100:1,T4:2", (Gpu(0, "A100"), Gpu(1, "T4"), Gpu(2, "T4"))),
    ],
)
def test_a_label_declares_devices(text: str, gpus: tuple[Gpu, ...]) -> None:
    assert declared_gpus(text) == gpus


@pytest.mark.parametrize("text", ["many", "A100:0.5", "A100,T4:2"])
def test_a_label_that_declares_no_whole_devices_of_one_model_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="gpus must be"):
        declared_gpus(text)


def test_only_an_engine_with_the_runtime_is_asked() -> None:
    assert has_nvidia(INFO)
    assert not has_nvidia({"Runtimes": {"runc": {}}})
    assert not has_nvidia({"Runtimes": None})


# Networks


def test_a_free_network_is_none_of_the_engines_and_not_where_it_is_itself() -> None:
    assert free_subnet([], "127.0.0.1") == "10.64.0.0/16"
    taken = ["172.17.0.0/16", "10.64.3.0/24", "10.66.0.0/15", "fd00::/64"]
    assert free_subnet(taken, "10.65.0.7") == "10.68.0.0/16"
    with pytest.raises(InvalidRequest, match="name a subnet"):
        free_subnet(["10.0.0.0/8"], "127.0.0.1")


def bridge(name: str, subnet: str, **labels: str) -> dict[str, object]:
    labels = {f"nimbus.{key}": value for key, value in labels.items()}
    config = {"Config": [{"Subnet": subnet}, {"Subnet": "fd00::/64"}]}
    return {"Name": name, "Driver": "bridge", "IPAM": config, "Labels": labels}


def test_an_engine_gives_parts_of_one_network_as_long_as_a_gang_has_one() -> None:
    mine = bridge("nimbus-10-66-0-0", "10.66.0.0/25", gang="l-1", network="10.66.0.0/16")
    other = bridge("lab", "10.64.3.0/24")
    assert bridge_network(ENGINE, [mine, other]) == "10.66.0.0/16"
    assert bridge_network(ENGINE, [other]) == "10.65.0.0/16"
    given = replace(ENGINE, subnet="10.64.0.0/12")
    assert bridge_network(given, [mine]) == "10.64.0.0/12"
    with pytest.raises(InvalidRequest, match="of host gpu-1 has addresses of its network lab: "):
        bridge_network(given, [other])
    # What runs there goes on.
    assert bridge_network(given, [mine, other]) == "10.64.0.0/12"


def test_a_replica_is_in_the_part_of_its_address_and_in_none_without_one() -> None:
    spec = ReplicaSpec("r-1", "j-1", "ada", "gpu-1", ("python",), address="10.64.3.200")
    whole, part = "10.64.0.0/16", "10.64.3.128/25"
    on_bridge = attachment(ENGINE, whole, spec)
    assert on_bridge == ("nimbus-10-64-3-128", "10.64.3.200", part, whole)
    overlay = replace(ENGINE, network="lab", subnet=whole)
    assert attachment(overlay, whole, spec) == ("lab-10-64-3-128", *on_bridge[1:])
    assert attachment(replace(ENGINE, network="host"), "", spec) == ("host", "", "", "")
    for nobody in (replace(spec, address=""), replace(spec, modules=())):
        assert attachment(ENGINE, whole, nobody) == ("none", "", "", "")
    with pytest.raises(InvalidRequest, match=r"none of the network 10\.65"):
        attachment(ENGINE, "10.65.0.0/16", spec)


# Nodes


def test_a_node_is_an_engine_of_the_swarms_datacenter() -> None:
    engine = Engine(
        "gpu-1", "tcp://10.0.0.5:2376", "/etc/nimbus/tls", "10.0.0.5", "north", "n1",
        {"rack": "n1", "gpu": "T4", "gpus": "2"}, "nimbus", "10.64.0.0/16",
    )  # fmt: skip
    assert member(SWARM, NODE) == Member(engine, Standing(HostState.READY))


def test_a_node_that_joins_just_now_is_asked_for_again() -> None:
    coming = {"ID": "0", "Description": {"Engine": {}}, "Spec": {}, "Status": {}}
    found = swarm._each(swarm._Known(SWARM), [coming, {**NODE, "ID": "1"}])
    assert [each.engine.host for each in found] == ["gpu-1"]


def test_labels_of_a_node_name_its_host_and_its_endpoint() -> None:
    labels = {"nimbus.host": "big", "nimbus.endpoint": "ssh://docker@big"}
    engine = member(SWARM, {**NODE, "Spec": {**NODE["Spec"], "Labels": labels}}).engine
    assert (engine.host, engine.endpoint, engine.tls) == ("big", "ssh://docker@big", "")


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", ""])
def test_a_manager_is_reached_where_the_other_managers_reach_it(address: str) -> None:
    manager = {"Leader": True, "Reachability": "reachable", "Addr": "10.0.0.9:2377"}
    status, spec = {"State": "ready", "Addr": address}, {**NODE["Spec"], "Role": "manager"}
    found = member(SWARM, {**NODE, "Spec": spec, "Status": status, "ManagerStatus": manager})
    assert (found.engine.address, found.is_manager) == ("10.0.0.9", True)


@pytest.mark.parametrize(
    ("availability", "status", "standing"),
    [
        ("active", {"State": "ready"}, Standing(HostState.READY)),
        ("active", {"State": "unknown"}, Standing(HostState.READY)),
        ("drain", {"State": "ready"}, Standing(HostState.DRAINING, "is drained in the Swarm")),
        ("pause", {"State": "ready"}, Standing(HostState.DRAINING, "is paused in the Swarm")),
        (
            "drain",
            {"State": "down", "Message": "heartbeat failure"},
            Standing(HostState.DOWN, "the Swarm says it is down: heartbeat failure"),
        ),
        (
            "active",
            {"State": "disconnected"},
            Standing(HostState.DOWN, "the Swarm says it is down"),
        ),
    ],
)
def test_a_node_stands_as_its_swarm_says(
    availability: str, status: dict[str, str], standing: Standing
) -> None:
    spec = {**NODE["Spec"], "Availability": availability}
    node = {**NODE, "Spec": spec, "Status": {"Addr": "10.0.0.5", **status}}
    assert member(SWARM, node).standing == standing


def test_a_node_whose_label_is_no_endpoint_is_refused() -> None:
    labels = {"nimbus.endpoint": "big"}
    with pytest.raises(InvalidRequest, match="an endpoint must be like"):
        member(SWARM, {**NODE, "Spec": {**NODE["Spec"], "Labels": labels}})
