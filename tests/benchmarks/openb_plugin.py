"""The service's own placement as a policy of the replay.

`place` knows the mix of the pod list, as FGD does; `place_estimated` knows only what has
arrived so far, as the service does. Both drive `nimbus_hub.scheduler`: its view of what is
free, its ranking of the hosts, its default policy. Hosts are in a random, then fixed order.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import numpy as np

from nimbus_hub.control.mix import Mix
from nimbus_hub.scheduler.fit import Fitter
from nimbus_hub.scheduler.fragmentation import Fragmentation
from nimbus_hub.scheduler.free import Free
from nimbus_hub.scheduler.shape import Shape
from tests.benchmarks.openb_replay import Choice, Cluster, Decide, Task, Workload, factory
from tests.benchmarks.openb_replay import Shape as TraceShape

__all__ = ["place", "place_estimated"]


class _Scheduler:
    """The view of the trace's cluster, in an order of its own, and the policy over it."""

    def __init__(self, cluster: Cluster, rng: Random) -> None:
        self._cluster = cluster
        self._order = np.array(rng.sample(range(len(cluster.ngpu)), len(cluster.ngpu)))
        self._place: list[int] = np.argsort(self._order).tolist()
        models = np.where(cluster.gpu_free >= 0, cluster.model_id[:, None], -1)
        self._free = Free.of_arrays(
            cluster.cpu_free[self._order],
            cluster.mem_free[self._order],
            cluster.gpu_free[self._order],
            models[self._order],
            cluster.models,
        )
        self._seen = cluster.version.copy()
        self._shapes: dict[TraceShape, Shape] = {}
        self._mix: Mapping[Shape, float] | None = None
        self.know({})

    def know(self, mix: Mapping[Shape, float]) -> None:
        """Place by this mix from now on."""
        if mix is not self._mix:
            self._mix = mix
            self._fitter = Fitter(self._free, Fragmentation(self._free, mix))

    def shape(self, task: TraceShape) -> Shape:
        """Return the service's shape of a task's."""
        if task not in self._shapes:
            self._shapes[task] = Shape(
                max(1, task.cpu),
                max(1, task.mem),
                task.num_gpu,
                task.gpu_milli if task.num_gpu == 1 else 1000,
                tuple(sorted(task.models or ())),
            )
        return self._shapes[task]

    def decide(self, cluster: Cluster, task: Task) -> Choice | None:
        """Return where a task goes, after a look at the hosts that changed."""
        for host in (cluster.version != self._seen).nonzero()[0].tolist():
            place = self._place[host]
            self._free.cpus[place] = cluster.cpu_free[host]
            self._free.memory[place] = cluster.mem_free[host]
            self._free.gpus[place] = cluster.gpu_free[host]
            self._free.changed(place)
            self._seen[host] = cluster.version[host]
        seat = self._fitter.one(self.shape(task.shape))
        return None if seat is None else (int(self._order[seat.host]), list(seat.devices))


@factory
def place(cluster: Cluster, workload: Workload, rng: Random) -> Decide:
    """Return the default policy with the mix of the pod list."""
    scheduler = _Scheduler(cluster, rng)
    scheduler.know({scheduler.shape(shape): count for shape, count in workload.mix.items()})
    return scheduler.decide


@factory
def place_estimated(cluster: Cluster, workload: Workload, rng: Random) -> Decide:
    """Return the default policy with the mix estimated from what has arrived."""
    scheduler = _Scheduler(cluster, rng)
    mix = Mix()

    def decide(cluster: Cluster, task: Task) -> Choice | None:
        mix.count({scheduler.shape(task.shape): 1})
        scheduler.know(mix.counts())
        return scheduler.decide(cluster, task)

    return decide
