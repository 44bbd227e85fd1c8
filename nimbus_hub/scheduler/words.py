"""Amounts in the sentences of the scheduler: "2 GPUs A100", "3 workers", "at 14:32"."""

from __future__ import annotations

from datetime import datetime, timedelta

from nimbus_hub.model.quantities import format_cpus, format_duration, format_memory
from nimbus_hub.model.slot import SlotGroup

__all__ = ["clock", "counted", "cpus_text", "gpus_text", "roles_text", "seconds", "wish_text"]


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 slot``, ``2 slots``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def gpus_text(milli: int, models: tuple[str, ...] = ()) -> str:
    """Return GPUs in words: ``2 GPUs A100``, ``0.5 GPU``, ``1 GPU A100 or V100``."""
    number = format_cpus(milli) if milli else "0"
    gpus = "GPU" if 0 < milli <= 1000 else "GPUs"
    return f"{number} {gpus}" + (f" {' or '.join(models)}" if models else "")


def roles_text(role: str, count: int) -> str:
    """Return a number of a role in words: ``1 worker``, ``2 workers``, ``2 ps``."""
    return f"{count} {role}" if role.endswith("s") else counted(count, role)


def cpus_text(milli: int) -> str:
    """Return CPUs in words: ``1 CPU``, ``0.5 CPUs``."""
    return f"{format_cpus(milli)} CPU{'' if milli == 1000 else 's'}"


def wish_text(group: SlotGroup) -> str:
    """Return the size of a slot in words: ``1 GPU, 4 CPUs and 8G of memory``."""
    gpus = gpus_text(group.gpus * group.gpu_milli, group.gpu_models)
    beside = f"{cpus_text(group.cpus_milli)} and {format_memory(group.memory_bytes)} of memory"
    return f"{gpus}, {beside}" if group.gpus else beside


def seconds(amount: float) -> str:
    """Return a length of time in words."""
    return format_duration(timedelta(seconds=amount)) if amount >= 1 else "under 1s"


def clock(at: datetime, now: datetime) -> str:
    """Return a time of day, with the date if it is not today's: ``14:32`` (UTC)."""
    return f"{at:%H:%M}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M}"
