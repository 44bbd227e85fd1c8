"""Figures: series of seconds, two of them side by side, and the goal for their ratio."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Comparison", "Limit", "Series", "as_json", "as_table"]


@dataclass(frozen=True, slots=True)
class Series:
    """What was measured of one way, in seconds."""

    name: str
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.seconds:
            raise ValueError(f"{self.name}: nothing was measured")

    @property
    def median(self) -> float:
        """Return the median."""
        return statistics.median(self.seconds)

    def row(self) -> str:
        """Return name, median, least and most as a line of the table."""
        least, most = min(self.seconds), max(self.seconds)
        return f"  {self.name:<34}{self.median:>8.2f}{least:>8.2f}{most:>8.2f}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Nimbus beside the stock way. Without a goal it is only told."""

    measure: str
    nimbus: Series
    stock: Series
    goal: float | None = None

    @property
    def ratio(self) -> float:
        """Return the ratio of the medians."""
        return self.nimbus.median / self.stock.median

    @property
    def is_met(self) -> bool:
        """Tell whether the goal is kept."""
        return self.goal is None or self.ratio <= self.goal

    def verdict(self) -> str:
        """Return the ratio and what is thought of it."""
        if self.goal is None:
            return f"ratio {self.ratio:.2f}"
        word = "met" if self.is_met else "MISSED"
        return f"ratio {self.ratio:.2f}, goal at most {self.goal:.2f}: {word}"


@dataclass(frozen=True, slots=True)
class Limit:
    """What has to take ``seconds`` at most, beside nothing else."""

    measure: str
    series: Series
    seconds: float

    @property
    def is_met(self) -> bool:
        """Tell whether the goal is kept."""
        return self.series.median <= self.seconds

    def verdict(self) -> str:
        """Return what is thought of it."""
        word = "met" if self.is_met else "MISSED"
        return f"goal at most {self.seconds:.2f} s: {word}"


def as_table(
    comparisons: Sequence[Comparison], notes: Sequence[Series], limits: Sequence[Limit] = ()
) -> str:
    """Return everything as text for people."""
    lines = [f"{'seconds':<36}{'median':>8}{'min':>8}{'max':>8}"]
    for comparison in comparisons:
        lines += ["", comparison.measure, comparison.nimbus.row(), comparison.stock.row()]
        lines.append(f"  {comparison.verdict()}")
    for limit in limits:
        lines += ["", limit.measure, limit.series.row(), f"  {limit.verdict()}"]
    if notes:
        lines += ["", "Where a Nimbus session's time goes", *(note.row() for note in notes)]
    return "\n".join(lines)


def as_json(
    comparisons: Sequence[Comparison], notes: Sequence[Series], limits: Sequence[Limit] = ()
) -> dict[str, Any]:
    """Return everything for programs."""
    return {
        "comparisons": [
            {
                "measure": one.measure,
                "nimbus": _series(one.nimbus),
                "stock": _series(one.stock),
                "ratio": round(one.ratio, 3),
                "goal": one.goal,
                "is_met": one.is_met,
            }
            for one in comparisons
        ],
        "limits": [
            {
                "measure": one.measure,
                **_series(one.series),
                "goal_seconds": one.seconds,
                "is_met": one.is_met,
            }
            for one in limits
        ],
        "notes": [_series(note) for note in notes],
    }


def _series(series: Series) -> dict[str, Any]:
    return {
        "name": series.name,
        "median": round(series.median, 4),
        "seconds": [round(value, 4) for value in series.seconds],
    }
