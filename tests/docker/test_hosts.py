"""Engines as hosts, with real engines: what is found, and what goes and comes back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nimbus_hub.clock import SystemClock
from nimbus_hub.executors.docker.checks import check_engine
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.executors.docker.gpus import query_memory
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.host import Gpu, HeldMemory, Host, HostState
from tests.docker.certificates import make_certificates
from tests.docker.cluster import BUSYBOX, Cluster, ClusterHost, busybox_image, cluster
from tests.docker.finding import finding

GONE_SECONDS = 10
BACK_SECONDS = 15

_NVIDIA_SMI = b"""#!/bin/sh
[ "$NVIDIA_VISIBLE_DEVICES" = all ] || exit 8
if [ "$1" = --query-gpu=index,memory.used ]; then echo "0, 3072"; echo "1, 0"; exit; fi
[ "$1" = --query-gpu=index,uuid,name,memory.total ] || exit 9
echo "0, GPU-5f1c, NVIDIA A100-SXM4-40GB, 40960"
echo "1, GPU-77aa, NVIDIA A100-SXM4-40GB, 40960"
"""


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    with cluster(2, labels=[["rack=r1", "disk=nvme"], ["gpus=A100:2"]]) as made:
        yield made


def engine_of(host: ClusterHost, **values: str) -> Engine:
    return Engine(host.name, host.endpoint, str(host.tls), host.address, **values)


def is_state(name: str, state: HostState) -> Callable[[dict[str, Host]], bool]:
    return lambda hosts: hosts[name].state is state


async def test_hosts_are_found_with_all_that_their_engines_tell(two: Cluster) -> None:
    first, second = two.hosts
    engines = [engine_of(first), engine_of(second, rack="r2", subnet="10.90.0.0/16")]
    cpus, memory = (os.cpu_count() or 0) * 1000, int(second.docker("info", "-f", "{{.MemTotal}}"))
    async with finding(engines) as found:
        hosts = await found.hosts()
    assert hosts == {
        "h1": Host(
            "h1", cpus, memory, (), first.address, rack="r1", executor="docker",
            labels={"rack": "r1", "disk": "nvme"}, network="10.64.0.0/16",
        ),
        "h2": Host(
            "h2", cpus, memory, (Gpu(0, "A100"), Gpu(1, "A100")), second.address, rack="r2",
            executor="docker", labels={"gpus": "A100:2"}, network="10.90.0.0/16",
        ),
    }  # fmt: skip


async def test_addresses_that_another_network_has_are_said_with_what_to_do(two: Cluster) -> None:
    host = two.hosts[0]
    host.docker("network", "create", "--subnet", "10.64.7.0/24", "lab")
    async with finding([engine_of(host)]) as found:
        assert (await found.hosts())["h1"].network == "10.65.0.0/16"
    async with finding([engine_of(host, subnet="10.64.0.0/16")]) as found:
        told = (await found.hosts())["h1"]
    host.docker("network", "rm", "lab")
    assert told.state is HostState.DOWN
    assert "10.64.0.0/16 of host h1 has addresses of its network lab" in told.state_reason
    assert "docker network rm lab" in told.state_reason


async def test_the_network_of_the_host_gives_slots_no_addresses_of_their_own(two: Cluster) -> None:
    async with finding([engine_of(two.hosts[1], network="host")]) as found:
        assert (await found.hosts())["h2"].network == ""


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_an_engine_that_ends_is_down_within_ten_seconds_and_ready_when_it_is_back(
    two: Cluster, way: str
) -> None:
    host = two.hosts[0]
    async with finding([engine_of(each) for each in two.hosts]) as found:
        await found.until(is_state("h1", HostState.READY), BACK_SECONDS)
        before = (await found.hosts())["h1"]
        getattr(host, way)()
        await found.until(is_state("h1", HostState.DOWN), GONE_SECONDS)
        gone = await found.hosts()
        assert "its Docker engine does not answer" in gone["h1"].state_reason
        assert (gone["h1"].cpus_milli, gone["h1"].network) == (before.cpus_milli, before.network)
        assert gone["h2"].state is HostState.READY
        host.start()
        await found.until(is_state("h1", HostState.READY), BACK_SECONDS)
        assert (await found.hosts())["h1"] == before


async def test_a_host_whose_network_is_cut_is_down_within_ten_seconds(two: Cluster) -> None:
    async with finding([engine_of(each) for each in two.hosts]) as found:
        await found.until(is_state("h2", HostState.READY), BACK_SECONDS)
        two.hosts[1].cut()
        await found.until(is_state("h2", HostState.DOWN), GONE_SECONDS)
        two.hosts[1].heal()
        await found.until(is_state("h2", HostState.READY), BACK_SECONDS)


async def test_an_engine_that_never_answered_is_a_host_that_is_down(two: Cluster) -> None:
    nobody = Engine("h9", f"tcp://{two.hosts[0].address}:2399", str(two.tls))
    async with finding([nobody, engine_of(two.hosts[0])]) as found:
        hosts = await found.hosts()
    assert (hosts["h9"].state, hosts["h1"].state) == (HostState.DOWN, HostState.READY)
    assert "does not answer" in hosts["h9"].state_reason


async def test_an_engine_is_not_talked_to_without_the_right_certificates(
    two: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = make_certificates(tmp_path_factory.mktemp("tls"), [two.hosts[0].address])
    stranger = Engine("h1", two.hosts[0].endpoint, str(other))
    async with finding([stranger]) as found:
        host = (await found.hosts())["h1"]
    assert host.state is HostState.DOWN
    assert "certificate" in host.state_reason


async def test_gpus_and_what_is_held_of_them_are_as_the_driver_tells_in_a_container() -> None:
    runtime = f"nvidia={shutil.which('runc') or '/usr/sbin/runc'}"
    with cluster(1, options=["--add-runtime", runtime]) as made:
        host = made.hosts[0]
        image = "nimbus-test/nvidia:1"
        host.docker("import", "-", image, given=busybox_image({"bin/nvidia-smi": _NVIDIA_SMI}))
        async with finding([engine_of(host)], image=image) as found:
            gpus = (await found.hosts())["h1"].gpus
        assert gpus == (
            Gpu(0, "NVIDIA A100-SXM4-40GB", 40 * 2**30, "GPU-5f1c"),
            Gpu(1, "NVIDIA A100-SXM4-40GB", 40 * 2**30, "GPU-77aa"),
        )
        client = EngineClient(engine_of(host))
        assert query_memory(client, image, {}) == {0: HeldMemory(3 * 2**30), 1: HeldMemory(0)}
        client.close()
        assert host.docker("ps", "--all", "--quiet") == ""


def test_what_works_on_a_host_is_told_with_what_is_missing(two: Cluster) -> None:
    client = EngineClient(engine_of(two.hosts[1]))
    try:
        found = {
            each.name: each for each in check_engine(client, (BUSYBOX,), {}, SystemClock().now)
        }
    finally:
        client.close()
    assert list(found) == [
        "version", "tls", "runtime", "limits", "clock", "registry", "network", "disk", "gpus",
    ]  # fmt: skip
    assert not found["tls"].is_ok, "the certificates of tests end in two days"
    assert not found["runtime"].is_ok, "GPUs are declared by a label alone"
    assert found["gpus"].text == "2 A100, as declared"
    assert found["registry"].text.startswith(f"{BUSYBOX}: the Docker engine of host h2 says: ")
    others = {
        name: check for name, check in found.items() if name not in ("tls", "runtime", "disk")
    }
    assert all(check.is_ok for check in others.values()), others
    assert "free below" in found["disk"].text


def test_an_engine_that_does_not_answer_is_one_fault(two: Cluster) -> None:
    client = EngineClient(Engine("h9", f"tcp://{two.hosts[0].address}:2399", str(two.tls)))
    try:
        (found,) = check_engine(client, (), {}, SystemClock().now)
    finally:
        client.close()
    assert (found.name, found.is_ok) == ("engine", False)
    assert "start Docker there" in found.remedy


def test_certificates_that_the_service_cannot_read_are_named(two: Cluster, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes((two.tls / "ca.pem").read_bytes())
    client = EngineClient(Engine("h1", two.hosts[0].endpoint, str(tmp_path)))
    (found,) = check_engine(client, (), {}, SystemClock().now)
    client.close()
    assert (found.name, found.is_ok) == ("tls", False)
    assert found.text == f"the service cannot read cert.pem, key.pem in {tmp_path}"
