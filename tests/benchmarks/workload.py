"""A generated week: requests with the sizes and lengths of Philly's, half of them notebooks.

Source: Jeon et al., "Analysis of Large-Scale Multi-Tenant GPU Clusters for DNN Training
Workloads", USENIX ATC'19, and the trace published with it. What is taken from where:

- **Sizes.** A tenth asks for 8 GPUs or more; below and above, sizes are as frequent as in
  the trace (95 % of the smaller ones ask for one). The mean is 1.9 GPUs; Hu et al. (SC'21)
  give 1.75 for Philly.
- **Lengths.** Drawn per class of size from the paper's distribution of run times (1, 2 to
  4, 5 to 8, more than 8 GPUs), read off its figure at 13 quantiles, log-linear in between.
  The tail is cut at a week, the longest lease of a job. Gangs are long: 8 GPUs take 3.2
  hours in the median and 26 hours in the mean; one GPU 19 minutes and 4 hours.
- **Shape of a gang.** Half of the gangs ask for whole hosts (workers of 8 GPUs), half for
  workers of one GPU, packed where that can be had. Philly asked for locality and relaxed
  it after a while; no split is published.
- **Notebooks.** Half of the single-GPU requests. The researcher works for 1.5 hours in the
  median (log-normal, sigma 1), so that notebooks and jobs of one GPU also use about the
  same GPU time. A lease lasts 2 hours and is renewed for 2 more when the warning comes, 15
  minutes before its end, up to 12 hours: the service's defaults. Half are given back when
  the work is done, the others are forgotten and come back at the end of their lease.
- **Bounds.** Nobody asks for what the job will take. As on the machines of Mu'alem and
  Feitelson (TPDS'01) the true length is uniformly spread over the length asked for, and
  that is a round number (Tsafrir et al., JSSPP'05); a quarter of those that may leave it
  at the default, a day.
- **Owners.** 60 people, the n-th of whom asks 1/n as often as the first: the first 3 (5 %)
  send 39 % (Hu et al.: the first 5 % hold half of the GPU time).
- **Arrivals.** Independent of each other, twice as frequent from 8 to 20 o'clock. Requests
  are drawn until the GPU time they will hold is the load times the week's of the cluster.

The week is preceded by another, in which the cluster fills, and followed by a third, so
that its last jobs do not run in a cluster that empties. Only the week counts.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from random import Random

from nimbus_hub.model.host import Gpu, Host
from nimbus_hub.model.lease import LeaseKind
from nimbus_hub.model.slot import SlotGroup
from nimbus_hub.scheduler.simulate import Job, Renewing

__all__ = ["START", "Workload", "generate", "hosts"]

START = datetime(2026, 3, 2, tzinfo=UTC)
"""A Monday."""

GIB = 2**30
GPUS_PER_HOST = 8
HOSTS_PER_RACK = 8
PEOPLE = 60
MOST = timedelta(days=7)
DEFAULT = timedelta(days=1)
NOTEBOOK_LEASE = timedelta(hours=2)
NOTEBOOK_RENEWING = Renewing(timedelta(hours=2), timedelta(minutes=15), timedelta(hours=12))

SIZES = {1: 0.859, 2: 0.020, 4: 0.021, 8: 0.0836, 16: 0.0120, 32: 0.0039, 64: 0.0005}
"""How many of all requests ask for so many GPUs."""

QUANTILES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99, 1.0)
MINUTES = {
    1: (0.1, 0.6, 0.9, 1.2, 3.8, 10, 19, 31, 44, 88, 243, 757, 1614, 4531, 20_000),
    2: (0.1, 0.2, 0.3, 0.6, 2.8, 12, 31, 185, 637, 1481, 3324, 7212, 8277, 15_000, 40_000),
    5: (0.1, 0.6, 1.3, 7.8, 20, 64, 195, 460, 1164, 2706, 5769, 9498, 11_000, 15_000, 40_000),
    9: (0.1, 0.6, 0.8, 3.9, 16, 38, 138, 279, 660, 1204, 3000, 6176, 8134, 12_000, 40_000),
}
"""Lengths at these quantiles, for requests of at least so many GPUs."""

_ROUND = [
    *(timedelta(minutes=minutes) for minutes in (10, 30)),
    *(timedelta(hours=hours) for hours in (1, 2, 4, 8, 12, 24, 36, 48, 72, 96, 120, 168)),
]
"""The lengths people ask for."""


@dataclass(frozen=True, slots=True)
class Workload:
    """All jobs, and the ids of those that arrive in the time that counts."""

    jobs: tuple[Job, ...]
    counted: frozenset[str]
    first: datetime
    last: datetime


def hosts(count: int) -> tuple[Host, ...]:
    """Return a cluster: 8 GPUs in each host, 8 hosts in each rack, no lack of CPUs."""
    gpus = tuple(Gpu(index, "A100") for index in range(GPUS_PER_HOST))
    return tuple(
        Host(
            f"h{number:03}",
            cpus_milli=96_000,
            memory_bytes=768 * GIB,
            gpus=gpus,
            address=f"10.0.{number // 250}.{number % 250 + 1}",
            rack=f"r{number // HOSTS_PER_RACK}",
        )
        for number in range(count)
    )


def generate(
    seed: int, host_count: int, load: float = 0.9, length: timedelta = timedelta(days=7)
) -> Workload:
    """Return the requests of three times ``length``, each at this load; the middle counts."""
    random = Random(f"gangs-{seed}")
    gpus = host_count * GPUS_PER_HOST
    parts = [
        _part(random, at * length, length, gpus, load * gpus * length.total_seconds())
        for at in range(3)
    ]
    jobs = [replace(job, id=f"j{at:05}") for at, job in enumerate(chain(*parts))]
    first = len(parts[0])
    counted = frozenset(job.id for job in jobs[first : first + len(parts[1])])
    return Workload(tuple(jobs), counted, START + length, START + 2 * length)


def _part(random: Random, start: timedelta, length: timedelta, gpus: int, goal: float) -> list[Job]:
    """Return requests of a time that will hold so many GPU-seconds, as closely as can be."""
    jobs: list[Job] = []
    for job in _jobs(random, START + start, length, gpus):
        size = job.gpus * job.held.total_seconds()
        if size > 2 * goal:  # closer without it
            return jobs
        jobs.append(job)
        goal -= size
    raise AssertionError("requests come without end")


def _jobs(random: Random, start: datetime, length: timedelta, most_gpus: int) -> Iterator[Job]:
    """Yield requests without end; none asks for more than half of the cluster."""
    sizes = [size for size in SIZES if size <= most_gpus // 2]
    weights = [SIZES[size] for size in sizes]
    people = range(1, PEOPLE + 1)
    while True:
        (person,) = random.choices(people, [1 / rank for rank in people])
        arrival = _arrival(random, start, length)
        (gpus,) = random.choices(sizes, weights)
        if gpus == 1 and random.random() < 0.5:
            yield _notebook(random, f"user{person}", arrival)
        else:
            yield _job(random, f"user{person}", arrival, gpus)


def _arrival(random: Random, start: datetime, length: timedelta) -> datetime:
    while True:
        arrival = start + length * random.random()
        if 8 <= arrival.hour < 20 or random.random() < 0.5:
            return arrival


def _job(random: Random, owner: str, arrival: datetime, gpus: int) -> Job:
    length = _length(random, gpus)
    whole = gpus >= GPUS_PER_HOST and random.random() < 0.5
    group = _group("worker", GPUS_PER_HOST, gpus // GPUS_PER_HOST) if whole else _worker(gpus)
    return Job("", owner, (group,), arrival, _bound(random, length), length)


def _worker(gpus: int) -> SlotGroup:
    """Return what a request asks for that does not need whole hosts."""
    return _group("worker", 1, gpus)


def _group(role: str, gpus: int, count: int = 1) -> SlotGroup:
    return SlotGroup(role, count, 8_000 * gpus, 48 * GIB * gpus, gpus)


def _notebook(random: Random, owner: str, arrival: datetime) -> Job:
    length = timedelta(hours=random.lognormvariate(math.log(1.5), 1.0))
    if random.random() < 0.5:
        length = _lease_end(length)
    length = max(timedelta(minutes=1), min(length, NOTEBOOK_RENEWING.latest_end))
    groups = (_group("notebook", 1),)
    kind, renewing = LeaseKind.SESSION, NOTEBOOK_RENEWING
    return Job("", owner, groups, arrival, NOTEBOOK_LEASE, length, kind, renewing)


def _lease_end(worked: timedelta) -> timedelta:
    """Return the end of the lease that runs when the work is done, from its start."""
    end = NOTEBOOK_LEASE
    while end - NOTEBOOK_RENEWING.notice < worked and end < NOTEBOOK_RENEWING.latest_end:
        end += NOTEBOOK_RENEWING.by - NOTEBOOK_RENEWING.notice
    return end


def _length(random: Random, gpus: int) -> timedelta:
    minutes = MINUTES[max(least for least in MINUTES if least <= gpus)]
    drawn = random.random()
    at = bisect_right(QUANTILES, drawn) - 1
    part = (drawn - QUANTILES[at]) / (QUANTILES[at + 1] - QUANTILES[at])
    low, high = math.log(minutes[at]), math.log(minutes[at + 1])
    return min(MOST, timedelta(minutes=math.exp(low + part * (high - low))))


def _bound(random: Random, length: timedelta) -> timedelta:
    if length <= DEFAULT and random.random() < 0.25:
        return DEFAULT
    asked = length / max(random.random(), 1e-3)
    return next((bound for bound in _ROUND if bound >= asked), MOST)
