"""The cluster file: what it may say, and how it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from nimbus_hub.control.cluster import read_cluster
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.host import Gpu, Host, HostState

GIB = 2**30


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


def test_hosts_are_read_with_all_they_have(tmp_path: Path) -> None:
    text = host(
        gpus="[{model: A100, count: 2, memory: 40G}, {model: T4}]",
        datacenter="north",
        rack="7",
        address="10.0.0.1",
        state="draining",
        first_port="20000",
        last_port="20099",
        labels="{zone: 1}",
    )
    assert read_cluster(file(tmp_path, text)) == (
        Host(
            "gpu-1",
            16000,
            64 * GIB,
            (Gpu(0, "A100", 40 * GIB), Gpu(1, "A100", 40 * GIB), Gpu(2, "T4")),
            address="10.0.0.1",
            datacenter="north",
            rack="7",
            state=HostState.DRAINING,
            first_port=20000,
            last_port=20099,
            labels={"zone": "1"},
        ),
    )


@pytest.mark.parametrize("text", ["", "hosts:", "hosts: []"])
def test_a_file_may_declare_no_hosts(tmp_path: Path, text: str) -> None:
    assert read_cluster(file(tmp_path, text)) == ()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"hosts: \xff\xfe", "must be text in UTF-8"),
        ("hosts: [", "is not YAML"),
        ("- a", "must have the one key 'hosts'"),
        ("host: []", "must have the one key 'hosts'"),
        ("hosts: {}", "hosts must be a list"),
        ("hosts: 0", "hosts must be a list"),
        ("hosts: [gpu-1]", "hosts[0] must be a mapping with name, cpus and memory"),
        (host(name=""), "hosts[0].name is missing"),
        (host(memory=""), "hosts[0].memory is missing"),
        (host(name="null"), "hosts[0].name: must be a text, got None"),
        (host(name="[a]"), "hosts[0].name: must be a text"),
        (host(cpus="many"), "hosts[0].cpus: cpus must be a number like 2 or 0.5, got 'many'"),
        (host(cpus="0"), "hosts[0].cpus: cpus must be more than 0"),
        (host(memory="lots"), "hosts[0].memory: memory must be a size like 4G"),
        (host(state="up"), "hosts[0].state: must be one of ready, draining, down, got 'up'"),
        (host(state="[]"), "hosts[0].state: must be one of"),
        (host(address="gpu-1.local"), "hosts[0].address: must be an IPv4 address"),
        (host(first_port="x"), "hosts[0].first_port: must be a number, got 'x'"),
        (host(first_port="80"), "hosts[0]: host gpu-1 must have ports within 1024-65535"),
        (host(first_port="30000"), "hosts[0]: host gpu-1 must have ports"),
        (host(labels="abc"), "hosts[0].labels: must be a mapping of texts"),
        (host(cpu="4"), "hosts[0].cpu is not known; known are address, cpus"),
        (host(gpus="4"), "hosts[0].gpus must have model"),
        (host(gpus="{count: 4}"), "hosts[0].gpus must have model"),
        (host(gpus="{model: null}"), "hosts[0].gpus.model: must be a text"),
        (host(gpus="{model: A100, count: -1}"), "hosts[0].gpus.count: must be a number from 0"),
        (host(gpus="{model: A100, count: 9999999}"), "to 1000, got 9999999"),
        (host(gpus="{model: A100, memory: big}"), "hosts[0].gpus.memory: memory must be a size"),
        (host(gpus="{model: A100, counts: 2}"), "hosts[0].gpus.counts is not known"),
        (host() + "\n" + host().partition("\n")[2], "two hosts are named 'gpu-1'"),
    ],
)
def test_a_fault_is_named_with_file_and_key(
    tmp_path: Path, content: str | bytes, sentence: str
) -> None:
    path = file(tmp_path, content)
    with pytest.raises(InvalidRequest) as refused:
        read_cluster(path)
    assert refused.value.message.startswith(str(path))
    assert sentence in refused.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"none\.yaml cannot be read: No such file"):
        read_cluster(tmp_path / "none.yaml")
