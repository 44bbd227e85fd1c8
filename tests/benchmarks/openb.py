"""`python -m tests.benchmarks.openb`: how much of the GPUs of a trace each policy allocates.

The trace is Alibaba's cluster-trace-gpu-v2023 (https://github.com/alibaba/clusterdata, licence
Apache-2.0), read from `--data`; the experiment is FGD's (USENIX ATC'23), see `openb_replay`.
Beside the service's placement run random, first-fit, best-fit and FGD as published. Prints a table
and exits with 1 if a goal is missed.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import platform
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

import click

from tests.benchmarks.openb_baselines import BASELINES
from tests.benchmarks.openb_figures import Figures, as_table, goals
from tests.benchmarks.openb_replay import (
    WORKLOADS,
    Place,
    Run,
    Workload,
    read_books,
    read_workload,
    replay,
    stream,
)

__all__ = ["Job", "load", "main", "measure"]

POLICIES = (*BASELINES, "policy", "estimated")


@dataclass(frozen=True, slots=True)
class Job:
    """One run: a policy, by its name and where it is, against one stream."""

    data: Path
    workload: str
    policy: str
    target: str
    seed: int

    def load(self) -> Place:
        """Return the policy."""
        return BASELINES[self.policy] if self.policy in BASELINES else load(self.target)


Split = Callable[[click.Context, click.Parameter, str], tuple[str, ...]]


def load(target: str) -> Place:
    """Return the policy at `module:function`, which must be a factory."""
    module, _, name = target.partition(":")
    place = getattr(importlib.import_module(module), name)
    if not getattr(place, "is_factory", False):
        raise ValueError(f"{target} is no factory of policies: it lacks is_factory = True")
    return cast(Place, place)


@cache
def _workload(data: Path, name: str) -> Workload:
    return read_workload(data, name)


def run(job: Job) -> Run:
    """Do one run."""
    books, workload = read_books(job.data), _workload(job.data, job.workload)
    shown = workload.unknown() if job.policy == "estimated" else workload
    # The policy's randomness is apart from the stream's, and the same for each policy.
    decide = job.load()(books.cluster, shown, random.Random(f"policy {job.seed}"))
    tasks = stream(workload, books.capacity, job.seed)
    return replay(books, tasks, decide, Run(job.workload, job.policy, job.seed))


def measure(jobs: Sequence[Job], processes: int) -> Iterator[Run]:
    """Do the runs, yielding each in turn."""
    if processes == 1:
        yield from map(run, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(run, jobs)


def _check(jobs: Sequence[Job]) -> None:
    """Say what cannot be read or loaded before anything runs."""
    try:
        read_books(jobs[0].data)
        for job in {(job.workload, job.policy): job for job in jobs}.values():
            _workload(job.data, job.workload)
            job.load()
    except (ImportError, AttributeError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _names(known: Sequence[str]) -> Split:
    """Return the callback of an option that takes names, separated by commas."""

    def split(context: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
        names = tuple(known) if text == "all" else tuple(dict.fromkeys(text.split(",")))
        if unknown := [name for name in names if name not in known]:
            raise click.BadParameter(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return split


def _as_json(figures: Figures) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "means": figures.as_json(),
        "goals": [{**asdict(goal), "is_met": goal.is_met} for goal in goals(figures)],
        "runs": [asdict(one) for one in figures.runs],
    }


@click.command()
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory with the trace's openb_*.csv.",
)
@click.option("--workloads", default="all", callback=_names(WORKLOADS), help="Separated by commas.")
@click.option("--policies", default="all", callback=_names(POLICIES), help="Separated by commas.")
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(1, 1000))
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option("--policy", default="tests.benchmarks.openb_plugin:place", show_default=True)
@click.option(
    "--estimated", default="tests.benchmarks.openb_plugin:place_estimated", show_default=True
)
@click.option(
    "--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write JSON here too."
)
def main(
    data: Path,
    workloads: tuple[str, ...],
    policies: tuple[str, ...],
    seeds: int,
    processes: int,
    policy: str,
    estimated: str,
    file: Path | None,
) -> None:
    """Replay FGD's inflation experiment and compare placement policies."""
    targets = {"policy": policy, "estimated": estimated}
    jobs = [
        Job(data, workload, name, targets.get(name, ""), seed)
        for workload in workloads
        for name in policies
        for seed in range(seeds)
    ]
    _check(jobs)
    runs: list[Run] = []
    for one in measure(jobs, processes):
        runs.append(one)
        click.echo(f"[{len(runs)}/{len(jobs)}] {one}", err=True)
    figures = Figures(runs)
    if file:
        file.write_text(json.dumps(_as_json(figures), indent=2) + "\n")
    click.echo(as_table(figures))
    if not all(goal.is_met for goal in goals(figures)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
