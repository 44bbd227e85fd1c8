from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimbus_hub.executors.gpu_usage import GpuSampler, GpuUser
from nimbus_hub.executors.processes import Process, boot_id
from nimbus_hub.executors.records import Record
from nimbus_hub.executors.usage import ProcessTable, UsageReader
from nimbus_hub.model.replica import Usage


class HandSampler(GpuSampler):
    """Tells what it is told."""

    def __init__(self) -> None:
        self.users: dict[str, GpuUser] = {}
        self.told = 0.0

    def follow(self, users: object) -> None:
        self.users = dict(users)  # type: ignore[call-overload]

    def seconds(self, replica_id: str) -> float:
        return self.told if replica_id in self.users else 0.0

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def lonely() -> Iterator[dict[str, object]]:
    """A process that has never had children, as a record names a supervisor."""
    with subprocess.Popen(["sleep", "600"]) as process:
        started = int(_started(process.pid))
        yield {"pid": process.pid, "start_time": started, "boot_id": boot_id()}
        process.kill()


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """Plain files do as the kernel's."""
    found = tmp_path / "cgroup"
    found.mkdir()
    return found


@pytest.fixture
def record(tmp_path: Path, group: Path, lonely: dict[str, object]) -> Record:
    """The record of a replica that has just been started."""
    found = Record(tmp_path / "r1")
    found.make()
    found.write_spec({"cgroups": [str(group)], "gpus": [0, 1]})
    found._save("supervisor.json", lonely)
    return found


def reader(sampler: HandSampler | None = None) -> UsageReader:
    return UsageReader(sampler or HandSampler())


def test_control_groups_of_version_one_count_in_nanoseconds(record: Record, group: Path) -> None:
    (group / "cpu.stat").write_text("nr_periods 0\nnr_throttled 0\nthrottled_time 0\n")
    (group / "cpuacct.usage").write_text("2500000000\n")
    (group / "memory.usage_in_bytes").write_text("4096\n")
    assert reader().read({"r1": record}) == {"r1": Usage(2.5, 4096)}


def test_control_groups_of_version_two_count_in_microseconds(record: Record, group: Path) -> None:
    (group / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1000000\n")
    (group / "memory.current").write_text("8192\n")
    assert reader().read({"r1": record}) == {"r1": Usage(1.5, 8192)}


def test_groups_that_count_no_cpu_time_leave_it_to_the_processes(
    record: Record, group: Path
) -> None:
    (group / "cpu.stat").write_text("nr_periods 0\n")
    # Its supervisor has no children, and so the replica no process yet.
    assert reader().read({"r1": record}) == {}


def test_times_never_fall_and_the_end_has_the_last_word(record: Record, group: Path) -> None:
    usage = reader()
    (group / "cpuacct.usage").write_text("3000000000")
    assert usage.read({"r1": record})["r1"].cpu_seconds == 3.0
    (group / "cpuacct.usage").write_text("1000000000")
    assert usage.read({"r1": record})["r1"].cpu_seconds == 3.0
    (group / "cpuacct.usage").unlink()
    assert usage.read({"r1": record})["r1"].cpu_seconds == 3.0  # its end is being written
    record._save("status.json", {"state": "exited", "cpu_seconds": 3.5})
    assert usage.read({"r1": record}) == {"r1": Usage(3.5)}
    assert reader().read({"r1": record}) == {"r1": Usage(3.5)}


def test_gpu_time_goes_on_where_an_earlier_service_left_it(record: Record, group: Path) -> None:
    (group / "cpuacct.usage").write_text("0")
    sampler = HandSampler()
    first = reader(sampler)
    first.read({"r1": record})
    sampler.told = 5.0
    assert first.read({"r1": record})["r1"].gpu_seconds == 5.0
    sampler = HandSampler()
    second = reader(sampler)
    assert second.read({"r1": record})["r1"].gpu_seconds == 5.0
    sampler.told = 2.0
    record._save("status.json", {"state": "exited", "cpu_seconds": 1.0})
    (group / "cpuacct.usage").unlink()
    assert second.read({"r1": record}) == {"r1": Usage(1.0, 0, 7.0)}
    assert reader().read({"r1": record}) == {"r1": Usage(1.0, 0, 7.0)}


def test_who_holds_gpus_is_sampled_with_its_processes(record: Record, group: Path) -> None:
    (group / "cpuacct.usage").write_text("0")
    (group / "cgroup.procs").write_text("41\n42\n")
    sampler = HandSampler()
    usage = reader(sampler)
    usage.read({"r1": record})
    assert sampler.users["r1"].devices == (0, 1)
    assert list(sampler.users["r1"].processes()) == [41, 42]
    usage.read({})
    assert sampler.users == {}


def test_a_pid_that_is_somebody_elses_by_now_is_no_tree() -> None:
    assert ProcessTable().tree(Process(os.getpid(), 1, boot_id())) == ()
    assert ProcessTable().usage(Process(os.getpid(), 1, boot_id())) is None
    parent = Process(os.getppid(), int(_started(os.getppid())), boot_id())
    assert os.getpid() in ProcessTable().tree(parent)
    found = ProcessTable().usage(parent)
    assert found is not None
    assert found.cpu_seconds > 0
    assert found.memory_bytes > 2**20


def _started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
