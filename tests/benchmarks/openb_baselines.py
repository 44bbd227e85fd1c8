"""Policies to compare with: random, first-fit, best-fit, and FGD as published.

The rules are those of the published simulator (Weng et al., "Beware of Fragmentation", USENIX
ATC'23; https://github.com/hkust-adsl/kubernetes-scheduler-simulator): scores are whole numbers from
0 to 100, a share goes to the tightest device (random: any; FGD: the best one), whole GPUs to the
first free ones. Among equal hosts the first wins, in an order that is random but fixed for the run.

What a shape is worth on a host depends on that host alone, so scores are kept by shape and computed
again only for hosts whose version has changed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.openb_replay import DEVICE, Choice, Cluster, Place, Shape, Task, Workload

__all__ = ["BASELINES", "BestFit", "FirstFit", "Fragmentation", "RandomFit"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_NO = -1
"""Score of a host the shape does not fit on."""


def fits(cluster: Cluster, shape: Shape, hosts: Ints) -> NDArray[np.bool_]:
    """Tell for each of the hosts whether the shape fits there now."""
    enough: NDArray[np.bool_] = cluster.cpu_free[hosts] >= shape.cpu
    enough &= cluster.mem_free[hosts] >= shape.mem
    if shape.num_gpu:
        devices = (cluster.gpu_free[hosts] >= shape.gpu_milli).sum(axis=1)
        enough &= devices >= shape.num_gpu
    if shape.models is not None:
        allowed = np.array([model in shape.models for model in cluster.models])
        enough &= allowed[cluster.model_id[hosts]]
    return enough


class FirstFit:
    """The first host of a fixed random order that has room; base of the policies with scores."""

    is_factory: ClassVar[bool] = True

    def __init__(self, cluster: Cluster, workload: Workload, rng: random.Random) -> None:
        order = list(range(len(cluster.version)))
        rng.shuffle(order)
        self._order = np.array(order)
        self._rng = rng
        self._known: dict[Shape, tuple[Ints, Ints]] = {}

    def __call__(self, cluster: Cluster, task: Task) -> Choice | None:
        """Take the host of the highest score."""
        scores = self.scores(cluster, task.shape)[self._order]
        best = int(scores.argmax())
        if scores[best] == _NO:
            return None
        host = int(self._order[best])
        return host, self.devices(cluster, task.shape, host)

    def scores(self, cluster: Cluster, shape: Shape) -> Ints:
        """Return the score of each host, computed where it has changed."""
        if shape not in self._known:
            self._known[shape] = (
                np.full_like(cluster.version, _NO),
                np.full_like(cluster.version, _NO),
            )
        versions, scores = self._known[shape]
        changed = np.flatnonzero(versions != cluster.version)
        if len(changed):
            versions[changed] = cluster.version[changed]
            scores[changed] = _NO
            hosts = changed[fits(cluster, shape, changed)]
            if len(hosts):
                scores[hosts] = self.score(cluster, shape, hosts)
        return scores

    def score(self, cluster: Cluster, shape: Shape, hosts: Ints) -> Ints:
        """Return how good these hosts are, which have room, at least 0."""
        return np.zeros_like(hosts)

    def devices(self, cluster: Cluster, shape: Shape, host: int) -> Sequence[int]:
        """Return the devices to take there: the tightest, or the first that are free."""
        free = cluster.gpu_free[host]
        able = np.flatnonzero(free >= shape.gpu_milli)
        if shape.num_gpu == 1:
            return [int(able[free[able].argmin()])]
        return [int(one) for one in able[: shape.num_gpu]]


class RandomFit(FirstFit):
    """Any host that has room, any device of it that has room."""

    def __call__(self, cluster: Cluster, task: Task) -> Choice | None:
        """Draw one."""
        hosts = np.flatnonzero(self.scores(cluster, task.shape) != _NO)
        if not len(hosts):
            return None
        host = int(self._rng.choice(hosts))
        return host, self.devices(cluster, task.shape, host)

    def devices(self, cluster: Cluster, shape: Shape, host: int) -> Sequence[int]:
        """Draw a device for a share."""
        if shape.num_gpu != 1:
            return super().devices(cluster, shape, host)
        return [int(self._rng.choice(np.flatnonzero(cluster.gpu_free[host] >= shape.gpu_milli)))]


class BestFit(FirstFit):
    """The host with the least left: half its CPUs by 128, half its GPUs by 8, as published."""

    def score(self, cluster: Cluster, shape: Shape, hosts: Ints) -> Ints:
        """Return 100 less the percentage that stays free."""
        cpu = cluster.cpu_free[hosts] - shape.cpu
        gpu = np.maximum(cluster.gpu_free[hosts], 0).sum(axis=1) - shape.num_gpu * shape.gpu_milli
        left = 0.5 * cpu / 128_000 + 0.5 * gpu / 8_000
        return np.asarray((1.0 - left) * 100, dtype=np.float64).astype(np.int64)


class Fragmentation(FirstFit):
    """FGD: the host and device whose fragmentation grows least.

    A host's fragment, to a typical task, is all its free GPU if the task cannot run there (or needs
    none), else what lies on devices too small for it; the fragmentation is the mean over the mix.
    With U[c] the milli free on devices that a class c of tasks (same GPUs) can use, and W[c] the
    share of tasks of c whose CPUs and model the host has, that is free - sum of W[c] * U[c] over
    the classes with enough devices. Score: sigmoid of the fall, in GPUs, times 100, cut off.
    """

    def __init__(self, cluster: Cluster, workload: Workload, rng: random.Random) -> None:
        super().__init__(cluster, workload, rng)
        typical = typical_tasks(workload)
        classes = sorted({(shape.gpu_milli, shape.num_gpu) for shape in typical if shape.num_gpu})
        milli = np.array([one[0] for one in classes])
        self._need = milli * np.array([one[1] for one in classes])
        free = np.arange(DEVICE + 1)[:, None]
        # By free milli of a device and class: what of it the class can use.
        self._usable_of = np.where(free >= milli, free, 0)
        self._cpus = np.array(sorted({shape.cpu for shape in typical}))
        self._weights = self._weigh(cluster, typical, classes)
        hosts = len(cluster.version)
        self._seen = np.full(hosts, _NO)
        self._usable = np.zeros((hosts, len(classes)), dtype=np.int64)
        self._fragment = np.zeros(hosts)

    def _weigh(
        self, cluster: Cluster, typical: dict[Shape, float], classes: list[tuple[int, int]]
    ) -> Floats:
        """Return the share of tasks by model, CPUs (how many thresholds are met) and class."""
        weights = np.zeros((len(cluster.models), len(self._cpus) + 1, len(classes)))
        for shape, share in typical.items():
            if not shape.num_gpu:
                continue
            column = classes.index((shape.gpu_milli, shape.num_gpu))
            least = int(np.searchsorted(self._cpus, shape.cpu)) + 1
            for row, model in enumerate(cluster.models):
                if shape.models is None or model in shape.models:
                    weights[row, least:, column] += share
        return weights

    def scores(self, cluster: Cluster, shape: Shape) -> Ints:
        """Bring the fragmentation of changed hosts up to date first."""
        changed = np.flatnonzero(self._seen != cluster.version)
        if len(changed):
            self._seen[changed] = cluster.version[changed]
            free = np.maximum(cluster.gpu_free[changed], 0)
            self._usable[changed] = self._usable_of[free].sum(axis=1)
            weights = self._weights_at(cluster, changed, 0)
            self._fragment[changed] = self._mean(free.sum(axis=1), weights, self._usable[changed])
        return super().scores(cluster, shape)

    def score(self, cluster: Cluster, shape: Shape, hosts: Ints) -> Ints:
        """Return the score of the best device."""
        best: Ints = self._by_device(cluster, shape, hosts).max(axis=1)
        return best

    def devices(self, cluster: Cluster, shape: Shape, host: int) -> Sequence[int]:
        """Return the best device for a share."""
        if not 0 < shape.gpu_milli < DEVICE:
            return super().devices(cluster, shape, host)
        return [int(self._by_device(cluster, shape, np.array([host]))[0].argmax())]

    def _by_device(self, cluster: Cluster, shape: Shape, hosts: Ints) -> Ints:
        """Return scores by host and device; one column if it does not matter which device."""
        free = np.maximum(cluster.gpu_free[hosts], 0)
        usable = self._usable[hosts][:, None, :]
        is_able = free[:, :1] >= 0
        if 0 < shape.gpu_milli < DEVICE:
            is_able = free >= shape.gpu_milli
            less = np.where(is_able, free - shape.gpu_milli, free)
            usable = usable - self._usable_of[free] + self._usable_of[less]
        elif shape.num_gpu:
            usable = usable - shape.num_gpu * self._usable_of[DEVICE]
        left = free.sum(axis=1) - shape.num_gpu * shape.gpu_milli
        weights = self._weights_at(cluster, hosts, shape.cpu)
        after = self._mean(left[:, None], weights[:, None, :], usable)
        fall = (self._fragment[hosts][:, None] - after) / DEVICE
        return np.where(is_able, (100 / (1 + np.exp(-fall))).astype(np.int64), _NO)

    def _weights_at(self, cluster: Cluster, hosts: Ints, less_cpu: int) -> Floats:
        level = np.searchsorted(self._cpus, cluster.cpu_free[hosts] - less_cpu, side="right")
        found: Floats = self._weights[cluster.model_id[hosts], level]
        return found

    def _mean(self, free: Ints, weights: Floats, usable: Ints) -> Floats:
        """Return the mean fragment: what is free less what typical tasks could use of it."""
        used = (weights * np.where(usable >= self._need, usable, 0)).sum(axis=-1)
        return np.asarray(free - used, dtype=np.float64)


def typical_tasks(workload: Workload, percent: int = 95) -> dict[Shape, float]:
    """Return the commonest shapes (memory set to 0) that make up so much, and their shares."""
    counts: Counter[Shape] = Counter()
    for shape, count in workload.mix.items():
        counts[shape._replace(mem=0)] += count
    ranked = sorted(counts, key=lambda one: (counts[one], _rank(one)), reverse=True)
    total, taken = counts.total(), 0
    typical: dict[Shape, float] = {}
    for shape in ranked:
        if 100 * taken >= percent * total:
            break
        taken += counts[shape]
        typical[shape] = counts[shape]
    return {shape: count / taken for shape, count in typical.items()}


def _rank(shape: Shape) -> tuple[int, int, int, str]:
    models = "|".join(sorted(shape.models)) if shape.models else ""
    return shape.cpu, shape.gpu_milli, shape.num_gpu, models


BASELINES: dict[str, Place] = {
    "random": RandomFit,
    "first-fit": FirstFit,
    "best-fit": BestFit,
    "fgd": Fragmentation,
}
