"""The policies the service's placement is compared with are the published ones."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from tests.benchmarks.openb_baselines import (
    BASELINES,
    BestFit,
    FirstFit,
    Fragmentation,
    typical_tasks,
)
from tests.benchmarks.openb_replay import Books, Run, Shape, Task, Workload, replay, stream

SHAPES = (
    Shape(1000, 1024, 1, 300, None),
    Shape(4000, 1024, 1, 460, None),
    Shape(2000, 4096, 1, 550, frozenset({"T4"})),
    Shape(8000, 4096, 1, 1000, frozenset({"T4", "G2"})),
    Shape(16000, 8192, 2, 1000, None),
    Shape(48000, 8192, 8, 1000, None),
    Shape(12_000, 40_960, 0, 0, None),
)


def books() -> Books:
    return Books(
        [32_000, 96_000, 96_000, 16_000, 64_000],
        [131_072, 393_216, 393_216, 65_536, 65_536],
        [2, 8, 8, 1, 4],
        ["T4", "G2", "G2", "T4", "P100"],
    )


def task(shape: Shape, idx: int = 0) -> Task:
    return Task.of(idx, f"task-{idx}", shape)


def some_workload(seed: int, size: int = 60) -> Workload:
    rng = random.Random(seed)
    weights = [rng.randint(1, 8) for _ in SHAPES]
    shapes = [*SHAPES, *rng.choices(SHAPES, weights, k=size)]
    return Workload.of("some", [task(shape, idx) for idx, shape in enumerate(shapes)])


@pytest.mark.parametrize("policy", BASELINES)
@pytest.mark.parametrize("seed", range(3))
def test_a_baseline_errs_in_nothing_and_repeats_itself(policy: str, seed: int) -> None:
    def once() -> Run:
        ledger, workload = books(), some_workload(seed)
        decide = BASELINES[policy](ledger.cluster, workload, random.Random(seed))
        tasks = stream(workload, ledger.capacity, seed)
        return replay(ledger, tasks, decide, Run("some", policy, seed))

    run, again = once(), once()
    assert (run.impossible, run.refused, run.eights_refused) == (0, 0, 0)
    assert run.dropped > 0
    assert run.allocated == again.allocated


def test_first_fit_keeps_to_one_order_and_takes_the_tightest_device() -> None:
    ledger = books()
    decide = FirstFit(ledger.cluster, some_workload(0), random.Random(0))
    order = list(range(5))
    random.Random(0).shuffle(order)
    host = order[0]
    last = int(ledger.cluster.ngpu[host]) - 1
    ledger.book(task(Shape(1, 1, 1, 250, None)), (host, [last]))
    for _ in range(2):
        assert decide(ledger.cluster, task(SHAPES[0])) == (host, [last])
        ledger.book(task(SHAPES[0]), (host, [last]))


def test_best_fit_takes_the_host_with_the_least_left() -> None:
    ledger = books()
    decide = BestFit(ledger.cluster, some_workload(0), random.Random(0))
    assert decide(ledger.cluster, task(SHAPES[0])) == (3, [0])
    assert decide(ledger.cluster, task(SHAPES[4])) == (0, [0, 1])


def fragment(cpu: int, gpu: list[int], model: str, typical: dict[Shape, float]) -> float:
    """Return a host's fragmentation, word by word as the published simulator counts it."""
    total = 0.0
    for shape, share in typical.items():
        able = sum(free >= shape.gpu_milli for free in gpu)
        may = shape.models is None or model in shape.models
        runs = shape.num_gpu and may and able >= shape.num_gpu and cpu >= shape.cpu
        total += share * sum(free for free in gpu if not runs or free < shape.gpu_milli)
    return total


def fall(ledger: Books, host: int, shape: Shape, devices: list[int], workload: Workload) -> float:
    cluster, typical = ledger.cluster, typical_tasks(workload)
    model = cluster.models[int(cluster.model_id[host])]
    gpu = [int(free) for free in cluster.gpu_free[host] if free >= 0]
    cpu = int(cluster.cpu_free[host])
    before = fragment(cpu, gpu, model, typical)
    for one in devices:
        gpu[one] -= shape.gpu_milli
    return before - fragment(cpu - shape.cpu, gpu, model, typical)


def slow_score(ledger: Books, host: int, shape: Shape, workload: Workload) -> int:
    free = ledger.cluster.gpu_free[host]
    able = [int(one) for one in np.flatnonzero(free >= shape.gpu_milli)]
    is_share = shape.num_gpu == 1 and shape.gpu_milli < 1000
    ways = [[one] for one in able] if is_share else [able[: shape.num_gpu]]
    falls = [fall(ledger, host, shape, way, workload) for way in ways]
    # Sums in another order: what is meant to be a whole score may be a hair less.
    return max(math.floor(100 / (1 + math.exp(-one / 1000)) + 1e-9) for one in falls)


@pytest.mark.parametrize("seed", range(3))
def test_fgd_scores_as_published_also_where_only_changes_are_computed(seed: int) -> None:
    ledger, workload, rng = books(), some_workload(seed), random.Random(seed)
    fgd = Fragmentation(ledger.cluster, workload, rng)
    for _ in range(40):
        shape = rng.choice(SHAPES)
        scores = fgd.scores(ledger.cluster, shape).tolist()
        hosts = [host for host, score in enumerate(scores) if score >= 0]
        assert scores == [
            slow_score(ledger, host, shape, workload) if host in hosts else -1 for host in range(5)
        ]
        choice = fgd(ledger.cluster, task(shape))
        if choice is not None:
            assert scores[choice[0]] == max(scores)
            ledger.book(task(shape), choice)


def test_fgd_puts_a_share_where_it_leaves_the_least_unusable() -> None:
    """Half a device is no use to whole tasks, so the second half joins the first."""
    half, whole = Shape(1000, 1, 1, 500, None), Shape(1000, 1, 1, 1000, None)
    workload = Workload.of("x", [task(half), task(whole)])
    ledger = Books([64_000] * 2, [65_536] * 2, [2, 2], ["T4", "T4"])
    ledger.book(task(half), (1, [1]))
    fgd = Fragmentation(ledger.cluster, workload, random.Random(0))
    assert fgd(ledger.cluster, task(half)) == (1, [1])


def test_typical_tasks_are_the_commonest_whatever_their_memory() -> None:
    common = [Shape(1000, mem, 1, 500, None) for mem in range(1, 98)]
    rare = [Shape(cpu, 1, 1, 1000, None) for cpu in (1, 2, 3)]
    workload = Workload.of("x", [task(shape) for shape in common + rare])
    assert typical_tasks(workload) == {Shape(1000, 0, 1, 500, None): 1.0}
    assert sum(typical_tasks(workload, 98).values()) == pytest.approx(1.0)
    assert len(typical_tasks(workload, 98)) == 2
