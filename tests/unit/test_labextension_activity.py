"""What the session's server measures of itself, and how it tells."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nimbus_labextension.activity import Connections, Measure, Rooms, rooms_of
from nimbus_labextension.agent import Agent
from nimbus_labextension.gpus import Gpus
from nimbus_labextension.processes import Process, Processes, Share, gained
from tornado.websocket import WebSocketProtocol13, _WebSocketParams

from nimbus_hub.client import ActivityTerms
from nimbus_hub.errors import Unavailable
from nimbus_hub.model.policy import Signal

SERVER, KERNEL, SHELL, CODE = 10, 20, 30, 40


def process(pid: int, parent: int, cpu: float = 0.0, memory: int = 0) -> Process:
    return Process(pid, parent, pid, cpu, memory)


@dataclass
class Machine:
    """A /proc of our own."""

    directory: Path
    marks: dict[int, str] = field(default_factory=dict)

    def add(self, pid: int, parent: int, ticks: int = 0, mark: str = "", name: str = "p") -> None:
        home = self.directory / str(pid)
        home.mkdir(exist_ok=True)
        rest = [0] * 40
        rest[1], rest[11], rest[19], rest[21] = parent, ticks, pid, 1
        values = " ".join(str(each) for each in ["S", *rest[1:]])
        (home / "stat").write_text(f"{pid} ({name}) {values}\n")
        (home / "environ").write_bytes(f"HOME=/x\0{mark}\0".encode())

    def look(self) -> Share:
        found = Processes("NIMBUS_LEASE_ID=l-1", self.directory).look(SERVER, [KERNEL], [SHELL])
        assert found is not None
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.add(1, 0)
    machine.add(SERVER, 1)
    machine.add(KERNEL, SERVER)
    machine.add(SHELL, SERVER)
    return machine


def test_the_family_of_the_server_is_the_session(machine: Machine) -> None:
    machine.add(CODE, SERVER, name="a) (b")
    machine.add(41, CODE)
    machine.add(31, SHELL)
    machine.add(21, KERNEL)
    machine.add(99, 1)
    share = machine.look()
    assert set(share.all) == {SERVER, KERNEL, 21, SHELL, 31, CODE, 41}
    assert set(share.terminals) == {SHELL, 31}
    assert set(share.others) == {21, CODE, 41}


def test_what_left_the_family_is_found_by_its_lease(machine: Machine) -> None:
    machine.add(50, 1, mark="NIMBUS_LEASE_ID=l-1")
    machine.add(51, 50)
    machine.add(60, 1, mark="NIMBUS_LEASE_ID=l-11")
    assert set(machine.look().others) == {50, 51}


def test_a_system_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    assert Processes("X=1", tmp_path / "none").look(SERVER, [], []) is None
    assert Processes("X=1", tmp_path).look(SERVER, [], []) is None


def test_this_process_is_found_where_it_is_real() -> None:
    # Starts a process: that the kernel's files are read right is what this checks.
    with subprocess.Popen(
        [sys.executable, "-c", "while True: pass"], stdout=subprocess.DEVNULL
    ) as busy:
        processes = Processes("NIMBUS_TEST=none")
        try:
            before = processes.look(os.getpid(), [], [])
            assert before is not None
            now = before
            for _ in range(2000):
                now = processes.look(os.getpid(), [], []) or before
                if gained(now.others, before.others) > 0.05:
                    break
            assert busy.pid in now.others
            assert gained(now.others, before.others) > 0.05
            assert now.all[os.getpid()].memory_bytes > 2**20
        finally:
            busy.kill()


@pytest.mark.parametrize(
    ("before", "now", "seconds"),
    [
        ([process(1, 0, 5)], [process(1, 0, 7)], 2),
        ([process(1, 0, 5)], [process(1, 0, 5), process(2, 1, 3)], 3),
        # Its parent has waited for it: what it had used before is not used again.
        ([process(1, 0, 5), process(2, 1, 3)], [process(1, 0, 9)], 1),
        # Nobody of the group did.
        ([process(1, 0, 5), process(2, 9, 3)], [process(1, 0, 6)], 1),
        ([process(1, 0, 5)], [], 0),
        # The number was given again to another process.
        ([process(2, 9, 5)], [Process(2, 9, 77, 1, 0)], 1),
    ],
)
def test_what_was_used_between_two_looks(
    before: list[Process], now: list[Process], seconds: float
) -> None:
    assert gained({p.pid: p for p in now}, {p.pid: p for p in before}) == seconds


# Signals


@dataclass
class HandProcesses:
    """Tells what it is given."""

    share: Share | None = None

    def look(self, *_: object) -> Share | None:
        return self.share

    def use(self, **seconds: float) -> None:
        """Have each kind of process used so many CPU seconds in all."""
        code = process(CODE, SERVER, seconds.get("others", 0.0), 2**20)
        shell = process(SHELL, SERVER, seconds.get("terminals", 0.0))
        server = process(SERVER, 1, seconds.get("server", 0.0))
        everybody = {each.pid: each for each in (server, shell, code)}
        self.share = Share(everybody, {SHELL: shell}, {CODE: code})


class HandGpus:
    shares: list[float] = []  # noqa: RUF012 - one test's, not shared

    def busy_shares(self) -> list[float]:
        return self.shares


class HandTime:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> HandTime:
    return HandTime()


@pytest.fixture
def processes() -> HandProcesses:
    found = HandProcesses()
    found.use()
    return found


@pytest.fixture
def measure(clock: HandTime, processes: HandProcesses) -> Measure:
    measure = Measure(SERVER, processes, HandGpus(), clock)  # type: ignore[arg-type]
    measure.look(Rooms())
    return measure


def idle(measure: Measure) -> Mapping[str, float]:
    found = measure.body(())["idle_seconds"]
    assert isinstance(found, dict)
    return found


QUIET = {"kernels": 30, "terminals": 30, "processes": 30, "cpu": 30, "connections": 30}


@pytest.mark.parametrize(
    ("use", "shown"),
    [
        ({}, set()),
        ({"server": 1.4}, set()),
        ({"server": 1.5}, {"cpu"}),
        ({"others": 1.6}, {"cpu", "processes"}),
        ({"terminals": 1.6}, {"cpu", "terminals"}),
        ({"others": 1.0, "terminals": 1.0}, {"cpu"}),
    ],
)
def test_cpu_counts_from_its_share_of_a_core_on(
    measure: Measure,
    clock: HandTime,
    processes: HandProcesses,
    use: dict[str, float],
    shown: set[str],
) -> None:
    clock.now += 30
    processes.use(**use)
    measure.look(Rooms())
    assert idle(measure) == {name: 0 if name in shown else 30 for name in QUIET}
    assert measure.body(())["cpu_seconds"] == sum(use.values())
    assert measure.memory_bytes == 2**20


@pytest.mark.parametrize(
    ("rooms", "shown"),
    [
        (Rooms(busy_kernels=1), {"kernels"}),
        (Rooms(kernels=("k", "idle", 1)), {"kernels"}),
        (Rooms(terminals=("t", 1)), {"terminals"}),
    ],
)
def test_kernels_and_terminals_show_when_something_changed(
    measure: Measure, clock: HandTime, rooms: Rooms, shown: set[str]
) -> None:
    clock.now += 30
    measure.look(rooms)
    assert {name for name, seconds in idle(measure).items() if seconds == 0} == shown
    clock.now += 30
    measure.look(rooms)
    still = {name for name, seconds in idle(measure).items() if seconds == 0}
    assert still == ({"kernels"} if rooms.busy_kernels else set())


def test_gpus_count_from_their_share_on_and_only_where_there_are_some(
    measure: Measure, clock: HandTime
) -> None:
    assert "gpu" not in idle(measure)
    measure.gpus.shares = [0.0, 0.02]  # type: ignore[attr-defined]
    measure.look(Rooms())
    clock.now += 30
    measure.look(Rooms())
    assert idle(measure)["gpu"] == 30
    measure.gpus.shares = [0.0, 0.5]  # type: ignore[attr-defined]
    clock.now += 30
    measure.look(Rooms())
    assert idle(measure)["gpu"] == 0
    assert 15 < measure.gpu_seconds < 16
    measure.gpus.shares = []  # type: ignore[attr-defined]
    measure.look(Rooms())
    assert "gpu" not in idle(measure), "who cannot be asked any more is not idle"


def test_what_cannot_be_measured_is_left_out(clock: HandTime) -> None:
    measure = Measure(SERVER, HandProcesses(), HandGpus(), clock)  # type: ignore[arg-type]
    measure.look(Rooms())
    assert set(idle(measure)) == {"kernels", "terminals", "connections"}


def test_input_of_a_page_shows_when_it_was(measure: Measure, clock: HandTime) -> None:
    clock.now += 100
    measure.show(Signal.CONNECTIONS, 40)
    assert idle(measure)["connections"] == 40
    measure.show(Signal.CONNECTIONS, 90)
    assert idle(measure)["connections"] == 40


def test_a_server_without_rooms_has_none() -> None:
    assert rooms_of({}) == Rooms()


def test_rooms_are_those_of_the_servers_managers() -> None:
    kernel = SimpleNamespace(
        execution_state="busy", last_activity=7, provisioner=SimpleNamespace(pid=KERNEL)
    )
    elsewhere = SimpleNamespace(execution_state="idle", last_activity=8, provisioner=None)
    kernels = {"a": kernel, "b": elsewhere}
    manager = SimpleNamespace(list_kernel_ids=lambda: list(kernels), get_kernel=kernels.get)
    terminal = SimpleNamespace(last_activity=9, ptyproc=SimpleNamespace(pid=SHELL))
    settings = {
        "kernel_manager": manager,
        "terminal_manager": SimpleNamespace(terminals={"1": terminal}),
    }
    assert rooms_of(settings) == Rooms(
        (("a", "busy", 7), ("b", "idle", 8)),
        (("1", 9),),
        1,
        frozenset({KERNEL}),
        frozenset({SHELL}),
    )


class Handler:
    """A websocket's handler, as far as it is looked at."""

    def __init__(self, status: int = 101) -> None:
        self.status = status
        self.ws_connection = SimpleNamespace(_message_bytes_in=0)

    def get_status(self) -> int:
        return self.status


def test_a_socket_that_only_keeps_itself_open_has_no_input() -> None:
    logged: list[object] = []
    settings: dict[str, Any] = {"log_function": logged.append}
    connections = Connections()
    connections.watch(settings)
    socket, page = Handler(), Handler(200)
    settings["log_function"](socket)
    settings["log_function"](page)
    assert logged == [socket, page]
    socket.ws_connection._message_bytes_in = 160
    assert not connections.had_input(30)
    socket.ws_connection._message_bytes_in += 2000
    assert connections.had_input(30)
    assert not connections.had_input(30)
    socket.ws_connection = None  # type: ignore[assignment] - as tornado does when it closes
    assert not connections.had_input(30)


def test_tornado_still_counts_what_it_receives() -> None:
    handler = SimpleNamespace(request=SimpleNamespace(connection=None))
    protocol = WebSocketProtocol13(handler, False, _WebSocketParams())  # type: ignore[arg-type]
    assert protocol._message_bytes_in == 0


# GPUs


class Nvml:
    """A driver of our own."""

    NVML_GPU_UTILIZATION_SAMPLES = 1

    class NVMLError(Exception):
        pass

    def __init__(self, samples: list[int] | None) -> None:
        self.samples = samples
        self.since: list[int] = []

    def nvmlInit(self) -> None:  # noqa: N802
        if self.samples == []:
            raise self.NVMLError("no driver")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetSamples(self, handle: int, kind: int, since: int) -> tuple[int, list[object]]:  # noqa: N802
        self.since.append(since)
        if self.samples is None:
            raise self.NVMLError("not supported")
        return 0, [
            SimpleNamespace(timeStamp=place + 1, sampleValue=SimpleNamespace(uiVal=value))
            for place, value in enumerate(self.samples)
        ]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> object:  # noqa: N802
        return SimpleNamespace(gpu=10 * handle)


def test_gpus_are_asked_for_what_happened_since() -> None:
    nvml = Nvml([0, 50, 100])
    gpus = Gpus("2", nvml)
    assert gpus.busy_shares() == [0.5]
    gpus.busy_shares()
    assert nvml.since == [0, 3]


def test_gpus_without_samples_tell_their_use_of_now() -> None:
    assert Gpus("1,3", Nvml(None)).busy_shares() == [0.1, 0.3]


@pytest.mark.parametrize("devices", [None, "", "void", "GPU-1f2e"])
def test_without_granted_devices_none_are_asked(devices: str | None) -> None:
    assert Gpus(devices, Nvml([100])).busy_shares() == []


def test_a_driver_that_does_not_work_is_asked_once() -> None:
    gpus = Gpus("0", Nvml([]))
    assert gpus.busy_shares() == []
    gpus._nvml = None
    assert gpus.busy_shares() == []


# The agent


@dataclass
class FakeClient:
    """A service that takes reports, or does not answer."""

    error: Exception | None = None
    told: list[Mapping[str, object]] = field(default_factory=list)
    next_seconds: float = 0.01

    def report_activity(self, lease_id: str, activity: Mapping[str, object]) -> ActivityTerms:
        self.told.append(activity)
        if self.error is not None:
            raise self.error
        return ActivityTerms(self.next_seconds, 0.5, 0.25, ())


async def agent_of(client: FakeClient, measure: Measure, monkeypatch: pytest.MonkeyPatch) -> Agent:
    for name, seconds in {"_FIRST_SECONDS": 0.0, "_PAUSE_SECONDS": 0.01}.items():
        monkeypatch.setattr(f"nimbus_labextension.agent.{name}", seconds)
    settings: dict[str, Any] = {"log_function": lambda handler: None}
    agent = Agent("l-1", client, settings, measure)
    agent.start()
    return agent


async def told(client: FakeClient, times: int) -> None:
    async with asyncio.timeout(10):
        while len(client.told) < times:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.005)


async def test_the_agent_tells_and_takes_the_services_terms(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = FakeClient()
    agent = await agent_of(client, measure, monkeypatch)
    agent.see(0.0, ["a.ipynb"])
    await told(client, 3)
    assert (measure.cpu_busy, measure.gpu_busy) == (0.5, 0.25)
    assert client.told[-1]["open_documents"] == ["a.ipynb"]
    agent._timer and agent._timer.cancel()


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("bug")])
async def test_the_agent_goes_on_whatever_happens(
    measure: Measure, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    client = FakeClient(error)
    agent = await agent_of(client, measure, monkeypatch)
    await told(client, 3)
    client.error = None
    await told(client, 5)
    assert measure.cpu_busy == 0.5
    agent._timer and agent._timer.cancel()


async def test_who_comes_back_is_told_of_at_once(
    measure: Measure, clock: HandTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = FakeClient(next_seconds=100)
    agent = await agent_of(client, measure, monkeypatch)
    await told(client, 1)
    async with asyncio.timeout(5):
        while agent._timer is None:  # noqa: ASYNC110 - it plans when it is done
            await asyncio.sleep(0.005)
    agent.see(0.0, [])
    clock.now += 50
    agent.see(0.0, [])
    assert len(client.told) == 1
    clock.now += 61
    agent.see(0.0, [])
    await told(client, 2)
    agent._timer and agent._timer.cancel()
