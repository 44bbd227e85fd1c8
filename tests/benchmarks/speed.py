"""`python -m tests.benchmarks.speed`: how many placements the scheduler decides in a second.

Decisions only, on one core, median of five: release one and place one on hosts of 8 GPUs that
are 80 % full, single slots and gangs of 64 workers, on 1,000 to 100,000 hosts. The speed of
the whole policy on a trace is measured by `tests.benchmarks.openb`.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import click

from nimbus_hub.model.host import Gpu, Host
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.scheduler.fit import Fitter
from nimbus_hub.scheduler.fragmentation import Fragmentation
from nimbus_hub.scheduler.free import Free, Seat
from nimbus_hub.scheduler.shape import Shape

__all__ = ["Speed", "main", "run"]

_SHAPE = Shape(8000, 32 * 2**30, 1)
_WORKERS = 64
_FULL = 0.8
_ROUNDS = 5
_RACK = 32

SINGLE_GOAL = 100_000
GANG_GOAL = 10_000
GROWTH_GOAL = 3.0

Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Speed:
    """Decisions per second: the median, and the rounds it is of."""

    what: str
    hosts: int
    per_second: float
    rounds: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.what:20} {self.hosts:>8,} hosts {self.per_second:>10,.0f}/s"


def hosts(number: int) -> list[Host]:
    """Return hosts of 8 GPUs, 32 in a rack."""
    return [
        Host(
            f"h{at:06}",
            96_000,
            768 * 2**30,
            tuple(Gpu(index, "A100") for index in range(8)),
            f"10.{at >> 16}.{(at >> 8) & 255}.{at & 255}",
            rack=f"r{at // _RACK:05}",
        )
        for at in range(number)
    ]


def singles(number: int, seed: int) -> Step:
    """Return a step that releases one slot of one GPU and places another."""
    free = Free(hosts(number))
    fitter = Fitter(free, Fragmentation(free, {_SHAPE: 1.0}))
    rng = Random(seed)
    held = [
        Seat(host, (device,), _SHAPE)
        for host in range(number)
        for device in range(8)
        if rng.random() < _FULL
    ]
    for seat in held:
        free.hold(seat)
    picks = _picks(rng, len(held))

    def step() -> None:
        at = next(picks)
        free.hold(held[at], -1)
        seat = fitter.one(_SHAPE)
        assert seat is not None
        free.hold(seat)
        held[at] = seat

    return step


def gangs(number: int, seed: int) -> Step:
    """Return a step that releases one gang of 64 workers and places another."""
    free = Free(hosts(number))
    fitter = Fitter(free, Fragmentation(free, {_SHAPE: 1.0}))
    group = (SlotGroup("worker", _WORKERS, _SHAPE.cpus_milli, _SHAPE.memory_bytes, 1),)
    held: list[tuple[Seat, ...]] = []

    def place() -> tuple[Seat, ...]:
        seats = fitter.gang(group)
        assert seats is not None
        for seat in seats[0]:
            free.hold(seat)
        return seats[0]

    while len(held) * _WORKERS < _FULL * 8 * number:
        held.append(place())
    picks = _picks(Random(seed), len(held))

    def step() -> None:
        at = next(picks)
        for seat in held[at]:
            free.hold(seat, -1)
        held[at] = place()

    return step


def _picks(rng: Random, length: int) -> Iterator[int]:
    while True:
        yield rng.randrange(length)


def measure(what: str, number: int, make: Callable[[int, int], Step], steps: int) -> Speed:
    """Return the median speed of rounds of so many steps."""
    step = make(number, 1)
    for _ in range(steps // 10):
        step()
    rounds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        for _ in range(steps):
            step()
        rounds.append(steps / (time.perf_counter() - start))
    return Speed(what, number, statistics.median(rounds), tuple(rounds))


def run(sizes: Sequence[int], say: Callable[[str], None]) -> list[Speed]:
    """Measure single slots and gangs on clusters of these sizes."""
    found = []
    for number in sizes:
        found.append(measure("single slots", number, singles, 20_000))
        say(str(found[-1]))
        found.append(measure("gangs of 64 workers", number, gangs, 2_000))
        say(str(found[-1]))
    return found


def goals(found: Sequence[Speed]) -> list[tuple[str, bool]]:
    """Return each goal in words, and whether it is met."""
    speed = {(each.what, each.hosts): each.per_second for each in found}
    answers = []
    for what, goal in (("single slots", SINGLE_GOAL), ("gangs of 64 workers", GANG_GOAL)):
        if (what, 10_000) in speed:
            reached = speed[what, 10_000]
            text = f"{what} at 10,000 hosts: {reached:,.0f}/s, goal at least {goal:,}/s"
            answers.append((text, reached >= goal))
        if {(what, 1_000), (what, 100_000)} <= set(speed):
            growth = speed[what, 1_000] / speed[what, 100_000]
            text = f"{what}, cost at 100,000 hosts over 1,000: {growth:.2f}, goal at most 3"
            answers.append((text, growth <= GROWTH_GOAL))
    return answers


@click.command()
@click.option("--hosts", "sizes", default="1000,10000,100000", show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False))
def main(sizes: str, file: Path | None) -> None:
    """Measure how fast the scheduler decides."""
    found = run([int(size) for size in sizes.split(",")], click.echo)
    if file:
        file.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    answers = goals(found)
    for text, is_met in answers:
        click.echo(f"{text}: {'met' if is_met else 'MISSED'}")
    if not all(is_met for _, is_met in answers):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
