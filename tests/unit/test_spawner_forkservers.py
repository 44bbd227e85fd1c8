"""Fork servers are there when they are of use, and let go when they are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
from nimbus_spawner.forked import Forked, NoAnswer, NotForked
from nimbus_spawner.forkservers import ForkServer, ForkServers

_KEEP, _MEMORY = 3600.0, 300


class Server:
    """A fork server as far as those who keep it see it."""

    def __init__(self) -> None:
        self.is_ready = self.is_alive = True
        self.is_stale = self.is_retired = False
        self.memory_bytes = 100
        self.error: NotForked | None = None

    async def fork(self, claim: Mapping[str, Any], log_file: int) -> tuple[Forked, bool]:
        if self.error:
            raise self.error
        return cast("Forked", (claim, log_file)), self.is_stale

    def retire(self) -> None:
        self.is_retired = True

    def kill(self) -> None:
        self.is_alive = False


class Keeper:
    """Keeps servers for the pythons a, b, c ... at a time that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.started: list[tuple[str, Server]] = []
        self.missing: set[str] = set()
        self.servers = ForkServers(lambda: self.now, self.start)

    def start(self, python: str, env: Mapping[str, str]) -> ForkServer:
        if python in self.missing:
            raise FileNotFoundError(python)
        self.started.append((python, Server()))
        return cast("ForkServer", self.started[-1][1])

    def prepare(self, *pythons: str) -> list[Server]:
        for python in pythons:
            self.now += 1
            self.servers.prepare(python, {})
        return [server for _, server in self.started]

    async def fork(self, python: str = "a") -> object:
        return await self.servers.fork(python, {"args": []}, 7)


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


async def test_a_session_is_forked_once_a_server_is_ready(keeper: Keeper) -> None:
    assert await keeper.fork() is None
    (server,) = keeper.prepare("a", "a")
    server.is_ready = False
    assert await keeper.fork() is None
    server.is_ready = True
    assert await keeper.fork() == ({"args": []}, 7)
    assert await keeper.fork("b") is None


async def test_one_whose_packages_have_changed_is_replaced(keeper: Keeper) -> None:
    (server,) = keeper.prepare("a")
    server.is_stale = True
    assert await keeper.fork() is not None
    assert server.is_retired
    assert len(keeper.prepare("a")) == 2


async def test_one_that_has_ended_is_replaced(keeper: Keeper) -> None:
    (server,) = keeper.prepare("a")
    server.is_alive = False
    assert await keeper.fork() is None
    assert len(keeper.prepare("a")) == 2


async def test_a_claim_that_cannot_be_met_is_nothing_against_the_server(keeper: Keeper) -> None:
    (server,) = keeper.prepare("a")
    server.error = NotForked("there is no such directory")
    with pytest.raises(NotForked):
        await keeper.fork()
    assert server.is_alive
    assert len(keeper.prepare("a")) == 1


async def test_one_that_does_not_answer_is_killed(keeper: Keeper) -> None:
    (server,) = keeper.prepare("a")
    server.error = NoAnswer("no answer within 5 s")
    with pytest.raises(NoAnswer):
        await keeper.fork()
    assert not server.is_alive
    assert len(keeper.prepare("a")) == 2


async def test_one_that_cannot_import_is_tried_again_after_a_while(
    keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    (server,) = keeper.prepare("a")
    server.is_ready = server.is_alive = False
    assert len(keeper.prepare("a")) == 1
    assert "No warm sessions of a for a while: it ended while it imported" in caplog.text
    keeper.now += 601
    assert len(keeper.prepare("a")) == 2


def test_a_python_that_is_not_there_is_no_error(
    keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    keeper.missing.add("a")
    assert keeper.prepare("a") == []
    assert "No warm sessions of a for a while: a" in caplog.text


async def test_one_that_nobody_used_for_long_is_let_go(keeper: Keeper) -> None:
    first, second = keeper.prepare("a", "b")
    keeper.now += _KEEP - 1
    await keeper.fork("b")
    keeper.now += 10
    keeper.servers.spare(_KEEP, _MEMORY)
    assert (first.is_retired, second.is_retired) == (True, False)


def test_those_used_last_are_kept_where_memory_is_short(keeper: Keeper) -> None:
    servers = keeper.prepare("a", "b", "c", "d", "a")
    keeper.servers.spare(_KEEP, _MEMORY)
    assert [server.is_retired for server in servers] == [False, True, False, False]


def test_one_that_takes_too_much_by_itself_is_not_started_again_and_again(
    keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    (server,) = keeper.prepare("a")
    server.memory_bytes = 400 << 20
    keeper.servers.spare(_KEEP, 300 << 20)
    assert server.is_retired
    assert "it takes 400 MiB of memory, and may take 300 MiB" in caplog.text
    assert len(keeper.prepare("a")) == 1
