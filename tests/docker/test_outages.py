"""An engine that is silent says nothing of its replicas; what goes on there goes on."""

from __future__ import annotations

import asyncio
import gc
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from nimbus_hub.errors import Unavailable
from nimbus_hub.executors.docker.containers import container_name
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.replica import ReplicaState, ReplicaStatus
from tests.docker.driver import DockerDriver
from tests.docker.forwarder import Wire, wire

# The SDK leaves sockets to themselves that could not be connected.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*unclosed <socket:ResourceWarning",
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning",
)

Until = Callable[..., Awaitable[ReplicaStatus]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]


@pytest_asyncio.fixture
async def line(docker: DockerDriver, engine: Engine, tmp_path: Path) -> AsyncIterator[Wire]:
    """Put a wire between the executor and its engine; the driver's hand does not need it."""
    path = str(tmp_path / "wire")
    async with wire(engine.endpoint.removeprefix("unix://"), path) as made:
        docker.engine = replace(engine, endpoint=f"unix://{path}")
        await docker.restarted()
        yield made
        await docker.executor.close()
        docker.engine = engine
    # Here, where the warnings are expected.
    gc.collect()


async def answered(docker: DockerDriver, until: Until, *states: ReplicaState) -> ReplicaStatus:
    """Poll until the engine answers again, and a replica is in a state."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await until(docker.executor, "r1", *states)
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_a_replica_on_a_silent_engine_is_not_lost_and_goes_on(
    docker: DockerDriver, line: Wire, until: Until
) -> None:
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    await docker.write("r1", b"before\n")
    await line.cut()
    with pytest.raises(Unavailable, match="the Docker engine of host local at unix"):
        await docker.executor.poll("r1")
    await docker.do("r1", "os.write(1, b'meanwhile\\n')")
    await line.join()
    await answered(docker, until, ReplicaState.RUNNING)
    await docker.written_to("r1", len(b"before\nmeanwhile\n"))
    await docker.exit("r1", 5)
    assert (await answered(docker, until, ReplicaState.EXITED)).exit_code == 5
    assert docker.output("r1") == b"before\nmeanwhile\n"


async def test_an_end_on_a_silent_engine_is_told_when_it_is_back(
    docker: DockerDriver, line: Wire, until: Until, eventually: Eventually
) -> None:
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    docker.put("r1", "output/model", b"model")
    await line.cut()
    await docker.do("r1", "os.write(1, b'last words')")
    await docker.exit("r1", 6)
    await eventually(lambda: docker.inspect("r1")["State"]["Status"] == "exited")
    await line.join()
    assert (await answered(docker, until, ReplicaState.EXITED)).exit_code == 6
    assert docker.output("r1") == b"last words"
    assert (await docker.executor.read_file("r1", "output/model", 0, 9)).data == b"model"


async def test_a_start_on_a_silent_engine_is_unavailable_and_can_be_asked_for_again(
    docker: DockerDriver, line: Wire, until: Until
) -> None:
    await line.cut()
    await docker.executor.start(docker.spec("r1"))
    with pytest.raises(Unavailable):
        await until(docker.executor, "r1", ReplicaState.RUNNING)
    await line.join()
    await answered(docker, until, ReplicaState.CREATED)
    state = ReplicaState.CREATED
    async with asyncio.timeout(20):
        while state is not ReplicaState.RUNNING:
            with suppress(Unavailable):
                await docker.executor.start(docker.spec("r1"))
                state = (await docker.executor.poll("r1")).state
            await asyncio.sleep(0.05)


async def test_a_stop_on_a_silent_engine_happens_when_it_is_back(
    docker: DockerDriver, line: Wire, until: Until
) -> None:
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    await line.cut()
    await docker.executor.stop("r1", 5)
    await line.join()
    status = await answered(docker, until, ReplicaState.EXITED)
    assert (status.exit_code, status.reason) == (-15, "stopped")


async def test_a_start_that_was_cut_off_at_the_last_moment_is_made_once(
    docker: DockerDriver, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is made and recorded, and nothing runs yet."""

    def cut(self: EngineClient, name: str) -> None:
        raise Unavailable("cut")

    with monkeypatch.context() as fault:
        fault.setattr(EngineClient, "start", cut)
        await docker.executor.start(docker.spec("r1"))
        with pytest.raises(Unavailable, match="cut"):
            await until(docker.executor, "r1", ReplicaState.RUNNING)
    adopted = await docker.restarted()
    assert (await adopted.poll("r1")).state is ReplicaState.CREATED
    assert docker.inspect("r1")["State"]["Status"] == "created"
    await adopted.start(docker.spec("r1"))
    await until(adopted, "r1", ReplicaState.RUNNING)
    await docker.write("r1", b"once")
    assert docker.starts("r1") == 1


async def test_what_was_cut_off_at_its_start_and_is_stopped_leaves_nothing(
    docker: DockerDriver, until: Until, ended: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: EngineClient, name: str) -> None:
        raise Unavailable("cut")

    with monkeypatch.context() as fault:
        fault.setattr(EngineClient, "start", cut)
        await docker.executor.start(docker.spec("r1"))
        with pytest.raises(Unavailable, match="cut"):
            await until(docker.executor, "r1", ReplicaState.RUNNING)
    adopted = await docker.restarted()
    await adopted.stop("r1", 5)
    status = await ended(adopted, "r1")
    assert (status.exit_code, status.reason) == (None, "stopped before it was started")
    assert docker.client.inspect(container_name("r1")) is None


async def test_what_has_run_is_not_run_again_when_its_record_is_gone(
    docker: DockerDriver, until: Until, ended: Until, eventually: Eventually
) -> None:
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    await docker.executor.close()
    await docker.exit("r1", 7)
    await eventually(lambda: docker.inspect("r1")["State"]["Status"] == "exited")
    shutil.rmtree(docker.record("r1"))
    next_one = await docker.restarted()
    await next_one.start(docker.spec("r1"))
    assert (await ended(next_one, "r1")).exit_code == 7
    assert docker.starts("r1") == 1


async def test_what_a_killed_service_has_left_of_an_end_is_swept(
    docker: DockerDriver, ended: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: EngineClient, name: str) -> None:
        raise Unavailable("cut")

    with monkeypatch.context() as fault:
        fault.setattr(EngineClient, "remove", cut)
        await docker.executor.start(docker.command("r1", "true"))
        assert (await ended(docker.executor, "r1")).exit_code == 0
        adopted = await docker.restarted()
    assert docker.inspect("r1")["State"]["Status"] == "exited"
    await adopted.hosts()
    await docker.gone("r1")


async def test_what_is_kept_can_be_read_while_the_engine_is_silent(
    docker: DockerDriver, line: Wire, ended: Until
) -> None:
    await docker.executor.start(docker.command("r1", "sh", "-c", "echo model > ../output/model"))
    await ended(docker.executor, "r1")
    await docker.gone("r1")
    await line.cut()
    assert (await docker.executor.read_file("r1", "output/model", 0, 9)).data == b"model\n"
    found = await docker.executor.find_files("r1", "", 9)
    assert [file.path for file in found.files] == ["output/model"]
    await line.join()


async def test_a_volume_whose_container_was_removed_while_nobody_looked_is_kept_and_removed(
    docker: DockerDriver, until: Until, eventually: Eventually
) -> None:
    await docker.executor.start(docker.spec("r1"))
    await until(docker.executor, "r1", ReplicaState.RUNNING)
    docker.put("r1", "checkpoints/1", b"weights")
    await docker.executor.close()
    await docker.lose("r1")
    adopted = await docker.restarted()
    await adopted.hosts()
    await eventually(lambda: not docker.client.has_volume("nimbus-job-1"))
    assert (await adopted.poll("r1")).state is not ReplicaState.EXITED
    assert (await adopted.read_file("r1", "checkpoints/1", 0, 9)).data == b"weights"
