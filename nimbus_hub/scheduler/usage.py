"""Used GPU time that fades: after one half-life it counts half, after two a quarter."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import expm1, log

__all__ = ["decayed", "faded"]

_LN2 = log(2)


def decayed(
    gpus: float, start: datetime, end: datetime, now: datetime, half_life: timedelta
) -> float:
    """Return the GPU-seconds of ``gpus`` held from ``start`` to ``end``, as they count ``now``.

    The integral of ``gpus * 2**-((now - t) / half_life)`` over that time. What lies after
    ``now`` does not count yet.
    """
    end = min(end, now)
    if end <= start:
        return 0.0
    held = -expm1(-_LN2 * ((end - start) / half_life))
    return gpus * half_life.total_seconds() / _LN2 * held * faded(1.0, end, now, half_life)


def faded(amount: float, since: datetime, now: datetime, half_life: timedelta) -> float:
    """Return what is left ``now`` of an amount that was counted at ``since``."""
    return float(amount * 2.0 ** -((now - since) / half_life))
