"""What people are told of waiting and of plans: the same words everywhere.

Terminals and notebooks show times in the reader's zone, pages that the hub renders in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from nimbus_hub.client.resources import Job, Lease, Plan, PlanHost, Site
from nimbus_hub.clock import SystemClock
from nimbus_hub.model.quantities import format_duration, format_gpus, format_memory

__all__ = [
    "aligned",
    "count_text",
    "detail_text",
    "framework_text",
    "hosts_text",
    "local_moment",
    "plan_text",
    "role_count",
    "starts_text",
    "utc_moment",
    "waiting_text",
]

Moment = Callable[[datetime], str]


def local_moment(moment: datetime, now: datetime | None = None) -> str:
    """Write a time in the reader's zone: ``14:32`` today, ``Jan 02 14:32`` on other days."""
    local = moment.astimezone()
    today = (now or SystemClock().now()).astimezone().date()
    return f"{local:%H:%M}" if local.date() == today else f"{local:%b %d %H:%M}"


def utc_moment(moment: datetime, now: datetime | None = None) -> str:
    """Write a time as everybody reads it: ``14:32 UTC``, with the day if it is another."""
    there = moment.astimezone(UTC)
    today = (now or SystemClock().now()).astimezone(UTC).date()
    return f"{there:%H:%M} UTC" if there.date() == today else f"{there:%b %d %H:%M} UTC"


def starts_text(starts_by: datetime, moment: Moment = local_moment) -> str:
    """Write the scheduler's promise: ``starts at the latest 14:32``."""
    return f"starts at the latest {moment(starts_by)}"


def waiting_text(waiting: Lease | Job | Plan, moment: Moment = local_moment) -> str:
    """Write why something waits, and since what bound it does not.

    ``position 2: waits for 4 more A100; starts at the latest 14:32; what others did to it``.
    """
    position = f"position {waiting.position}" if waiting.position is not None else ""
    parts = [": ".join(filter(None, [position, waiting.reason.rstrip(".")]))]
    if waiting.starts_by is not None:
        parts.append(starts_text(waiting.starts_by, moment))
    if not isinstance(waiting, Plan):
        parts.append(waiting.note.rstrip("."))
    return "; ".join(filter(None, parts))


def detail_text(waiting: str) -> str:
    """Write why something waits, or another reason, behind a state."""
    if not waiting:
        return ""
    return f", {waiting}" if waiting.startswith("position ") else f": {waiting}"


def plan_text(plan: Plan) -> str:
    """Write what would happen: when and why, where, and which datacenters were weighed."""
    return "\n".join(
        [
            _headline(plan),
            *(f"  {line}" for line in (framework_text(plan), plan.placement) if line),
            *_preemptions(plan),
            *_part("Datacenters weighed:", _sites(plan.sites)),
            *_part(_racks(plan.hosts), _hosts(plan.hosts)),
        ]
    )


def framework_text(chosen: Job | Plan) -> str:
    """Write why a framework was chosen that nobody named: ``framework X: train.py imports x``."""
    if not chosen.framework_reason:
        return ""
    return f"framework {chosen.framework}: {chosen.framework_reason}"


def hosts_text(hosts: Iterable[str]) -> str:
    """Write hosts with how often each is meant: ``node1 (2), node2``."""
    counts: dict[str, int] = {}
    for host in hosts:
        counts[host] = counts.get(host, 0) + 1
    return ", ".join(f"{host} ({n})" if n > 1 else host for host, n in counts.items() if host)


def count_text(number: int | str, noun: str) -> str:
    """Write ``1 GPU``, ``2 GPUs``."""
    return f"{number} {noun}" if str(number) == "1" else f"{number} {noun}s"


def role_count(number: int, role: str) -> str:
    """Write ``1 worker``, ``2 workers``; the plural of ps is ps."""
    return f"{number} ps" if role == "ps" else count_text(number, role)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _headline(plan: Plan) -> str:
    if not plan.would_wait:
        return f"would start now on {hosts_text(slot.host for slot in plan.slots)}"
    code = f" ({plan.reason_code})" if plan.reason_code else ""
    return f"would wait{code}{detail_text(waiting_text(plan))}"


def _preemptions(plan: Plan) -> list[str]:
    if not plan.preemptions:
        return []
    named = f": {', '.join(plan.preempted_lease_ids)}" if plan.preempted_lease_ids else ""
    return [f"  {count_text(plan.preemptions, 'preemptible lease')} would be stopped for it{named}"]


def _sites(sites: Sequence[Site]) -> list[tuple[str, ...]]:
    if not sites:
        return []
    rows = [
        (
            f"* {site.datacenter}" if site.is_chosen else f"  {site.datacenter}",
            format_memory(site.bytes_to_move),
            format_duration(timedelta(seconds=site.transfer_seconds)),
            _wait(site.wait_seconds),
            site.reason or ("least in all" if site.is_chosen else ""),
        )
        for site in sorted(sites, key=lambda site: not site.is_chosen)
    ]
    return [("  datacenter", "to move", "transfer", "wait", "why"), *rows]


def _wait(seconds: float | None) -> str:
    return "unknown" if seconds is None else format_duration(timedelta(seconds=seconds))


def _racks(hosts: Sequence[PlanHost]) -> str:
    racks = {(host.datacenter, host.rack) for host in hosts}
    where = ", ".join(sorted({host.datacenter for host in hosts}))
    return f"{count_text(len(hosts), 'host')} in {count_text(len(racks), 'rack')} of {where}:"


def _hosts(hosts: Sequence[PlanHost]) -> list[tuple[str, ...]]:
    if not hosts:
        return []
    rows = [
        (
            f"  {host.name}",
            host.rack,
            str(len(host.slots)),
            format_gpus(1, host.gpus_milli),
            _ranges(host.slots),
        )
        for host in hosts
    ]
    return [("  host", "rack", "slots", "GPUs", "which"), *rows]


def _ranges(names: Sequence[str]) -> str:
    """Write slots, those that follow each other as one: ``ps-0, worker-0..3``."""
    runs: list[tuple[str, int, int]] = []
    for name in names:
        role, _, number = name.rpartition("-")
        index = int(number)
        if runs and runs[-1][0] == role and runs[-1][2] == index - 1:
            runs[-1] = (role, runs[-1][1], index)
        else:
            runs.append((role, index, index))
    return ", ".join(
        f"{role}-{first}" if first == last else f"{role}-{first}..{last}"
        for role, first, last in runs
    )


def _part(title: str, rows: Sequence[Sequence[str]]) -> list[str]:
    return [title, *aligned(rows)] if rows else []
