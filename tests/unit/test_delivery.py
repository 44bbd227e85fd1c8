"""Delivery: a notifier that fails or hangs costs nobody but itself, and nothing is sent twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from nimbus_hub.control.delivery import Delivery
from nimbus_hub.control.metrics import Metrics
from nimbus_hub.model.notice import Notice, NoticeKind
from nimbus_hub.notifiers.base import NotifierError, Undeliverable
from nimbus_hub.notifiers.registry import Route
from nimbus_hub.store.sent import Sent
from tests.unit.control_harness import until

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NOTICE = Notice("l-1.lease-ended", NoticeKind.LEASE_ENDED, "ada", "Ended", "It ended.", "", NOON)


@dataclass
class Pigeon:
    """A notifier that fails as told, then delivers."""

    errors: list[Exception] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)
    asked: int = 0
    gate: threading.Event | None = None

    def notify(self, notice: Notice) -> None:
        self.asked += 1
        if self.gate is not None:
            self.gate.wait(10)
        if self.errors:
            raise self.errors.pop(0)
        self.delivered.append(notice.id)


class Loft:
    """A delivery to a pigeon, and what became of its notices."""

    def __init__(self, pigeon: Pigeon, *kinds: NoticeKind) -> None:
        self.pigeon = pigeon
        self.metrics = Metrics()
        route = Route("pigeon", pigeon, frozenset(kinds or NoticeKind))
        self.delivery = Delivery(route, self.metrics, pauses_seconds=(0.01, 0.01))

    def count(self, outcome: str) -> float:
        value: float = self.metrics.notices.labels("pigeon", outcome)._value.get()
        return value

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Callable[[Notice], None]]:
        task = asyncio.create_task(self.delivery.run())
        yield self.delivery.put
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def numbered(number: int) -> Notice:
    return replace(NOTICE, id=f"n-{number}")


async def test_notices_are_delivered_in_their_order() -> None:
    loft = Loft(Pigeon())
    async with loft.open() as put:
        for number in range(5):
            put(numbered(number))
        await until(lambda: loft.count("sent") == 5)
    assert loft.pigeon.delivered == [f"n-{number}" for number in range(5)]


async def test_a_kind_that_is_not_wanted_is_not_sent() -> None:
    loft = Loft(Pigeon(), NoticeKind.JOB_ENDED)
    async with loft.open() as put:
        put(NOTICE)
        put(replace(NOTICE, id="j-1.job-ended", kind=NoticeKind.JOB_ENDED))
        await until(lambda: loft.count("sent") == 1)
    assert loft.pigeon.delivered == ["j-1.job-ended"]


async def test_what_failed_is_tried_again_whatever_was_raised() -> None:
    loft = Loft(Pigeon([NotifierError("it is busy"), ValueError("a mistake of a plug-in")]))
    async with loft.open() as put:
        put(NOTICE)
        await until(lambda: loft.count("sent") == 1)
    assert loft.pigeon.asked == 3


async def test_after_the_last_attempt_it_is_given_up_and_the_next_has_its_turn() -> None:
    loft = Loft(Pigeon([NotifierError("it is busy")] * 3))
    async with loft.open() as put:
        put(numbered(1))
        put(numbered(2))
        await until(lambda: loft.count("sent") == 1)
    assert (loft.pigeon.delivered, loft.count("failed")) == (["n-2"], 1)


async def test_what_is_refused_for_good_is_not_tried_again() -> None:
    loft = Loft(Pigeon([Undeliverable("no such mailbox")]))
    async with loft.open() as put:
        put(numbered(1))
        put(numbered(2))
        await until(lambda: loft.count("sent") == 1)
    assert (loft.pigeon.asked, loft.count("failed")) == (2, 1)


async def test_a_notifier_that_hangs_holds_up_nobody_and_the_oldest_are_dropped() -> None:
    loft = Loft(Pigeon(gate=threading.Event()))
    async with loft.open() as put:
        put(numbered(0))
        await until(lambda: loft.pigeon.asked == 1)
        for number in range(1, 1004):
            put(numbered(number))
        assert loft.count("dropped") == 3
        assert loft.pigeon.gate is not None
        loft.pigeon.gate.set()
        await until(lambda: loft.count("sent") == 1001)
    assert loft.pigeon.delivered[:2] == ["n-0", "n-4"]


def test_what_was_sent_is_known_after_a_restart(tmp_path: Path) -> None:
    sent = Sent(tmp_path / "notices")
    assert sent.add("a")
    assert not sent.add("a")
    again = Sent(tmp_path / "notices")
    assert not again.add("a")
    assert again.add("b")


def test_what_was_sent_long_ago_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "notices"
    path.write_text("".join(f"{number}\n" for number in range(20_001)))
    sent = Sent(path)
    assert not sent.add("1")
    assert sent.add("0")
    assert len(path.read_text().splitlines()) == 20_001
