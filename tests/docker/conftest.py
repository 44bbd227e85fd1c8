"""A Docker engine, and the executor for containers on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from nimbus_hub.executors.docker.engine import Engines
from nimbus_hub.executors.docker.networks import Networks
from nimbus_hub.model.engine import Engine
from tests.contract.conftest import ended, eventually, until
from tests.contract.snapshots import MemorySnapshots
from tests.docker.driver import DockerDriver
from tests.docker.swarm_service import SwarmService, swarm_service
from tests.frameworks.engine import Engine as RunningEngine
from tests.frameworks.engine import engine as running_engine


@pytest.fixture(scope="session")
def running() -> Iterator[RunningEngine]:
    """Give an engine that answers."""
    with running_engine() as found:
        yield found


@pytest.fixture(scope="session")
def engine(running: RunningEngine) -> Iterator[Engine]:
    """Give it as the cluster file would; no network of a gang that is over is left on it."""
    address = running.address or os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    found = Engine("local", address)
    yield found
    # Bridges of services that were killed, and the rules of the firewall, would outlive the engine.
    engines = Engines(lambda: [found])
    asyncio.run(Networks(engines).sweep(engines.of("local")))
    engines.close()


@pytest.fixture(scope="session")
def python_image(running: RunningEngine) -> str:
    """Give an image with Python."""
    return running.image("python")


@pytest.fixture(scope="session")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwarmService]:
    """Give a service on the hosts of a Swarm, which all tests of such a cluster share."""
    with swarm_service(tmp_path_factory.mktemp("swarm")) as made:
        yield made


@pytest_asyncio.fixture
async def docker(tmp_path: Path, engine: Engine, python_image: str) -> AsyncIterator[DockerDriver]:
    """Give the executor with its records in a directory of the test."""
    snapshots = MemorySnapshots(
        {"abc": {"code/train.py": "# train\n", "run": "#!/bin/sh\necho ran"}}
    )
    driver = DockerDriver(tmp_path, engine, {"default": python_image}, snapshots)
    yield driver
    await driver.close()


@pytest.fixture
def driver(docker: DockerDriver) -> DockerDriver:
    """Give what the contract suite drives."""
    return docker


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., object]:
    return eventually


@pytest.fixture(name="until")
def _until() -> Callable[..., object]:
    return until


@pytest.fixture(name="ended")
def _ended() -> Callable[..., object]:
    return ended
