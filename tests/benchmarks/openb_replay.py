"""Replay of FGD's inflation experiment on a trace of shared GPU hosts.

Trace: Alibaba cluster-trace-gpu-v2023 ("openb", https://github.com/alibaba/clusterdata, licence
Apache-2.0, beside the data); experiment: Weng et al., "Beware of Fragmentation: Scheduling
GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX ATC'23.

1,213 GPU hosts are empty at first. The tasks of a pod list arrive once each in an order shuffled by
the seed, then ones drawn with replacement, until the GPUs asked for reach 130 % of the capacity.
Nothing departs; what fits nowhere is dropped, counts as arrived, and the stream goes on. Tasks
without a GPU are placed too. A share lies on one device, more than one GPU means whole devices.

The replay trusts no policy: it books placements itself, hands out read-only views of its books,
and checks each decision, also that a task that was refused fits nowhere.
"""

from __future__ import annotations

import csv
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DEVICE",
    "MARKS",
    "WORKLOADS",
    "Books",
    "Choice",
    "Cluster",
    "Decide",
    "Place",
    "Run",
    "Shape",
    "Task",
    "Workload",
    "factory",
    "read_books",
    "read_workload",
    "replay",
    "stream",
]

DEVICE = 1000
"""A whole GPU, in milli."""

MARKS = (100, 130)
"""Where the allocation is measured: GPUs that were asked for, in percent of the capacity."""

WORKLOADS = (
    "default",
    "cpu100",
    "cpu250",
    "gpushare40",
    "gpushare60",
    "gpuspec10",
    "gpuspec33",
    "multigpu20",
    "multigpu50",
)

_SLOTS = 8
"""Columns of `gpu_free`: the most devices a host of the trace has."""

Ints = NDArray[np.int64]
Choice = tuple[int, Sequence[int]]
"""Index of the host, and its devices."""


class Shape(NamedTuple):
    """What a task asks for: CPUs in milli, memory in MiB, GPUs and the milli of each."""

    cpu: int
    mem: int
    num_gpu: int
    gpu_milli: int
    models: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a pod list. `idx` is its place there; its shape's fields are also its own."""

    idx: int
    name: str
    cpu: int
    mem: int
    num_gpu: int
    gpu_milli: int
    models: frozenset[str] | None
    shape: Shape

    @classmethod
    def of(cls, idx: int, name: str, shape: Shape) -> Task:
        """Return the task of that shape."""
        return cls(idx, name, *shape, shape)

    @property
    def milli(self) -> int:
        """Return all the GPU it asks for, in milli."""
        return self.num_gpu * self.gpu_milli


@dataclass(frozen=True)
class Workload:
    """The pod list a stream is drawn from: its tasks, and how often each shape occurs.

    Without knowledge (`unknown`) both are empty.
    """

    name: str
    tasks: tuple[Task, ...]
    mix: Mapping[Shape, int]

    @classmethod
    def of(cls, name: str, tasks: Sequence[Task]) -> Workload:
        """Count the shapes of the tasks."""
        return cls(name, tuple(tasks), dict(Counter(task.shape for task in tasks)))

    def unknown(self) -> Workload:
        """Return what a policy sees that must find out the mix by itself."""
        return Workload(self.name, (), {})


@dataclass(frozen=True, eq=False)
class Cluster:
    """What a policy sees: read-only arrays by host, always up to date.

    CPUs in milli, memory in MiB, free milli of each device with -1 where there is none;
    `version` grows with each change of the host.
    """

    cpu_free: Ints
    mem_free: Ints
    gpu_free: Ints
    ngpu: Ints
    model_id: Ints
    models: tuple[str, ...]
    version: Ints


class Decide(Protocol):
    """A policy at work: host and devices for a task, or None if it fits nowhere."""

    def __call__(self, cluster: Cluster, task: Task, /) -> Choice | None:
        """Choose."""


class Place(Protocol):
    """A policy: called once per run, before the first task arrives."""

    is_factory: bool

    def __call__(self, cluster: Cluster, workload: Workload, rng: random.Random, /) -> Decide:
        """Return the policy at work."""


def factory(make: Callable[[Cluster, Workload, random.Random], Decide]) -> Place:
    """Mark a function as a policy's factory."""
    place = cast(Place, make)
    place.is_factory = True
    return place


class Books:
    """What is free, exactly; only a checked placement changes it."""

    def __init__(
        self, cpu: Sequence[int], mem: Sequence[int], gpus: Sequence[int], models: Sequence[str]
    ) -> None:
        self._cpu, self._mem = np.array(cpu, dtype=np.int64), np.array(mem, dtype=np.int64)
        ngpu = np.array(gpus, dtype=np.int64)
        has = np.arange(_SLOTS) < ngpu[:, None]
        self._gpu = np.where(has, DEVICE, -1).astype(np.int64)
        self._version = np.zeros(len(cpu), dtype=np.int64)
        self._models = tuple(models)
        names = tuple(sorted(set(models)))
        ids = np.array([names.index(model) for model in models], dtype=np.int64)
        self.capacity = int(ngpu.sum()) * DEVICE
        self.cluster = Cluster(
            _view(self._cpu),
            _view(self._mem),
            _view(self._gpu),
            _view(ngpu),
            _view(ids),
            names,
            _view(self._version),
        )

    def is_possible(self, task: Task, choice: Choice) -> bool:
        """Tell whether the task may go exactly there."""
        host, devices = choice
        if not 0 <= host < len(self._cpu) or len(set(devices)) != len(devices):
            return False
        if len(devices) != task.num_gpu or not all(0 <= one < _SLOTS for one in devices):
            return False
        if task.models is not None and self._models[host] not in task.models:
            return False
        if self._cpu[host] < task.cpu or self._mem[host] < task.mem:
            return False
        return all(self._gpu[host, one] >= task.gpu_milli for one in devices)

    def fits_somewhere(self, task: Task) -> bool:
        """Tell whether any host has room for the task."""
        hosts = np.flatnonzero((self._cpu >= task.cpu) & (self._mem >= task.mem))
        if task.num_gpu:
            devices = (self._gpu[hosts] >= task.gpu_milli).sum(axis=1)
            hosts = hosts[devices >= task.num_gpu]
        models = task.models
        return any(models is None or self._models[host] in models for host in hosts)

    def book(self, task: Task, choice: Choice) -> None:
        """Put the task there."""
        host, devices = choice
        self._cpu[host] -= task.cpu
        self._mem[host] -= task.mem
        for one in devices:
            self._gpu[host, one] -= task.gpu_milli
        self._version[host] += 1


def _view(array: Ints) -> Ints:
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass
class Run:
    """What one policy did with one stream. Allocation in percent of the GPU capacity."""

    workload: str
    policy: str
    seed: int
    allocated: dict[int, float] = field(default_factory=dict)
    decisions: int = 0
    dropped: int = 0
    impossible: int = 0
    refused: int = 0
    eights: int = 0
    eights_dropped: int = 0
    eights_refused: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        figures = ", ".join(f"{value:.2f} at {mark} %" for mark, value in self.allocated.items())
        return f"{self.workload}, {self.policy}, seed {self.seed}: {figures}"

    @property
    def rate(self) -> float:
        """Return decisions per second, nothing but the policy timed."""
        return self.decisions / self.seconds if self.seconds else 0.0


def replay(books: Books, tasks: Iterator[Task], decide: Decide, run: Run) -> Run:
    """Let the policy decide on each task; fill in and return the run."""
    arrived = placed = 0
    for task in tasks:
        start = time.perf_counter_ns()
        choice = decide(books.cluster, task)
        run.seconds += (time.perf_counter_ns() - start) / 1e9
        if _apply(books, task, choice, run):
            placed += task.milli
        arrived += task.milli
        for mark in MARKS:
            if mark not in run.allocated and 100 * arrived >= mark * books.capacity:
                run.allocated[mark] = 100 * placed / books.capacity
    return run


def _apply(books: Books, task: Task, choice: Choice | None, run: Run) -> bool:
    """Check and book a decision; return whether the task was placed."""
    run.decisions += 1
    is_eight = task.num_gpu == _SLOTS
    run.eights += is_eight
    if choice is not None and books.is_possible(task, choice):
        books.book(task, choice)
        return True
    run.dropped += 1
    run.eights_dropped += is_eight
    if choice is not None:
        run.impossible += 1
    elif books.fits_somewhere(task):
        run.refused += 1
        run.eights_refused += is_eight
    return False


def stream(workload: Workload, capacity: int, seed: int) -> Iterator[Task]:
    """Yield the tasks, shuffled, then draws, until the last mark is reached."""
    if not any(task.milli for task in workload.tasks):
        raise ValueError(f"{workload.name}: no task asks for a GPU")
    rng = random.Random(seed)
    tasks = list(workload.tasks)
    rng.shuffle(tasks)
    arrived = count = 0
    while 100 * arrived < max(MARKS) * capacity:
        task = tasks[count] if count < len(tasks) else rng.choice(workload.tasks)
        yield task
        arrived += task.milli
        count += 1


def read_books(directory: Path) -> Books:
    """Read the GPU hosts of the trace, all free."""
    with (directory / "openb_node_list_gpu_node.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return Books(
        [int(row["cpu_milli"]) for row in rows],
        [int(row["memory_mib"]) for row in rows],
        [int(row["gpu"]) for row in rows],
        [row["model"] for row in rows],
    )


def read_workload(directory: Path, name: str) -> Workload:
    """Read a pod list of the trace."""
    path = directory / f"openb_pod_list_{name}.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    tasks = [Task.of(idx, row["name"], _shape(row)) for idx, row in enumerate(rows)]
    return Workload.of(name, tasks)


def _shape(row: Mapping[str, str]) -> Shape:
    num = int(row["num_gpu"])
    milli = int(row["gpu_milli"] or 0) if num else 0
    if num and not (0 < milli <= DEVICE and (num == 1 or milli == DEVICE)):
        raise ValueError(f"{row['name']}: {num} GPUs of {milli} milli are no share and not whole")
    # Lists without wishes for models may lack the column. Like in the published experiment, only
    # tasks that have a GPU are held to it.
    spec = row.get("gpu_spec") or ""
    models = frozenset(spec.split("|")) if num and spec else None
    return Shape(int(row["cpu_milli"]), int(row["memory_mib"]), num, milli, models)
