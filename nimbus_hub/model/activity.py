"""Activity: what a session or a debug gang did last, and since when it is idle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from nimbus_hub.model.policy import LeasePolicy, Signal

__all__ = ["FRESH", "Idleness", "Report", "gang_idleness", "idle_sentence", "session_idleness"]

FRESH = timedelta(minutes=3)
"""What a session said longer ago says nothing about now."""

_RESTS = {Signal.CPU: "CPU", Signal.GPU: "GPU"}
_GANG = (Signal.JOBS, Signal.CPU, Signal.GPU)


@dataclass(frozen=True, slots=True)
class Report:
    """What a session's server measured; ``active_at`` is when each signal last showed.

    ``cpu_seconds`` and ``gpu_seconds`` are what it used since its start, ``memory_bytes``
    what it has now; ``open_documents`` are paths below its home.
    """

    received_at: datetime
    active_at: Mapping[Signal, datetime] = field(default_factory=dict)
    busy_kernels: int = 0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    memory_bytes: int = 0
    open_documents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Idleness:
    """Since when nothing of ``signals`` showed, and what comes of it if that stays so.

    ``ends_at`` is None where policy only warns.
    """

    since: datetime
    warns_at: datetime
    ends_at: datetime | None
    signals: tuple[Signal, ...]


def session_idleness(
    policy: LeasePolicy,
    report: Report | None,
    jobs_at: datetime | None,
    floor: datetime,
    now: datetime,
) -> Idleness | None:
    """Return since when a session is idle; None while that is not known, or never ends it.

    ``jobs_at`` is when a job was last attached to it, ``floor`` when it was last known to be
    wanted: idle time counts from there at the earliest. A busy kernel is work whatever policy
    counts. What was to be counted and was not measured leaves the answer open, but for GPUs,
    whose work keeps CPUs busy too.
    """
    if report is None or now - report.received_at > FRESH or report.busy_kernels:
        return None
    seen = dict(report.active_at)
    if jobs_at is not None:
        seen[Signal.JOBS] = jobs_at
    counted = [signal for signal in Signal if signal in policy.activity]
    if any(signal not in seen for signal in counted if signal not in (Signal.GPU, Signal.JOBS)):
        return None
    counted = [signal for signal in counted if signal in seen or signal is not Signal.GPU]
    return _idleness(policy, seen, counted, floor)


def gang_idleness(
    policy: LeasePolicy, seen: Mapping[Signal, datetime], floor: datetime
) -> Idleness | None:
    """Return since when a debug gang is idle: no run on it, its replicas' CPU and GPU at rest."""
    return _idleness(policy, seen, [each for each in _GANG if each in policy.activity], floor)


def idle_sentence(signals: Iterable[Signal]) -> str:
    """Return what did not happen: ``no kernel, terminal or job, CPU and GPU at rest``."""
    signals = tuple(signals)
    quiet = [each.noun for each in signals if each not in _RESTS]
    rests = [_RESTS[each] for each in signals if each in _RESTS]
    parts = [f"no {_joined(quiet, 'or')}"] if quiet else []
    parts += [f"{_joined(rests, 'and')} at rest"] if rests else []
    return ", ".join(parts)


def _idleness(
    policy: LeasePolicy,
    seen: Mapping[Signal, datetime],
    counted: Iterable[Signal],
    floor: datetime,
) -> Idleness | None:
    if policy.idle is None:
        return None
    signals = tuple(counted)
    since = max([floor, *(seen[each] for each in signals if each in seen)])
    due = since + policy.idle
    if not policy.idle_ends:
        return Idleness(since, due, None, signals)
    return Idleness(since, due - policy.idle_warning, due, signals)


def _joined(words: list[str], last: str) -> str:
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), words[-1])))
