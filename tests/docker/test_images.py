"""Images: pulled once, with progress, from a private registry; failures in its words."""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from random import Random

import pytest
import pytest_asyncio

from nimbus_hub.clock import SystemClock
from nimbus_hub.executors.docker.checks import check_engine
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.executors.docker.images import Credentials
from nimbus_hub.model.check import HostCheck
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.replica import ReplicaState, ReplicaStatus
from tests.docker.driver import DockerDriver
from tests.docker.forwarder import Wire, wire
from tests.docker.registry import PASSWORD, USER, Registry, registry

Until = Callable[..., Awaitable[ReplicaStatus]]

SIZE = 20_000_000
NAME = "private/python"


@pytest.fixture(scope="module")
def private(
    engine: Engine, python_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    """Give a registry that has an image that is large, and that no engine has."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        client = EngineClient(engine)
        client.use(lambda api: _push(api, python_image, f"127.0.0.1:{found.port}/{NAME}"), 120)
        client.close()
        yield found


def _push(api: object, base: str, name: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        member = tarfile.TarInfo("noise")
        member.size = SIZE
        file.addfile(member, io.BytesIO(Random(1).randbytes(SIZE)))
    made = api.create_container(base, ["true"])["Id"]
    api.put_archive(made, "/", archive.getvalue())
    api.commit(made, name, "1")
    api.remove_container(made)
    auth = {"username": USER, "password": PASSWORD}
    for event in api.push(name, "1", stream=True, decode=True, auth_config=auth):
        assert "error" not in event, event
    api.remove_image(f"{name}:1")


@pytest_asyncio.fixture
async def slow(private: Registry) -> AsyncIterator[Wire]:
    """Give a slow wire to the registry."""
    async with wire(private.port, bytes_per_second=2e7) as made:
        yield made


def use(docker: DockerDriver, slow: Wire, password: str, name: str = f"{NAME}:1") -> str:
    """Have the executor run in an image of the registry; return its name."""
    host = f"127.0.0.1:{slow.port}"
    docker.images["default"] = f"{host}/{name}"
    docker.use(credentials={host: Credentials(USER, password)})
    return docker.images["default"]


@pytest.fixture
def pulls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count the pulls that engines are asked for."""
    asked: list[str] = []
    pull = EngineClient.pull

    def counted(self: EngineClient, reference: str, credentials: object) -> object:
        asked.append(reference)
        return pull(self, reference, credentials)

    monkeypatch.setattr(EngineClient, "pull", counted)
    return asked


async def test_an_image_is_pulled_once_for_all_and_tells_how_far_it_is(
    docker: DockerDriver, slow: Wire, pulls: list[str], ended: Until
) -> None:
    image = use(docker, slow, PASSWORD)
    specs = [docker.command(f"r{number}", "ls", "/noise") for number in (1, 2)]
    specs.append(docker.command("r3", "ls", "/noise", job_id="job-1"))
    try:
        for spec in specs:
            await docker.executor.start(spec)
        seen = set()
        while (status := await docker.executor.poll("r1")).state is not ReplicaState.EXITED:
            seen.add((status.state, status.reason))
            await asyncio.sleep(0.01)
        for spec in specs:
            assert (await ended(docker.executor, spec.id)).exit_code == 0
        assert pulls == [image]
        told = [reason for state, reason in seen if state is ReplicaState.PULLING]
        assert "pulling" in told
        parts = [re.fullmatch(r"pulling (\d+\.\d)/(\d+\.\d) MB", each) for each in told]
        figures = {float(each[1]): float(each[2]) for each in parts if each}
        assert len(figures) > 2
        assert max(figures.values()) == pytest.approx(SIZE / 1e6, rel=0.1)
    finally:
        docker.client.use(lambda api: api.remove_image(image, force=True))


async def test_a_pull_is_left_at_once_when_it_is_stopped(
    docker: DockerDriver, slow: Wire, until: Until, ended: Until
) -> None:
    image = use(docker, slow, PASSWORD)
    slow.bytes_per_second = 1e6
    for replica_id in ("r1", "r2"):
        await docker.executor.start(docker.command(replica_id, "true"))
        await until(docker.executor, replica_id, ReplicaState.PULLING)
    await docker.executor.stop("r1", 60)
    status = await ended(docker.executor, "r1")
    assert (status.exit_code, status.reason) == (None, "stopped before it was started")
    assert (await docker.executor.poll("r2")).state is ReplicaState.PULLING
    slow.bytes_per_second = 1e9
    assert (await ended(docker.executor, "r2")).exit_code == 0
    docker.client.use(lambda api: api.remove_image(image, force=True))


@pytest.mark.parametrize(
    ("password", "name", "words"),
    [
        ("wrong", f"{NAME}:1", "no basic auth credentials|unauthorized"),
        (PASSWORD, f"{NAME}:2", "manifest unknown"),
        (PASSWORD, "no/such:1", "repository name not known|manifest unknown|not found"),
    ],
)
async def test_a_failed_pull_says_what_the_registry_said(
    docker: DockerDriver, slow: Wire, ended: Until, password: str, name: str, words: str
) -> None:
    image = use(docker, slow, password, name)
    await docker.executor.start(docker.command("r1", "true"))
    status = await ended(docker.executor, "r1")
    assert (status.state, status.exit_code) == (ReplicaState.EXITED, None)
    assert status.reason.startswith(f"the image {image} cannot be pulled: ")
    assert re.search(words, status.reason)
    assert PASSWORD not in status.reason


def test_whether_an_image_can_be_had_is_told_with_what_its_registry_says(
    engine: Engine, python_image: str, private: Registry
) -> None:
    host = f"127.0.0.1:{private.port}"
    image, gone, own = f"{host}/{NAME}:1", f"{host}/{NAME}:9", "nimbus-test/of-nobody:1"
    client = EngineClient(engine)

    def told(images: Sequence[str], password: str = PASSWORD) -> HostCheck:
        credentials = {host: Credentials(USER, password)}
        found = check_engine(client, images, credentials, SystemClock().now)
        return next(each for each in found if each.name == "registry")

    try:
        client.use(lambda api: api.tag(python_image, "nimbus-test/of-nobody", "1"))
        had = told((own, image))
        assert had.is_ok
        assert had.text.startswith(f"gives {image}; {own}: the Docker engine of host local says: ")
        refused = told((own, image, gone))
        assert (refused.is_ok, "registries of c.NimbusHub.containers" in refused.remedy) == (
            False,
            True,
        )
        assert re.match(f"{gone}: .*manifest unknown", refused.text), refused.text
        assert "unauthorized" in told((own, image), "wrong").text
    finally:
        client.use(lambda api: api.remove_image(own, noprune=True))
        client.close()


async def test_a_registry_that_does_not_answer_is_named(
    docker: DockerDriver, slow: Wire, ended: Until
) -> None:
    image = use(docker, slow, PASSWORD)
    await slow.cut()
    await docker.executor.start(docker.command("r1", "true"))
    status = await ended(docker.executor, "r1")
    assert status.reason.startswith(f"the image {image} cannot be pulled: ")
    assert "connection refused" in status.reason
