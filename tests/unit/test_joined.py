"""Joined calls: who asks in the same moment shares one call, and hears his own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from nimbus_hub.control.joined import Joined
from nimbus_hub.errors import Conflict, Unavailable
from tests.unit.control_harness import until


class Halves:
    """Halves even numbers and refuses odd ones; keeps what was asked for together."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None

    async def __call__(self, asked: Sequence[int]) -> Sequence[int | Exception]:
        self.calls.append(list(asked))
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return [Conflict(f"{each} is odd") if each % 2 else each // 2 for each in asked]


async def test_calls_of_one_moment_are_made_together() -> None:
    halves = Halves()
    joined = Joined[int, int](halves)
    assert [*await asyncio.gather(joined(2), joined(4), joined(6))] == [1, 2, 3]
    assert await joined(8) == 4
    assert halves.calls == [[2, 4, 6], [8]]


async def test_who_comes_while_a_call_is_under_way_is_in_the_next() -> None:
    halves = Halves()
    joined = Joined[int, int](halves)
    halves.gate.clear()
    first = asyncio.create_task(joined(2))
    await until(lambda: halves.calls)
    others = [asyncio.create_task(joined(number)) for number in (4, 6)]
    await asyncio.sleep(0)
    assert halves.calls == [[2]]
    halves.gate.set()
    assert await asyncio.gather(first, *others) == [1, 2, 3]
    assert halves.calls == [[2], [4, 6]]


async def test_an_error_is_heard_only_by_who_caused_it() -> None:
    joined = Joined[int, int](Halves())
    answers = await asyncio.gather(joined(2), joined(3), joined(4), return_exceptions=True)
    assert (answers[0], answers[2]) == (1, 2)
    assert isinstance(answers[1], Conflict)


async def test_a_call_that_fails_is_heard_by_all_and_the_next_is_made() -> None:
    halves = Halves()
    joined = Joined[int, int](halves)
    halves.fault = Unavailable("gone")
    answers = await asyncio.gather(joined(2), joined(4), return_exceptions=True)
    assert [type(each) for each in answers] == [Unavailable, Unavailable]
    halves.fault = None
    assert await joined(2) == 1


async def test_who_stops_waiting_holds_up_nobody() -> None:
    halves = Halves()
    joined = Joined[int, int](halves)
    halves.gate.clear()
    tasks = [asyncio.create_task(joined(number)) for number in (2, 4)]
    await until(lambda: halves.calls)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    halves.gate.set()
    assert await tasks[1] == 2
    assert await joined(6) == 3
