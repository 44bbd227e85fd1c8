"""The inventory: executors, the cluster file and operators, and whose word holds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nimbus_hub.control.bus import Bus
from nimbus_hub.control.cluster_file import ClusterFile
from nimbus_hub.control.inventory import Inventory
from nimbus_hub.control.records import Records
from nimbus_hub.errors import Conflict, InvalidRequest, NotFound, Unavailable
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.model.check import HostCheck
from nimbus_hub.model.cluster import Quota
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.host import Gpu, Host, HostState
from nimbus_hub.store.store import Store
from tests.unit.control_harness import CPU_1, GIB, GPU_1, HandClock, until

ONE = "hosts: [{name: a, cpus: 4, memory: 8G}]"
TWO = "hosts: [{name: a, cpus: 8, memory: 8G}, {name: b, cpus: 4, memory: 8G}]"
NONE_THERE = "hosts: [{name: a, cpus: 4, memory: 8G, colour: red}]"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(ONE)
    return path


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    found = Records(Store.open(f"sqlite:///{tmp_path / 'nimbus.sqlite'}"), Bus(), HandClock())
    yield found
    found.close()


def rewrite(path: Path, text: str) -> None:
    """Write a file as editors do: another file takes its place."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def remove(path: Path) -> None:
    path.unlink()


async def looks(inventory: Inventory) -> bool:
    """Look at the file until a change would have counted; tell whether one did."""
    return any([await inventory.reload() for _ in range(2)])


def names(inventory: Inventory) -> list[str]:
    return [host.name for host in inventory.hosts]


# The file


async def test_declared_hosts_stand_for_the_machine_itself(path: Path) -> None:
    inventory = Inventory([FakeExecutor((CPU_1,))], file=ClusterFile(path))
    await inventory.refresh()
    assert inventory.hosts == (Host("a", 4000, 8 * GIB),)
    assert inventory.executor("a") is inventory.executors[0]
    assert inventory.has_left("cpu-1")


async def test_without_declared_hosts_the_machine_itself_is_one(path: Path) -> None:
    write(path, "quota: {gpus: 1}")
    inventory = Inventory([FakeExecutor((CPU_1,))], file=ClusterFile(path))
    await inventory.refresh()
    assert inventory.hosts == (CPU_1,)
    assert inventory.cluster.quota == Quota(gpus_milli=1000)


async def test_found_hosts_join_those_declared(path: Path) -> None:
    found = replace(GPU_1, executor="remote")
    write(path, "hosts: [{name: gpu-1, cpus: 4, memory: 8G, executor: remote}]")
    remote = FakeExecutor((found, replace(CPU_1, executor="remote")))
    inventory = Inventory([remote], names=["remote"], file=ClusterFile(path))
    await inventory.refresh()
    assert names(inventory) == ["cpu-1", "gpu-1"]


async def test_the_file_wins_and_what_it_leaves_out_is_as_found(path: Path) -> None:
    gpus = (Gpu(0, "A100", 40 * GIB, "GPU-1"),)
    found = Host("a", 1000, GIB, gpus, "10.0.0.7", rack="found", labels={"x": "1", "y": "1"})
    write(
        path,
        "hosts: [{name: a, cpus: 4, memory: 8G, rack: said, datacenter: north, labels: {y: 2}}]",
    )
    inventory = Inventory([FakeExecutor((found,))], file=ClusterFile(path))
    await inventory.refresh()
    (host,) = inventory.hosts
    labels = {"x": "1", "y": "2"}
    assert host == Host("a", 4000, 8 * GIB, gpus, "10.0.0.7", "north", "said", labels=labels)


async def test_without_a_file_nothing_is_configured() -> None:
    inventory = Inventory([FakeExecutor((CPU_1,))])
    await inventory.refresh()
    assert inventory.cluster.hosts == ()
    assert not await inventory.reload()
    await inventory.follow_file(lambda: None)


async def test_a_declared_host_may_wait_for_the_engine_that_is_added(path: Path) -> None:
    class Keeper(FakeExecutor):
        def engine(self, name: str) -> Engine:
            if name != "has":
                raise Unavailable(f"host {name} has no engine")
            return Engine(name, "ssh://has")

        async def sessions(self, name: str) -> frozenset[str]:
            return frozenset()

        async def remove_session(self, name: str, lease_id: str) -> None:
            pass

        async def check_host(self, name: str) -> tuple[HostCheck, ...]:
            return ()

        async def check_engine(self, engine: Engine) -> tuple[HostCheck, ...]:
            return (HostCheck("address", True, engine.address),)

    write(
        path,
        "hosts:\n"
        "  - {name: waits, cpus: 4, memory: 8G, executor: docker}\n"
        "  - {name: has, cpus: 4, memory: 8G, executor: docker}\n"
        "  - {name: other, cpus: 4, memory: 8G}\n",
    )
    inventory = Inventory(
        [FakeExecutor(), Keeper()], names=["local", "docker"], file=ClusterFile(path)
    )
    await inventory.refresh()
    for name in ("has", "other"):
        with pytest.raises(Conflict, match=f"there is a host '{name}' already"):
            await inventory.check_engine(Engine(name, "ssh://10.0.0.9"))
    waiting = Engine("waits", "ssh://10.0.0.9")
    assert await inventory.check_engine(waiting) == (HostCheck("address", True, "10.0.0.9"),)
    await inventory.add_engine(waiting)
    assert await looks(inventory)
    assert [engine.host for engine in inventory.cluster.engines] == ["waits"]


# As it changes


async def test_a_changed_file_is_applied_without_a_restart(path: Path) -> None:
    inventory = Inventory([FakeExecutor()], file=ClusterFile(path))
    await inventory.refresh()
    assert not await looks(inventory)
    rewrite(path, TWO + "\nquota: {gpus: 2}")
    assert await looks(inventory)
    assert [(host.name, host.cpus_milli) for host in inventory.hosts] == [("a", 8000), ("b", 4000)]
    assert inventory.cluster.quota == Quota(gpus_milli=2000)
    rewrite(path, ONE)
    assert await looks(inventory)
    assert names(inventory) == ["a"]
    assert inventory.has_left("b")


async def test_a_change_counts_only_once_the_writer_is_done(path: Path) -> None:
    file = ClusterFile(path)
    write(path, "hosts: [")
    assert not file.reload()
    write(path, TWO)
    assert not file.reload()
    assert file.error == ""
    assert file.reload()
    assert len(file.cluster.hosts) == 2


async def test_a_touched_file_changes_nothing(path: Path) -> None:
    file = ClusterFile(path)
    rewrite(path, ONE + "  # the same")
    assert [file.reload() for _ in range(3)] == [False] * 3


async def test_a_bad_file_is_told_once_and_what_it_said_before_holds(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inventory = Inventory([FakeExecutor()], file=ClusterFile(path))
    await inventory.refresh()
    before = inventory.hosts
    rewrite(path, NONE_THERE)
    for _ in range(4):
        assert not await inventory.reload()
    assert inventory.hosts is before
    assert inventory.file_error.startswith(f"{path}:1: hosts[0].colour is not known")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        f"cluster file refused, what it said before holds on: {inventory.file_error}"
    ]
    rewrite(path, ONE)
    assert not await looks(inventory)
    assert inventory.file_error == ""


async def test_a_file_that_goes_away_is_a_fault_and_no_change(path: Path) -> None:
    inventory = Inventory([FakeExecutor()], file=ClusterFile(path))
    await inventory.refresh()
    remove(path)
    assert not await looks(inventory)
    assert inventory.file_error == f"{path} cannot be read: No such file or directory"
    assert names(inventory) == ["a"]


def test_a_bad_file_is_refused_at_the_start(path: Path) -> None:
    write(path, NONE_THERE)
    with pytest.raises(InvalidRequest, match=":1: "):
        ClusterFile(path)


@contextlib.asynccontextmanager
async def following(inventory: Inventory, changes: list[None]) -> AsyncIterator[None]:
    task = asyncio.create_task(inventory.follow_file(lambda: changes.append(None)))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_who_follows_the_file_is_told_of_changes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimbus_hub.control.inventory._FILE_SECONDS", 0.01)
    inventory, changes = Inventory([FakeExecutor()], file=ClusterFile(path)), list[None]()
    async with following(inventory, changes):
        rewrite(path, TWO)
        await until(lambda: changes)
        assert names(inventory) == ["a", "b"]


async def test_following_goes_on_after_executors_disagree(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nimbus_hub.control.inventory._FILE_SECONDS", 0.01)
    inventory = Inventory([FakeExecutor()], file=ClusterFile(path))
    await inventory.refresh()
    inventory._answers = {0: (CPU_1, CPU_1)}
    changes: list[None] = []
    async with following(inventory, changes):
        rewrite(path, TWO)
        await until(lambda: "two hosts are named 'cpu-1'" in caplog.text)
        inventory._answers = {0: ()}
        rewrite(path, ONE)
        await until(lambda: changes)


async def test_hosts_are_asked_for_again_when_their_executor_tells_of_a_change() -> None:
    found = [CPU_1]

    class Growing(FakeExecutor):
        async def hosts(self) -> tuple[Host, ...]:
            return tuple(found)

    inventory, told, seen = Inventory([Growing()]), asyncio.Queue[None](), list[list[str]]()
    await inventory.refresh()
    task = asyncio.create_task(
        inventory.follow_hosts(told.get, lambda: seen.append(names(inventory)))
    )
    found.append(GPU_1)
    told.put_nowait(None)
    await until(lambda: bool(seen))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == [["cpu-1", "gpu-1"]]


# Hosts that are away


async def test_hosts_of_an_executor_that_does_not_answer_are_down(path: Path) -> None:
    first, second = FakeExecutor((CPU_1,)), FakeExecutor((GPU_1,))
    inventory = Inventory([first, second])
    await inventory.refresh()
    ready = inventory.hosts
    second.unreachable = True
    await inventory.refresh()
    cpu, gpu = inventory.hosts
    assert (cpu, gpu.state) == (CPU_1, HostState.DOWN)
    reason = "its executor does not answer: the fake executor does not answer"
    assert gpu.state_reason == reason
    second.unreachable = False
    await inventory.refresh()
    assert inventory.hosts == ready == (CPU_1, GPU_1)


async def test_a_declared_host_is_down_as_long_as_nobody_runs_things_there(path: Path) -> None:
    executor = FakeExecutor()
    executor.unreachable = True
    inventory = Inventory([executor], file=ClusterFile(path))
    await inventory.refresh()
    assert [host.state for host in inventory.hosts] == [HostState.DOWN]
    assert not inventory.is_complete


async def test_a_host_that_its_executor_calls_down_is_down_whatever_is_declared(
    path: Path,
) -> None:
    down = Host("a", 1000, GIB, state=HostState.DOWN, state_reason="no heartbeat")
    inventory = Inventory([FakeExecutor((down,))], file=ClusterFile(path))
    await inventory.refresh()
    (host,) = inventory.hosts
    assert (host.state, host.state_reason) == (HostState.DOWN, "no heartbeat")


async def test_the_hosts_are_the_same_value_until_something_changes() -> None:
    inventory = Inventory([FakeExecutor((CPU_1, GPU_1))])
    await inventory.refresh()
    before = inventory.hosts
    await inventory.refresh()
    assert inventory.hosts is before


# Draining


async def test_a_drained_host_says_who_drained_it_and_why(records: Records) -> None:
    woken: list[None] = []
    records.wake = lambda: woken.append(None)
    inventory = Inventory([FakeExecutor((CPU_1, GPU_1))], records=records)
    await inventory.refresh()
    host = await inventory.drain("gpu-1", "new fans", "root")
    assert (host.state, host.state_reason) == (HostState.DRAINING, "drained by root: new fans")
    assert inventory.hosts == (CPU_1, host)
    assert await inventory.undrain("gpu-1") == GPU_1
    assert inventory.hosts == (CPU_1, GPU_1)
    assert len(woken) == 2
    assert (await inventory.drain("cpu-1", "", "root")).state_reason == "drained by root"


async def test_a_drain_holds_after_a_restart_and_while_its_host_is_away(
    records: Records,
) -> None:
    executor = FakeExecutor((CPU_1,))
    before = Inventory([executor], records=records)
    await before.refresh()
    await before.drain("cpu-1", "new fans", "root")
    after = Inventory([executor], records=records)
    executor._hosts = ()
    await after.refresh()
    assert names(after) == []
    executor._hosts = (CPU_1,)
    await after.refresh()
    assert [host.state for host in after.hosts] == [HostState.DRAINING]


async def test_a_drained_host_that_is_down_is_down(records: Records) -> None:
    executor = FakeExecutor((CPU_1,))
    inventory = Inventory([executor], records=records)
    await inventory.refresh()
    await inventory.drain("cpu-1", "new fans", "root")
    executor.unreachable = True
    await inventory.refresh()
    assert [host.state for host in inventory.hosts] == [HostState.DOWN]
    executor.unreachable = False
    await inventory.refresh()
    assert [host.state for host in inventory.hosts] == [HostState.DRAINING]


async def test_undraining_what_is_not_drained_changes_nothing(records: Records) -> None:
    inventory = Inventory([FakeExecutor((CPU_1,))], records=records)
    await inventory.refresh()
    assert await inventory.undrain("cpu-1") == CPU_1


async def test_a_host_that_the_file_drains_is_undrained_there(path: Path, records: Records) -> None:
    write(path, "hosts: [{name: a, cpus: 4, memory: 8G, state: draining}]")
    inventory = Inventory([FakeExecutor()], file=ClusterFile(path), records=records)
    await inventory.refresh()
    assert inventory.hosts[0].state_reason == "declared to be draining"
    with pytest.raises(Conflict, match="change it in the cluster file"):
        await inventory.undrain("a")


async def test_a_host_that_is_not_there_cannot_be_drained(records: Records) -> None:
    inventory = Inventory([FakeExecutor((CPU_1,))], records=records)
    await inventory.refresh()
    for change in (inventory.drain("gpu-9", "", "root"), inventory.undrain("gpu-9")):
        with pytest.raises(NotFound, match="there is no host 'gpu-9'"):
            await change
    assert await records.read(records.store.host_marks) == ()
