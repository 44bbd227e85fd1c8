"""Gangs beside notebooks: how long they wait, under four policies, in virtual time.

The policies see the same requests (:mod:`tests.benchmarks.workload`), know the same bounds
and place by the same rules; they differ in who starts when:

- **FIFO**: strictly in order of arrival; who does not fit holds up all that came later.
- **first-fit**: everybody who fits starts, in order of arrival; nothing is reserved.
- **EASY without end times**: in order of arrival, with a reservation for the first that
  does not fit, but nobody knows when anything comes back: what is held, and what would
  start, counts as lasting the longest its kind may (jobs a week, notebooks 12 hours).
- **ours**: the service's scheduler as it comes.

Everything is measured over the requests that arrive in the counted week. Slowdown is the
completion time over the true length, both at least 10 minutes.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import Slot
from nimbus_hub.scheduler.capacity import Capacity
from nimbus_hub.scheduler.decisions import Grant, Plan
from nimbus_hub.scheduler.order import by_arrival
from nimbus_hub.scheduler.plan import plan
from nimbus_hub.scheduler.policies import placement
from nimbus_hub.scheduler.simulate import Decide, Outcome, simulate
from nimbus_hub.scheduler.snapshot import Snapshot, Waiting
from tests.benchmarks.workload import MOST, NOTEBOOK_RENEWING, Workload, generate, hosts

__all__ = ["BASE", "OURS", "POLICIES", "Figures", "Report", "measure", "run"]

GANG_GPUS = 8
SHORTEST = timedelta(minutes=10)
BASE, OURS, BALANCED = "first-fit", "ours", "ours, balanced"
GANG_WAIT_GOAL, COMPLETION_GOAL = 0.80, 1.05
"""The most that ours may be of first-fit's."""

# Student's t for 95 % of both sides, by degrees of freedom; beyond them the normal's.
_T = (math.inf, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16)


def fifo(snapshot: Snapshot, now: datetime) -> Plan:
    """Start requests in order of arrival, up to the first that does not fit."""
    return Plan(tuple(_starts(snapshot, now, is_strict=True)), ())


def first_fit(snapshot: Snapshot, now: datetime) -> Plan:
    """Start every request that fits, in order of arrival."""
    return Plan(tuple(_starts(snapshot, now, is_strict=False)), ())


def easy(snapshot: Snapshot, now: datetime) -> Plan:
    """Back-fill in order of arrival around a reservation, from what everybody asked for."""
    return plan(snapshot, now, ordering=by_arrival)


def easy_without_ends(snapshot: Snapshot, now: datetime) -> Plan:
    """Back-fill around a reservation that knows only how long anything may last at most."""
    holdings = tuple(
        replace(each, ends_at=each.since + _longest(each.kind) if each.since else None)
        for each in snapshot.holdings
    )
    waiting = tuple(replace(each, length=_longest(each.kind)) for each in snapshot.waiting)
    return easy(replace(snapshot, holdings=holdings, waiting=waiting), now)


def balanced(snapshot: Snapshot, now: datetime) -> Plan:
    """Return ours with ``rules: {ordering: balanced, aging: 3d}``."""
    rules = replace(snapshot.cluster.rules, ordering="balanced", aging=timedelta(days=3))
    return plan(replace(snapshot, cluster=replace(snapshot.cluster, rules=rules)), now)


POLICIES: Mapping[str, Decide] = {
    "FIFO": fifo,
    BASE: first_fit,
    "EASY without end times": easy_without_ends,
    OURS: plan,
    BALANCED: balanced,
}


def _longest(kind: LeaseKind) -> timedelta:
    return NOTEBOOK_RENEWING.latest_end if kind is LeaseKind.SESSION else MOST


def _starts(snapshot: Snapshot, now: datetime, is_strict: bool) -> Iterable[Grant]:
    rules = snapshot.cluster.rules
    capacity = Capacity(snapshot.hosts, rules, snapshot.mix, placement(rules.placement))
    for holding in snapshot.holdings:
        capacity.take(capacity.taken(holding.slots))
        capacity.use_ports(holding.slots)
    unfit = set()
    for waiting in by_arrival(snapshot, now):
        slots = None
        if waiting.groups not in unfit:
            slots = _placed(capacity, waiting)
        if slots is not None:
            yield Grant(waiting.lease_id, slots)
        elif is_strict:
            return
        else:  # what is free only shrinks: what did not fit need not be tried again
            unfit.add(waiting.groups)


def _placed(capacity: Capacity, waiting: Waiting) -> tuple[Slot, ...] | None:
    """Return slots for a request that fits, and hold them."""
    seated = capacity.gang(waiting.groups, capacity.fitters)
    if seated is None:
        return None
    slots = capacity.slots(waiting.groups, seated, waiting.lease_id)
    if slots is not None:
        capacity.take(capacity.seated(seated))
    return slots


@dataclass(frozen=True, slots=True)
class Figures:
    """What a week was like; times in hours, utilisation of all GPUs while the week lasts."""

    gang_wait: float
    other_wait: float
    completion: float
    completion_p99: float
    slowdown: float
    gang_slowdown: float
    utilisation: float
    unfinished: int


def measure(workload: Workload, outcomes: Sequence[Outcome], gpus: int) -> Figures:
    """Return the figures of the counted week."""
    counted = [each for each in outcomes if each.job.id in workload.counted]
    done = [each for each in counted if each.ended is not None]
    gangs = [each for each in done if each.job.gpus >= GANG_GPUS]
    others = [each for each in done if each.job.gpus < GANG_GPUS]
    completions = sorted(_hours(each.completion) for each in done)
    return Figures(
        gang_wait=_mean(_hours(each.wait) for each in gangs),
        other_wait=_mean(_hours(each.wait) for each in others),
        completion=_mean(completions),
        completion_p99=completions[math.ceil(0.99 * len(completions)) - 1],
        slowdown=_mean(map(_slowdown, done)),
        gang_slowdown=_mean(map(_slowdown, gangs)),
        utilisation=_used(workload, outcomes) / gpus,
        unfinished=len(counted) - len(done),
    )


def _hours(time: timedelta) -> float:
    return time / timedelta(hours=1)


def _mean(values: Iterable[float]) -> float:
    """Return the mean, 0 of nothing."""
    found = list(values)
    return statistics.fmean(found) if found else 0.0


def _slowdown(outcome: Outcome) -> float:
    return max(1.0, outcome.completion / max(outcome.job.held, SHORTEST))


def _used(workload: Workload, outcomes: Iterable[Outcome]) -> float:
    """Return how many GPUs were held on average while the week lasted."""
    held = 0.0
    for each in outcomes:
        if each.started is not None:
            start = max(each.started, workload.first)
            end = min(each.ended or workload.last, workload.last)
            held += (
                max(end - start, timedelta(0)) / (workload.last - workload.first) * each.job.gpus
            )
    return held


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of every policy, seed by seed."""

    host_count: int
    figures: Mapping[str, Sequence[Figures]]

    def values(self, policy: str, name: str) -> list[float]:
        """Return one figure of a policy for all seeds."""
        return [getattr(each, name) for each in self.figures[policy]]

    def ratios(self, policy: str, name: str) -> list[float]:
        """Return one figure of a policy by first-fit's, seed by seed."""
        pairs = zip(self.values(policy, name), self.values(BASE, name), strict=True)
        return [value / base if base else 1.0 for value, base in pairs]

    @property
    def is_met(self) -> bool:
        """Tell whether both goals are kept in the mean."""
        wait = self.ratio_of_means(BALANCED, "gang_wait")
        completion = self.ratio_of_means(BALANCED, "completion")
        return wait <= GANG_WAIT_GOAL and completion <= COMPLETION_GOAL

    def ratio_of_means(self, policy: str, name: str) -> float:
        """Return the mean over all seeds by first-fit's."""
        base = _mean(self.values(BASE, name))
        return _mean(self.values(policy, name)) / base if base else 1.0


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval."""
    if len(values) < 2:
        return values[0], math.inf
    t = _T[len(values) - 1] if len(values) <= len(_T) else 1.96
    return _mean(values), t * statistics.stdev(values) / math.sqrt(len(values))


def run(
    seeds: int,
    host_count: int = 24,
    policies: Mapping[str, Decide] = POLICIES,
    say: Callable[[str], None] = lambda text: None,
    length: timedelta = timedelta(days=7),
) -> Report:
    """Simulate every policy on the same weeks."""
    cluster = hosts(host_count)
    gpus = sum(len(host.gpus) for host in cluster)
    figures: dict[str, list[Figures]] = {name: [] for name in policies}
    for seed in range(seeds):
        workload = generate(seed, host_count, length=length)
        for name, decide in policies.items():
            outcomes = simulate(cluster, workload.jobs, decide, watched=workload.counted)
            figures[name].append(measure(workload, outcomes, gpus))
            say(f"seed {seed}, {name}: gangs wait {figures[name][-1].gang_wait:.2f} h")
    return Report(host_count, figures)


_ROWS = {
    "gang_wait": "wait of gangs, h",
    "other_wait": "wait of others, h",
    "completion": "completion, h",
    "completion_p99": "completion p99, h",
    "slowdown": "slowdown",
    "gang_slowdown": "slowdown of gangs",
    "utilisation": "utilisation",
}


def as_table(report: Report) -> str:
    """Return means with their intervals, and the ratios to first-fit, as text."""
    lines = [f"{report.host_count} hosts, {len(report.figures[BASE])} seeds; mean +- 95 % interval"]
    for name, title in _ROWS.items():
        lines.append(f"\n{title}")
        for policy in report.figures:
            mean, by = interval(report.values(policy, name))
            ratio, ratio_by = interval(report.ratios(policy, name))
            whole = report.ratio_of_means(policy, name)
            lines.append(
                f"  {policy:<24}{mean:>9.2f} +-{by:>7.2f}"
                f"   by {BASE}: {ratio:.3f} +- {ratio_by:.3f}, of the means {whole:.3f}"
            )
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, Any]:
    """Return all figures for programs."""
    return {
        "hosts": report.host_count,
        "is_met": report.is_met,
        "figures": {name: [asdict(one) for one in all_] for name, all_ in report.figures.items()},
    }


@click.command()
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(1, 100))
@click.option("--hosts", "host_count", default=24, show_default=True, type=click.IntRange(8, 250))
@click.option(
    "--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write JSON here too."
)
def main(seeds: int, host_count: int, file: Path | None) -> None:
    """Compare policies on generated weeks of gangs and notebooks."""
    report = run(seeds, host_count, say=lambda text: click.echo(text, err=True))
    if file:
        file.write_text(json.dumps(as_json(report), indent=2) + "\n")
    click.echo(as_table(report))
    if not report.is_met:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
