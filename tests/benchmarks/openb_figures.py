"""Figures of the openb replays: means, goals, and a table for people."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.benchmarks.openb_replay import MARKS, WORKLOADS, Run

__all__ = ["Figures", "Goal", "as_table", "goals"]

FULL, LAST = MARKS

_NO_FIGURE = "-"


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure and the least or, if `is_most`, the most it may be."""

    text: str
    value: float
    bound: float
    is_most: bool = False

    @property
    def is_met(self) -> bool:
        """Tell whether the goal is kept."""
        return self.value <= self.bound if self.is_most else self.value >= self.bound

    def __str__(self) -> str:
        word = "met" if self.is_met else "MISSED"
        if self.is_most:
            return f"{self.text}: {self.value:.0f}, goal at most {self.bound:.0f}: {word}"
        return f"{self.text}: {self.value:.2f}, goal at least {self.bound:.2f}: {word}"


class Figures:
    """What was measured, by workload and policy."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)

    @cached_property
    def workloads(self) -> tuple[str, ...]:
        """Return the workloads in the order they were run."""
        return tuple(dict.fromkeys(run.workload for run in self.runs))

    @cached_property
    def policies(self) -> tuple[str, ...]:
        """Return the policies in the order they were run."""
        return tuple(dict.fromkeys(run.policy for run in self.runs))

    def of(self, workload: str, policy: str) -> list[Run]:
        """Return the runs of both."""
        return [run for run in self.runs if (run.workload, run.policy) == (workload, policy)]

    def mean(self, workload: str, policy: str, mark: int = LAST) -> float | None:
        """Return the mean allocation over the seeds, None if there is none."""
        values = [run.allocated[mark] for run in self.of(workload, policy)]
        return statistics.fmean(values) if values else None

    def gain(self, workload: str, mark: int) -> float | None:
        """Return what the policy allocates more than FGD."""
        ours, fgd = (self.mean(workload, name, mark) for name in ("policy", "fgd"))
        return None if ours is None or fgd is None else ours - fgd

    def seeds_under(self, workload: str, mark: int) -> int:
        """Count the seeds whose stream FGD allocated more of than the policy."""
        fgd = {run.seed: run.allocated[mark] for run in self.of(workload, "fgd")}
        ours = self.of(workload, "policy")
        return sum(run.allocated[mark] < fgd[run.seed] for run in ours if run.seed in fgd)

    def rate(self, policy: str) -> float:
        """Return the median of the runs' decisions per second."""
        return statistics.median(run.rate for run in self.runs if run.policy == policy)

    def total(self, policy: str, field: str) -> int:
        """Add up a count over the policy's runs."""
        return sum(int(getattr(run, field)) for run in self.runs if run.policy == policy)

    def as_json(self) -> dict[str, Any]:
        """Return the means for programs: by workload, policy and mark."""
        return {
            workload: {
                policy: {str(mark): self.mean(workload, policy, mark) for mark in MARKS}
                for policy in self.policies
            }
            for workload in self.workloads
        }


def goals(figures: Figures) -> list[Goal]:
    """Return the goals that what was run can be held to."""
    found: list[Goal] = []

    def hold(text: str, value: float | None, bound: float) -> None:
        if value is not None:
            # Differences of equal figures are not exactly equal.
            found.append(Goal(text, round(value, 6), bound))

    hold("allocated, default", figures.mean("default", "policy"), 96.3)
    for workload in figures.workloads:
        hold(f"over FGD, {workload}", figures.gain(workload, LAST), 0.4)
        hold(f"over FGD at {FULL} %, {workload}", figures.gain(workload, FULL), 0.0)
    gains = [gain for one in figures.workloads if (gain := figures.gain(one, LAST)) is not None]
    if len(gains) == len(WORKLOADS):
        hold(f"over FGD, mean of the {len(gains)} workloads", statistics.fmean(gains), 1.0)
    hold("allocated with the mix estimated, default", figures.mean("default", "estimated"), 96.0)
    for text, name in (
        ("impossible placements", "impossible"),
        ("refusals of what fits", "refused"),
        ("of these, of 8 GPUs", "eights_refused"),
    ):
        count = sum(figures.total(policy, name) for policy in figures.policies)
        found.append(Goal(f"{text}, all policies", count, 0, is_most=True))
    return found


def as_table(figures: Figures) -> str:
    """Return everything as text for people."""
    lines: list[str] = []
    for mark in reversed(MARKS):
        lines += [f"% of the GPUs allocated when {mark} % have been asked for, mean", ""]
        lines += _by_workload(figures, mark)
        lines.append("")
    lines += _by_policy(figures)
    return "\n".join([*lines, "", *map(str, goals(figures))])


def _by_workload(figures: Figures, mark: int) -> list[str]:
    columns = [*figures.policies, "over FGD", "seeds under"]
    lines = [f"{'':<12}" + "".join(f"{name:>12}" for name in columns)]
    for workload in figures.workloads:
        values = [figures.mean(workload, policy, mark) for policy in figures.policies]
        gain = figures.gain(workload, mark)
        under = _NO_FIGURE if gain is None else str(figures.seeds_under(workload, mark))
        cells = [*map(_cell, values), _cell(gain), under]
        lines.append(f"{workload:<12}" + "".join(f"{cell:>12}" for cell in cells))
    return lines


def _by_policy(figures: Figures) -> list[str]:
    rows: dict[str, Callable[[str], str]] = {
        "decisions/s (median)": lambda policy: f"{figures.rate(policy):,.0f}",
        "dropped": lambda policy: f"{figures.total(policy, 'dropped'):,}",
        "8 GPUs: asked for": lambda policy: f"{figures.total(policy, 'eights'):,}",
        "8 GPUs: dropped": lambda policy: f"{figures.total(policy, 'eights_dropped'):,}",
        "refused, but fits": lambda policy: f"{figures.total(policy, 'refused'):,}",
        "impossible": lambda policy: f"{figures.total(policy, 'impossible'):,}",
    }
    lines = [f"{'':<24}" + "".join(f"{policy:>12}" for policy in figures.policies)]
    for title, cell in rows.items():
        lines.append(f"{title:<24}" + "".join(f"{cell(one):>12}" for one in figures.policies))
    return lines


def _cell(value: float | None) -> str:
    return _NO_FIGURE if value is None else f"{value:.2f}"
