"""How people write amounts: ``90m``, ``4G``, ``A100:2``, and back again.

Inside, durations are ``timedelta``, memory is bytes, CPUs are thousandths of a core.
Units of memory are binary (``4G`` is 4 GiB), as in Slurm and Docker.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import NamedTuple

from nimbus_hub.errors import InvalidRequest

__all__ = [
    "GpuAmount",
    "format_cpus",
    "format_duration",
    "format_gpus",
    "format_memory",
    "parse_cpus",
    "parse_duration",
    "parse_gpus",
    "parse_memory",
]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_DURATION = re.compile(r"(?:\d+[smhd])+")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)(?:I?B)?")
_MODEL = r"[A-Za-z][A-Za-z0-9_.-]*"
_GPUS = re.compile(
    rf"(?:(?P<models>{_MODEL}(?:,{_MODEL})*):)?(?P<amount>-?[0-9]{{1,6}}(?:\.[0-9]{{1,3}})?)"
)
_LONGEST = timedelta(days=3650)


def parse_duration(value: str | int | float) -> timedelta:
    """Read ``90m``, ``2h``, ``1d`` or ``1h30m``; a bare number is seconds.

    Raises InvalidRequest for anything else, for nothing or less, and for over ten years.
    """
    text = str(value).strip().lower()
    try:
        if _DURATION.fullmatch(text):
            parts = re.findall(r"(\d+)([smhd])", text)
            found = timedelta(seconds=sum(int(n) * _SECONDS[unit] for n, unit in parts))
        else:
            found = timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        raise InvalidRequest(f"duration must be like 90m, 2h or 1d, got {value!r}") from None
    if not timedelta(0) < found <= _LONGEST:
        raise InvalidRequest(f"duration must be more than 0 and at most 3650d, got {value!r}")
    return found


def format_duration(value: timedelta) -> str:
    """Write a duration as people do, in at most two units: ``45s``, ``2h``, ``1h30m``, ``1d``."""
    left = max(0, round(value.total_seconds()))
    parts = []
    for unit, seconds in reversed(_SECONDS.items()):
        count, left = divmod(left, seconds)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"


def parse_memory(value: str | int) -> int:
    """Read ``4G``, ``512M`` or bytes as a number; return bytes.

    Raises InvalidRequest for anything else and for nothing.
    """
    match = _MEMORY.fullmatch(str(value).strip().upper())
    if match is None:
        raise InvalidRequest(f"memory must be a size like 4G or 512M, got {value!r}")
    size = float(match[1]) * _BYTES[match[2]]
    if not 1 <= size < 2**60:
        raise InvalidRequest(f"memory must be more than 0 and at most 1048575T, got {value!r}")
    return int(size)


def format_memory(size_bytes: int) -> str:
    """Write bytes in the largest unit that keeps one digit before the point: ``1.5G``."""
    for unit in ("T", "G", "M", "K"):
        if size_bytes >= _BYTES[unit]:
            return f"{size_bytes / _BYTES[unit]:.1f}".removesuffix(".0") + unit
    return f"{size_bytes}B"


def parse_cpus(value: str | int | float) -> int:
    """Read a number of CPUs, ``0.5`` or ``2``; return thousandths of a core.

    Raises InvalidRequest for anything else and for nothing.
    """
    try:
        milli = round(float(str(value).strip()) * 1000)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"cpus must be a number like 2 or 0.5, got {value!r}") from None
    if milli <= 0:
        raise InvalidRequest(f"cpus must be more than 0, got {value!r}")
    if milli >= 10**9:
        raise InvalidRequest(f"cpus must be less than 1000000, got {value!r}")
    return milli


def format_cpus(milli: int) -> str:
    """Write thousandths of a core as a number of CPUs: ``0.5``, ``2``."""
    return f"{milli / 1000:.3f}".rstrip("0").removesuffix(".")


class GpuAmount(NamedTuple):
    """How many GPUs, the share of each in thousandths, and the models allowed (none: any)."""

    gpus: int
    milli: int = 1000
    models: tuple[str, ...] = ()


def parse_gpus(value: str | int | float) -> GpuAmount:
    """Read ``2``, ``A100:2``, ``A100,V100:2`` or a share of one, ``0.5`` or ``T4:0.25``.

    Raises InvalidRequest for anything else, for less than 0, and for shares of over one.
    """
    match = _GPUS.fullmatch(str(value).strip())
    if match is None:
        raise InvalidRequest(
            f"gpus must be a number, a share of one GPU like 0.5, or MODEL:NUMBER like A100:2, "
            f"got {value!r}"
        )
    milli = round(float(match["amount"]) * 1000)
    if milli < 0:
        raise InvalidRequest(f"gpus must be at least 0, got {match['amount']}")
    models = tuple(dict.fromkeys(match["models"].split(","))) if match["models"] else ()
    if milli % 1000 == 0:
        return GpuAmount(milli // 1000, 1000, models)
    if milli > 1000:
        raise InvalidRequest(
            f"gpus must be a whole number or a share of one GPU, got {match['amount']}"
        )
    return GpuAmount(1, milli, models)


def format_gpus(gpus: int, milli: int = 1000, models: tuple[str, ...] = ()) -> str:
    """Write GPUs as people ask for them: ``2``, ``A100:2``, ``A100,V100:0.5``."""
    amount = f"{gpus * milli / 1000:.3f}".rstrip("0").removesuffix(".")
    return f"{','.join(models)}:{amount}" if models else amount
