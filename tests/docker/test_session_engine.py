"""The spawner's side of an engine: pulls that many wait for, news of ends."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from nimbus_spawner.engines import SessionEngine, connect

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.engine import Engine
from tests.docker.forwarder import Wire, wire
from tests.docker.registry import PASSWORD, USER
from tests.docker.test_images import NAME, private, slow
from tests.frameworks.engine import Engine as RunningEngine

__all__ = ["private", "slow"]

# The SDK leaves sockets to themselves that could not be connected.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*unclosed <socket:ResourceWarning",
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning",
)

LABEL = ("--label", "nimbus.lease=test-session-engine")


@pytest_asyncio.fixture
async def line(engine: Engine, tmp_path: Path) -> AsyncIterator[Wire]:
    """Give a wire to the engine."""
    async with wire(engine.endpoint.removeprefix("unix://"), str(tmp_path / "s")) as made:
        yield made


@pytest_asyncio.fixture
async def session_engine(line: Wire) -> AsyncIterator[SessionEngine]:
    """Give the engine as the spawner has it, at the other end of the wire."""
    engine = Engine("gpu-1", f"unix://{line.path}")
    made = SessionEngine("gpu-1", lambda: connect(engine, {}))
    yield made
    made.executor.shutdown()
    gc.collect()


@pytest.fixture
def sleeper(running: RunningEngine, python_image: str) -> Iterator[str]:
    """Give a container that runs."""
    made = running.docker("run", "-d", *LABEL, python_image, "sleep", "600")
    yield made
    running.docker("rm", "-f", made)


async def test_an_end_is_heard_of_at_once(
    session_engine: SessionEngine, running: RunningEngine, sleeper: str
) -> None:
    with session_engine.news(sleeper) as news:
        # When it is listened for, for what may have been missed.
        await asyncio.wait_for(news.wait(), 10)
        news.clear()
        await asyncio.to_thread(running.docker, "kill", sleeper)
        await asyncio.wait_for(news.wait(), 1)


async def test_after_an_outage_everybody_is_told_to_look(
    session_engine: SessionEngine, running: RunningEngine, sleeper: str, line: Wire
) -> None:
    with session_engine.news(sleeper) as news:
        await asyncio.wait_for(news.wait(), 10)
        news.clear()
        await line.cut()
        await asyncio.to_thread(running.docker, "kill", sleeper)
        assert not news.is_set()
        await line.join()
        await asyncio.wait_for(news.wait(), 10)


async def test_a_container_is_removed_once_the_engine_is_back(
    session_engine: SessionEngine, running: RunningEngine, sleeper: str, line: Wire
) -> None:
    await session_engine.do("ping")
    await line.cut()
    removal = asyncio.create_task(session_engine.remove_at_last(sleeper))
    done, _ = await asyncio.wait({removal}, timeout=0.5)
    assert not done
    await line.join()
    await asyncio.wait_for(removal, 20)
    assert sleeper not in running.docker("ps", "-aq", "--no-trunc")
    # What is gone already is removed.
    await session_engine.remove(sleeper)


async def test_a_pull_that_fails_says_so_to_all_who_wait(session_engine: SessionEngine) -> None:
    image = "127.0.0.1:9/nothing:1"
    pulls = [session_engine.pull(image, lambda text: None) for _ in range(2)]
    found = await asyncio.gather(*pulls, return_exceptions=True)
    assert found[0] is found[1]
    assert isinstance(found[0], InvalidRequest)
    assert found[0].message.startswith(f"the image {image} cannot be pulled: ")


async def test_an_image_is_pulled_once_for_all_with_the_hubs_own_credentials(
    session_engine: SessionEngine,
    slow: Wire,
    running: RunningEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = f"127.0.0.1:{slow.port}"
    secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": secret}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    image = f"{host}/{NAME}:1"
    first: list[str] = []
    second: list[str] = []
    try:
        await asyncio.gather(*(session_engine.pull(image, each.append) for each in (first, second)))
        assert first == second
        assert len(first) > 2
        assert first[-1].startswith("100 % of 19")
    finally:
        running.docker("rmi", "-f", image)
