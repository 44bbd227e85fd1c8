"""Placement that keeps what stays free useful: the default policy.

A host is worth the GPUs on it that the mix of requests can still fill (prices.py): what its
free devices are worth by their gaps, as far as its free CPUs and memory suffice for that. A
slot goes where that falls least, on the device whose gap loses least. So shares fill gaps
that are worth little, tasks that need many CPUs go where GPUs are taken already, and nothing
is spent on keeping what the mix would not use. Among equals the host wins on whose GPUs the
least of the mix insists, then the one with fewer free, so that whole hosts stay whole, then
the first.

The aim is that of fragmentation gradient descent (Weng et al., "Beware of Fragmentation",
USENIX ATC'23); prices from a linear program take the place of its sum over all shapes, so
that a decision costs the same for any mix.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nimbus_hub.scheduler.free import WHOLE, Free, Ints, is_model
from nimbus_hub.scheduler.placement import Floats
from nimbus_hub.scheduler.prices import prices
from nimbus_hub.scheduler.shape import Shape

__all__ = ["Fragmentation"]

_STEPS = 1e6
"""Costs in millionths of a GPU: what differs by less is rounding."""
_TIE = 1e-9
_NEVER = 1e12
"""The cost of where a slot does not fit; nobody looks at it, but it has to be a number."""


class Fragmentation:
    """The policy for one view."""

    def __init__(self, free: Free, mix: Mapping[Shape, float]) -> None:
        self._free = free
        found = prices(mix)
        # One more for the place where there is no device, which is counted from the end.
        self._worth = np.append(found.gaps, 0.0) * _STEPS
        self._lines = found.lines * (1.0, _STEPS, _STEPS)
        pressure = _pressure(free, mix)
        # Both only order what costs the same: their sum is under one step.
        self._pressure = pressure[free.models].max(axis=1, initial=0.0) / 2
        self._is_pressed = bool(self._pressure.any())
        self._losses: dict[int, Floats] = {}
        # Of every host: worth of its gaps, CPUs, memory, and how much of it can be filled.
        self._have = np.empty((3, len(free)))
        self._filled = np.empty(len(free))
        self._seen = len(free.changes)
        self._look(np.arange(len(free)))

    def costs(self, shape: Shape, hosts: Ints) -> Floats:
        """Return by how much the worth of each host would fall, ties by its free GPUs."""
        changes = self._free.changes
        if self._seen != len(changes):
            self._look(np.array(changes[self._seen :]))
            self._seen = len(changes)
        have = self._have.take(hosts, axis=1)
        tie = have[0] * _TIE
        have[0] -= self._lost(shape, hosts)
        have[1] -= shape.cpus_milli
        have[2] -= shape.memory_bytes
        cost = self._filled[hosts]
        cost -= np.minimum.reduce(np.dot(self._lines, have))
        np.rint(cost, out=cost)
        cost += tie
        if self._is_pressed:
            cost += self._pressure[hosts]
        return cost

    def _look(self, hosts: Ints) -> None:
        """Note what hosts that changed have."""
        free = self._free
        have = np.empty((3, len(hosts)))
        self._worth[np.maximum(free.gpus[hosts], -1)].sum(axis=1, out=have[0])
        have[1] = free.cpus[hosts]
        have[2] = free.memory[hosts]
        self._have[:, hosts] = have
        self._filled[hosts] = np.minimum.reduce(np.dot(self._lines, have))

    def devices(self, shape: Shape, host: int, fitting: list[int]) -> tuple[int, ...]:
        """Return the device whose gap loses least, then the one with least left."""
        if shape.gpu_milli == WHOLE or len(fitting) == 1:
            return tuple(fitting[: shape.gpus])
        loss = self._loss(shape.gpu_milli)
        gpus = self._free.gpus[host].tolist()
        return (min(fitting, key=lambda device: (round(loss[gpus[device]]), gpus[device], device)),)

    def _lost(self, shape: Shape, hosts: Ints) -> Floats | float:
        """Return what the devices that are taken were worth."""
        if shape.gpu_milli == WHOLE:
            return shape.gpus * _STEPS
        losses = self._loss(shape.gpu_milli)[np.maximum(self._free.gpus[hosts], -1)]
        allowed = self._free.allowed(shape.models)
        if allowed is not None:
            losses[~allowed[hosts]] = _NEVER
        return np.asarray(losses.min(axis=1, initial=_NEVER))

    def _loss(self, share: int) -> NDArray[np.float64]:
        """Return by how much each gap's worth falls when a share is taken of it."""
        if share not in self._losses:
            loss = np.full(len(self._worth), _NEVER)
            loss[share : WHOLE + 1] = self._worth[share:-1] - self._worth[: WHOLE + 1 - share]
            self._losses[share] = loss
        return self._losses[share]


def _pressure(free: Free, mix: Mapping[Shape, float]) -> Floats:
    """Return how hard each model is insisted on, 0 to 1; the last place is that of none.

    With d the share of the demand that insists on a model over the model's share of all
    GPUs, d / (1 + d).
    """
    names = free.model_names
    gpus = np.array([np.count_nonzero(free.models == at) for at in range(len(names))])
    found = np.zeros(len(names) + 1)
    asked = sum(shape.all_gpus_milli * count for shape, count in mix.items())
    for shape, count in mix.items():
        if shape.gpus and shape.models:
            allowed = [
                at
                for at, name in enumerate(names)
                if any(is_model(model, name) for model in shape.models)
            ]
            if allowed:
                share = shape.all_gpus_milli * count / asked
                found[allowed] += share * gpus.sum() / gpus[allowed].sum()
    return found / (1 + found)
