"""Heartbeats: signs of life of the service, by which it knows later that it was away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["Heartbeat"]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life: when, and how long after which start of the machine, time asleep included.

    ``boot`` is empty where nothing tells one start of the machine from another.
    """

    at: datetime
    boot: str = ""
    uptime_seconds: float = 0.0
