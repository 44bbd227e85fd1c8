"""Stops: which signals are sent, and whether they came in time."""

from __future__ import annotations

import asyncio
import signal

import pytest

from nimbus_hub.errors import Unavailable
from nimbus_hub.executors.docker import stops
from nimbus_hub.executors.docker.stops import Stops


class Engine:
    """Takes signals; ``answers`` are what it says, one after the other, then the last for ever."""

    def __init__(self, *answers: bool | Unavailable) -> None:
        self.answers = list(answers)
        self.sent: list[int] = []

    async def send(self, replica_id: str, number: int) -> bool:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Unavailable):
            raise answer
        self.sent.append(number)
        return answer


async def until(engine: Engine, *signals: int) -> None:
    async with asyncio.timeout(5):
        while engine.sent != list(signals):  # noqa: ASYNC110 - it is sent when it is
            await asyncio.sleep(0)


async def test_one_that_does_not_end_is_killed_after_the_grace() -> None:
    engine = Engine(True)
    running = Stops(engine.send)
    running.stop("r1", 0.01)
    await until(engine, signal.SIGTERM, signal.SIGKILL)
    assert await running.was_heard("r1")


async def test_a_shorter_grace_replaces_a_longer_one_and_not_the_other_way() -> None:
    engine = Engine(True)
    running = Stops(engine.send)
    running.stop("r1", 60)
    await until(engine, signal.SIGTERM)
    running.stop("r1", 90)
    running.stop("r1", 0)
    await until(engine, signal.SIGTERM, signal.SIGKILL)
    await running.close()


async def test_a_silent_engine_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops, "RETRY_SECONDS", 0)
    engine = Engine(Unavailable("silent"), Unavailable("silent"), True)
    running = Stops(engine.send)
    running.stop("r1", 60)
    await until(engine, signal.SIGTERM)
    await running.close()


async def test_one_that_had_ended_before_was_not_heard() -> None:
    engine = Engine(False)
    running = Stops(engine.send)
    running.stop("r1", 60)
    await until(engine, signal.SIGTERM)
    assert not await running.was_heard("r1")
    running.forget("r1")
    assert await running.was_heard("r1")
