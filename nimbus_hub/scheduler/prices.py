"""Prices: what is free on a host is worth what the mix of shapes that are asked for can fill.

A gap of a device is worth the best filling of it, each share at its dual price in the
cutting-stock problem of the mix's shares (Gilmore and Gomory, "A linear programming approach
to the cutting-stock problem", 1961): a whole device is worth 1, and a gap that no share of
the mix fills is worth nothing.

CPUs and memory bound how much of that can be filled. With x of a resource beside each free
GPU, the mix's tasks, its fair share of them, the ones that need least first, fill a part of
it that is a concave function of x, kept here as lines: their slopes are the price of the
resource in GPUs, high where there is little of it and nothing where there is plenty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from nimbus_hub.scheduler.free import WHOLE
from nimbus_hub.scheduler.shape import Shape

__all__ = ["Prices", "prices"]

_MOST_PATTERNS = 300
_MOST_SHARES = 40
_COARSE = 50
"""Steps, in thousandths of a device, of the shares beyond the commonest."""
_MOST_LINES = 7
_ROUNDING = 1e-7


class Prices(NamedTuple):
    """What the mix makes of what is free.

    ``gaps``: the worth of a gap of 0 to 1000 thousandths of a device, in GPUs, shape
    (1001,). ``lines``: coefficients of that worth, of milli-CPUs and of bytes of memory,
    shape (lines, 3): the least of all lines is how many GPUs of a host can be filled.
    """

    gaps: NDArray[np.float64]
    lines: NDArray[np.float64]


def prices(mix: Mapping[Shape, float]) -> Prices:
    """Return the prices of a mix; those of an empty one know whole GPUs only."""
    return _prices(tuple(sorted(mix.items())))


@lru_cache(maxsize=16)
def _prices(mix: tuple[tuple[Shape, float], ...]) -> Prices:
    asking = [(shape, count) for shape, count in mix if shape.gpus and count > 0]
    weights = [count * shape.all_gpus_milli for shape, count in asking]
    demand: dict[int, float] = {WHOLE: 1e-9}
    for shape, count in asking:
        demand[shape.gpu_milli] = demand.get(shape.gpu_milli, 0.0) + count * shape.gpus
    demand = _few(demand)
    lines = [(1.0, 0.0, 0.0)]
    per_gpu = [shape.cpus_milli * WHOLE / shape.all_gpus_milli for shape, _ in asking]
    lines += [(worth, slope, 0.0) for worth, slope in _lines(per_gpu, weights)]
    per_gpu = [shape.memory_bytes * WHOLE / shape.all_gpus_milli for shape, _ in asking]
    lines += [(worth, 0.0, slope) for worth, slope in _lines(per_gpu, weights)]
    return Prices(_worth_of_gaps(demand), np.array(lines))


def _lines(needs: Sequence[float], weights: Sequence[float]) -> list[tuple[float, float]]:
    """Return the part of a free GPU that can be filled with x of a resource, as lines.

    ``needs`` is the resource that each shape takes for a GPU, ``weights`` its share of the
    GPUs asked for. In order of their needs, the tasks before one fill y with x of the
    resource; the next ones fill 1 / need more with each unit of it.
    """
    order = np.argsort(needs, kind="stable")
    need = np.array(needs)[order]
    weight = np.array(weights)[order]
    weight = weight / weight.sum()
    filled = np.cumsum(weight) - weight
    used = np.cumsum(weight * need) - weight * need
    # A few of the lines are as good as all: between them the function hardly differs.
    some = sorted(set(np.linspace(0, len(need) - 1, _MOST_LINES).astype(int))) if needs else ()
    return [(float(filled[at] - used[at] / need[at]), float(1 / need[at])) for at in some]


def _few(demand: Mapping[int, float]) -> dict[int, float]:
    """Return the demand with the rarer shares rounded up, so that prices stay quick to find."""
    often = sorted(demand, key=lambda share: (-demand[share], share))[:_MOST_SHARES]
    found = {WHOLE: demand[WHOLE]}
    for share, count in demand.items():
        kept = share if share in often else -(-share // _COARSE) * _COARSE
        if share != WHOLE:
            found[kept] = found.get(kept, 0.0) + count
    return found


def _worth_of_gaps(demand: Mapping[int, float]) -> NDArray[np.float64]:
    """Return the worth of every gap, by column generation: patterns until none is worth more."""
    if len(demand) == 1:  # Whole devices: nothing less is worth anything.
        return np.append(np.zeros(WHOLE), 1.0)
    shares = np.array(sorted(demand))
    wanted = np.array([demand[share] for share in shares.tolist()])
    patterns = [np.eye(len(shares))[at] * (WHOLE // share) for at, share in enumerate(shares)]
    for _ in range(_MOST_PATTERNS):
        solved = linprog(
            -wanted / wanted.sum(), A_ub=np.array(patterns), b_ub=np.ones(len(patterns))
        )
        worth, best = _fill(shares, solved.x)
        if worth[WHOLE] <= 1 + _ROUNDING:
            break
        patterns.append(best)
    return np.asarray(worth / worth[WHOLE], np.float64)


def _fill(
    shares: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the best value of every gap, and how often each share fills a whole device best."""
    worth = np.zeros(WHOLE + 1)
    choice = np.full(WHOLE + 1, -1)
    for gap in range(1, WHOLE + 1):
        worth[gap] = worth[gap - 1]
        fitting = int(np.searchsorted(shares, gap, side="right"))
        if fitting:
            filled = worth[gap - shares[:fitting]] + values[:fitting]
            best = int(filled.argmax())
            if filled[best] > worth[gap] + 1e-12:
                worth[gap], choice[gap] = filled[best], best
    pattern, gap = np.zeros(len(shares)), WHOLE
    while gap > 0:
        if choice[gap] < 0:
            gap -= 1
        else:
            pattern[choice[gap]] += 1
            gap -= int(shares[choice[gap]])
    return worth, pattern
