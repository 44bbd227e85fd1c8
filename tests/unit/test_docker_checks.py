"""What is said of an engine's host: what works, what does not, and what to do about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nimbus_hub.executors.docker.checks import (
    certificate_check,
    clock_check,
    disk_check,
    limits_check,
    network_check,
    registry_check,
    runtime_check,
    version_check,
)
from nimbus_hub.model.check import HostCheck
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.host import Gpu

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
INFO: dict[str, Any] = {
    "ServerVersion": "20.10.24",
    "MemoryLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
    "InitBinary": "docker-init",
    "SystemTime": "2026-03-01T12:00:01.329123456Z",
    "DockerRootDir": "/var/lib/docker",
}
DF = "Filesystem 1024-blocks Used Available Capacity Mounted on\noverlay 99 9 {} 10% /\n"


def test_an_engine_that_is_too_old_is_to_be_updated() -> None:
    found = version_check(INFO, {"ApiVersion": "1.41"})
    assert found == HostCheck("version", True, "Docker 20.10.24, API 1.41")
    assert version_check(INFO, {"ApiVersion": "1.39"}).remedy == "update Docker to 19.03 or later"
    assert version_check(INFO, {"ApiVersion": "1.100"}).is_ok


@pytest.mark.parametrize(
    ("runtimes", "gpus", "is_ok", "text"),
    [
        ({"runc": {}}, (), True, "runc, none for GPUs"),
        ({"runc": {}, "nvidia": {}}, (), True, "runc, and nvidia for GPUs"),
        ({"runc": {}, "nvidia": {}}, (Gpu(0, "A100"),), True, "runc, and nvidia for GPUs"),
        ({}, (Gpu(0, "A100"),), False,
         "runc; GPUs are declared, and the engine has no runtime for them"),
    ],
)  # fmt: skip
def test_a_runtime_for_gpus_is_needed_where_some_are_declared(
    runtimes: dict[str, Any], gpus: tuple[Gpu, ...], is_ok: bool, text: str
) -> None:
    found = runtime_check({**INFO, "DefaultRuntime": "runc", "Runtimes": runtimes}, gpus)
    assert (found.is_ok, found.text, bool(found.remedy)) == (is_ok, text, not is_ok)


@pytest.mark.parametrize(
    ("found", "is_ok", "text"),
    [
        ({}, True, "no environment has an image"),
        ({"a": (False, ""), "b": (True, "")}, True, "gives a, b"),
        ({"a": (True, "no")}, True, "a: no (but the host has it)"),
        ({"a": (False, ""), "b": (True, "no")}, True, "gives a; b: no (but the host has it)"),
        ({"a": (False, "no"), "b": (True, "no"), "c": (True, "")}, False, "a: no"),
    ],
)
def test_an_image_comes_from_its_registry_or_is_there(
    found: dict[str, tuple[bool, str]], is_ok: bool, text: str
) -> None:
    check = registry_check(found)
    assert (check.is_ok, check.text, bool(check.remedy)) == (is_ok, text, not is_ok)


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ({}, "memory, CPUs and processes of containers are limited"),
        ({"MemoryLimit": False}, "the kernel does not limit memory of containers"),
        ({"InitBinary": ""}, "docker-init is missing"),
    ],
)
def test_limits_that_are_not_kept_are_told(missing: dict[str, Any], text: str) -> None:
    found = limits_check({**INFO, **missing})
    assert (found.is_ok, found.text) == (not missing, text)


@pytest.mark.parametrize(
    ("offset", "is_ok", "text"),
    [
        (0, True, "its clock is 1.3 s ahead of the service's"),
        (60, False, "its clock is 58.7 s behind the service's"),
    ],
)
def test_clocks_that_differ_are_told(offset: int, is_ok: bool, text: str) -> None:
    found = clock_check(INFO, NOW + timedelta(seconds=offset))
    assert (found.is_ok, found.text) == (is_ok, text)


@pytest.mark.parametrize(
    ("free", "is_ok", "text"), [(75 * 2**20, True, "75G"), (512, False, "512")]
)
def test_a_disk_that_is_nearly_full_is_told(free: int, is_ok: bool, text: str) -> None:
    found = disk_check(INFO, DF.format(free))
    assert found.is_ok is is_ok
    assert found.text.startswith(text)


def test_what_gangs_get_of_a_network_is_told_and_who_is_in_the_way() -> None:
    bridge = Engine("gpu-1", "unix:///var/run/docker.sock")
    lab = {
        "Name": "lab",
        "Driver": "bridge",
        "IPAM": {"Config": [{"Subnet": "10.64.3.0/24"}]},
        "Labels": {},
    }
    info = {"Swarm": {"LocalNodeState": "inactive"}}
    assert network_check(bridge, info, "10.64.0.0/16", []) == HostCheck(
        "network",
        True,
        "bridges out of 10.64.0.0/16, one for each gang: 512 gangs of at most 62 slots",
    )
    found = network_check(bridge, info, "10.64.0.0/16", [lab])
    assert (found.is_ok, found.remedy) == (False, "name another subnet, or: docker network rm lab")
    overlay = Engine("gpu-1", "ssh://gpu-1", network="nimbus", subnet="10.64.0.0/16")
    joined = {"Swarm": {"LocalNodeState": "active"}}
    # A bridge has its addresses on the host, an overlay in the Swarm.
    assert network_check(overlay, joined, "10.64.0.0/16", [lab]).is_ok
    assert network_check(overlay, info, "10.64.0.0/16", []) == HostCheck(
        "network",
        False,
        "networks are overlays, and the engine is inactive in a Swarm",
        "have it join the Swarm: docker swarm join",
    )
    host = Engine("gpu-1", "ssh://gpu-1", network="host")
    assert network_check(host, info, "", [lab]).text.startswith("the host's")


def test_a_certificate_that_ends_soon_is_to_be_renewed() -> None:
    assert certificate_check(NOW + timedelta(days=90), NOW) == HostCheck(
        "tls", True, "TLS with client certificates; the engine's ends 2026-05-30"
    )
    assert certificate_check(NOW + timedelta(days=9), NOW).remedy == (
        "renew the engine's certificate"
    )
