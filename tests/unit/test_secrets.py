"""Secrets stay where they belong: not in logs, not in texts, on disk for their owner alone."""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from nimbus_hub.client import Client
from nimbus_hub.clock import SystemClock
from nimbus_hub.control.control import Control
from nimbus_hub.control.jobs import JobView
from nimbus_hub.control.settings import Settings
from nimbus_hub.control.tokens import job_token
from nimbus_hub.errors import Unavailable
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.model.host import Host
from nimbus_hub.model.job import Launch
from nimbus_hub.model.replica import ReplicaSpec
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.store.snapshots import SnapshotStore
from nimbus_hub.store.store import Store
from nimbus_hub.up.hub import renew_password
from nimbus_hub.up.login import OwnerAuthenticator
from nimbus_hub.up.secrets import check_password, kept_token
from nimbus_hub.up.state import State
from tests.unit.fake_service import FakeHttp

SECRET = b"the service's own secret"
LAUNCH = Launch(("python", "train.py"), env={"API_KEY": "user-key-4711"}, retries=1)
GANG = (SlotGroup("worker", 2),)


class Broken(FakeExecutor):
    """Fails in a way nobody foresaw, once the replicas of the first attempt were started."""

    async def start(self, spec: ReplicaSpec) -> None:
        if ".2." in spec.id:
            raise RuntimeError("the engine went mad")
        await super().start(spec)


class NoSessions:
    """Stands where the hub would be; there are no servers."""

    async def stop(self, owner: str, name: str) -> bool:
        return True

    async def running(self) -> frozenset[tuple[str, str]]:
        return frozenset()


@pytest.fixture
def executor() -> FakeExecutor:
    return Broken([Host("local", 4000, 2**34)])


@pytest.fixture
def control(tmp_path: Path, executor: FakeExecutor) -> Iterator[Control]:
    made = Control(
        store=Store.open(f"sqlite:///{tmp_path / 'nimbus.sqlite'}"),
        snapshots=SnapshotStore(tmp_path / "snapshots"),
        executors=[executor],
        sessions=NoSessions(),
        settings=Settings("http://hub.test/services/nimbus", SECRET, start=timedelta(seconds=30)),
        clock=SystemClock(),
    )
    yield made
    made.close()


async def passes(control: Control, count: int) -> None:
    for _ in range(count):
        await control.reconciler.make_pass()
        await control.reconciler.settle()


async def a_life(control: Control, executor: FakeExecutor) -> JobView:
    """Run a job through success and failure: two attempts, an engine that fails, a stop."""
    await control.inventory.refresh()
    view = await control.jobs.submit("ada", LAUNCH, GANG)
    await passes(control, 4)
    for spec in tuple(executor.started):
        executor.exit(spec.id, 1)
    await passes(control, 4)
    await control.jobs.stop(view.job.id, "enough")
    await passes(control, 3)
    return await control.jobs.get(view.job.id)


async def test_no_line_of_the_log_has_a_token_or_what_a_user_passes(
    control: Control,
    executor: FakeExecutor,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    view = await a_life(control, executor)
    token = job_token(SECRET, view.job.id)
    assert executor.started[0].env["NIMBUS_TOKEN"] == token
    assert "the engine went mad" in caplog.text
    assert f"job {view.job.id} starting" in caplog.text
    for secret in (token, token.rpartition(".")[2], SECRET.decode(), "user-key-4711"):
        assert secret not in caplog.text


async def test_the_database_has_no_token(
    control: Control, executor: FakeExecutor, tmp_path: Path
) -> None:
    view = await a_life(control, executor)
    token = job_token(SECRET, view.job.id).encode()
    assert await asyncio.to_thread(holders, tmp_path, token) == []


async def test_a_token_is_no_part_of_what_people_are_told(
    control: Control, executor: FakeExecutor
) -> None:
    view = await a_life(control, executor)
    assert job_token(SECRET, view.job.id) not in repr(view)


def holders(directory: Path, secret: bytes) -> list[Path]:
    """Return the files below a directory that have a secret in them."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return [path for path in files if secret in path.read_bytes()]


def test_a_password_is_in_no_file_and_its_hash_is_private(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.create()
    password = renew_password(state)
    assert holders(tmp_path, password.encode()) == []
    assert check_password(password, (state.secrets / "password").read_text())


def test_files_with_secrets_are_their_owners_alone(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.create()
    renew_password(state)
    kept_token(state.secrets, "service_token")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.secrets.iterdir()}
    assert modes == {"password": 0o600, "service_token": 0o600}
    assert stat.S_IMODE(state.secrets.stat().st_mode) == 0o700


async def test_a_wrong_password_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    state = State(tmp_path / "state")
    state.create()
    renew_password(state)
    login = OwnerAuthenticator(password_file=str(state.secrets / "password"), longest_delay=0.0)
    tried = {"username": "ada", "password": "nearly-the-right-one"}
    assert await login.authenticate(None, tried) is None
    assert "nearly-the-right-one" not in caplog.text


def test_a_client_that_fails_does_not_tell_its_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"nobody listens at {request.url}")

    http = FakeHttp(refuse)
    client = Client("http://hub.test/nimbus", "token-of-ada-4711", http, wait=lambda _: True)
    with pytest.raises(Unavailable) as failed:
        client.options()
    client.close()
    texts = (str(failed.value), repr(client), repr(client.transport), caplog.text)
    assert not any("token-of-ada-4711" in text for text in texts)
