"""Joined calls: what many ask for in the same moment is done in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Joined"]

A = TypeVar("A")
B = TypeVar("B")


class Joined(Generic[A, B]):
    """One call for one, made together with those that others make in the same moment.

    Who comes while a call is under way waits for its end and is in the next: the more come
    at once, the more share the cost of a call. Everyone gets his own answer or error.
    """

    def __init__(self, call: Callable[[Sequence[A]], Awaitable[Sequence[B | Exception]]]) -> None:
        """Join calls into ``call``, which returns an answer or an error for each, in order."""
        self._call = call
        self._waiting: list[tuple[A, asyncio.Future[B]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, asked: A) -> B:
        """Return the answer, or raise the error, to what is asked."""
        answer: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._task is None:
            # A task of its own starts after all who are about to ask, and ends with none of them.
            self._task = asyncio.create_task(self._serve())
        return await answer

    async def _serve(self) -> None:
        try:
            while self._waiting:
                some, self._waiting = self._waiting, []
                answers = await self._answers([asked for asked, _ in some])
                for (_, future), answer in zip(some, answers, strict=True):
                    if future.done():
                        continue  # Who asked was cancelled.
                    if isinstance(answer, Exception):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        finally:
            self._task = None

    async def _answers(self, asked: Sequence[A]) -> Sequence[B | Exception]:
        try:
            return await self._call(asked)
        except Exception as error:  # noqa: BLE001 - whatever it is, each who waits must hear it
            return [error] * len(asked)
