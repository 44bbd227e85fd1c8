from __future__ import annotations

from pathlib import Path

import pytest

from nimbus_hub.executors.limits import NoLimits, ReplicaLimits, find_limits

MEMORY = 3 * 2**30


@pytest.fixture
def version_one(tmp_path: Path) -> Path:
    """A service in /service for memory, in the root for CPUs. Plain files do as the kernel's."""
    (tmp_path / "memory/service").mkdir(parents=True)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "self").write_text("4:memory:/service\n2:cpuacct:/\n1:cpu:/\n0::/\n")
    return tmp_path


@pytest.fixture
def version_two(tmp_path: Path) -> Path:
    """A service in a unit of the system slice."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    (tmp_path / "system.slice/nimbus.service").mkdir(parents=True)
    (tmp_path / "system.slice/cgroup.subtree_control").write_text("memory cpu pids\n")
    (tmp_path / "self").write_text("0::/system.slice/nimbus.service\n")
    return tmp_path


def test_version_one_makes_a_group_in_each_hierarchy_below_the_service(version_one: Path) -> None:
    limits = find_limits(version_one, version_one / "self", is_root=True)
    memory, cpu = version_one / "memory/service/nimbus-r1", version_one / "cpu/nimbus-r1"
    assert limits.create("r1", 1500, MEMORY) == ReplicaLimits(
        (memory, cpu), memory / "memory.oom_control"
    )
    assert (memory / "memory.limit_in_bytes").read_text() == str(MEMORY)
    assert (cpu / "cpu.shares").read_text() == "1536"


def test_version_two_makes_one_group_beside_the_service(version_two: Path) -> None:
    limits = find_limits(version_two, version_two / "self", is_root=True)
    group = version_two / "system.slice/nimbus-r1"
    assert limits.create("r1", 500, MEMORY) == ReplicaLimits((group,), group / "memory.events")
    assert (group / "memory.max").read_text() == str(MEMORY)
    assert (group / "cpu.weight").read_text() == "50"


def test_only_memory_is_limited_where_cpus_cannot_be(version_one: Path) -> None:
    (version_one / "cpu").rmdir()
    limits = find_limits(version_one, version_one / "self", is_root=True)
    memory = version_one / "memory/service/nimbus-r1"
    assert limits.create("r1", 1000, MEMORY).groups == (memory,)


def test_a_controller_that_is_off_is_turned_on(version_two: Path) -> None:
    control = version_two / "system.slice/cgroup.subtree_control"
    control.write_text("memory pids\n")
    find_limits(version_two, version_two / "self", is_root=True)
    assert control.read_text() == "+cpu"


@pytest.mark.parametrize("value", [1, 10**9])
def test_cpu_weights_stay_within_what_the_kernel_takes(version_two: Path, value: int) -> None:
    limits = find_limits(version_two, version_two / "self", is_root=True)
    limits.create("r1", value, MEMORY)
    weight = (version_two / "system.slice/nimbus-r1/cpu.weight").read_text()
    assert weight == {1: "1", 10**9: "10000"}[value]


def test_nothing_is_limited_without_root(version_one: Path) -> None:
    limits = find_limits(version_one, version_one / "self", is_root=False)
    assert isinstance(limits, NoLimits)
    assert limits.create("r1", 1000, MEMORY) == ReplicaLimits()


def test_nothing_is_limited_without_control_groups(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("0::/\n")
    assert isinstance(find_limits(tmp_path, tmp_path / "self", is_root=True), NoLimits)
    assert isinstance(find_limits(tmp_path, tmp_path / "none", is_root=True), NoLimits)


def test_a_group_whose_value_is_refused_is_taken_away_again(version_one: Path) -> None:
    memory = version_one / "memory/service/nimbus-r1"
    (memory / "memory.limit_in_bytes").mkdir(parents=True)
    limits = find_limits(version_one, version_one / "self", is_root=True)
    assert limits.create("r1", 1000, MEMORY) == ReplicaLimits((version_one / "cpu/nimbus-r1",))
