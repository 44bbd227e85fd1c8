"""Placement policies: which of the hosts on which a slot fits is best for it.

A policy only ranks; that a slot really fits is the scheduler's business. Other packages add
theirs through the entry point group ``nimbus_hub.placement``; the operator chooses one by
name with ``rules.placement``. See docs/scheduling.md for a whole example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nimbus_hub.scheduler.free import Free, Ints
from nimbus_hub.scheduler.shape import Shape

__all__ = ["Floats", "Placement", "PlacementFactory", "Tightest", "chosen"]

Floats = NDArray[np.float64]


class Placement(Protocol):
    """A policy for one view of one datacenter."""

    def costs(self, shape: Shape, hosts: Ints) -> Floats:
        """Return the cost of one slot on each of these hosts; the lowest wins.

        Costs may depend on the shape and on what the host itself has free, on nothing else:
        they are kept until the host changes. Among equals the first by rack and name wins.
        """
        ...

    def devices(self, shape: Shape, host: int, fitting: list[int]) -> tuple[int, ...]:
        """Return which ``shape.gpus`` of the fitting devices of a host to take."""
        ...


class PlacementFactory(Protocol):
    """Makes a policy for a view; what an entry point names."""

    def __call__(self, free: Free, mix: Mapping[Shape, float]) -> Placement:
        """Return the policy; ``mix`` is how often each shape is asked for, maybe empty."""
        ...


def chosen(placement: Placement, shape: Shape, host: int, fitting: list[int]) -> tuple[int, ...]:
    """Return the devices that a policy takes of the fitting ones.

    A policy may be a plug-in: where it names others, or too few, the first ones are taken.
    """
    devices = placement.devices(shape, host, fitting)
    if len(set(devices)) == len(devices) == shape.gpus and set(devices) <= set(fitting):
        return devices
    return tuple(fitting[: shape.gpus])


class Tightest:
    """Best fit: the host with the fewest free GPUs, then CPUs; the device with least left."""

    def __init__(self, free: Free, mix: Mapping[Shape, float]) -> None:
        self._free = free

    def costs(self, shape: Shape, hosts: Ints) -> Floats:
        """Return free GPUs, with free CPUs behind the point."""
        gpus = np.maximum(self._free.gpus[hosts], 0).sum(axis=1)
        return np.asarray(gpus + self._free.cpus[hosts] / 1e9, np.float64)

    def devices(self, shape: Shape, host: int, fitting: list[int]) -> tuple[int, ...]:
        """Return the devices with least left."""
        left = self._free.gpus[host]
        return tuple(sorted(fitting, key=lambda device: (left[device], device))[: shape.gpus])
