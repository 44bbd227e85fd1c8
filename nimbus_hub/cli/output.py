"""How things are written for people: tables, times, amounts, states.

Results go to stdout, talk goes to stderr. Times are in the reader's zone.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import click

from nimbus_hub.client import Group, Job, Lease, Slot, encode
from nimbus_hub.client.explain import (
    count_text,
    detail_text,
    hosts_text,
    local_moment,
    waiting_text,
)
from nimbus_hub.client.gangs import renewable_text
from nimbus_hub.model.quantities import format_cpus, format_duration, format_gpus, format_memory

__all__ = [
    "ends_text",
    "job_ended_text",
    "lease_text",
    "moment_text",
    "print_json",
    "print_table",
    "say",
    "status_text",
    "wish_text",
]

_WIDE = 1000


def say(text: str) -> None:
    """Tell people something without mixing it into the result."""
    click.echo(text, err=True)


def print_json(value: object, *, is_line: bool = False) -> None:
    """Print a document, or one line of JSON Lines."""
    indent = None if is_line else 2
    click.echo(json.dumps(encode(value), indent=indent, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print rows under headings, or say that there are none."""
    # rich takes as long to import as the rest of a command together.
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        is_last = column == columns[-1]
        table.add_column(column, no_wrap=not is_last, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    if not table.row_count:
        say(empty)
        return
    if sys.stdout.isatty():
        Console(markup=False, highlight=False).print(table)
        return
    # Into a pipe nothing is folded: one row is one line.
    console = Console(file=io.StringIO(), width=_WIDE, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def moment_text(moment: datetime | None, now: datetime | None = None) -> str:
    """Write a time: ``14:32`` today, ``Jan 02 14:32`` on other days; nothing for none."""
    return "" if moment is None else local_moment(moment, now)


def wish_text(groups: Iterable[Group]) -> str:
    """Write what was asked for: ``2 x 1 CPU, 2G, 1 GPU A100``; of several, with their roles."""
    asked = tuple(groups)
    return "; ".join(
        (f"{group.role} " if len(asked) > 1 else "")
        + (f"{group.count} x " if group.count > 1 else "")
        + _share_text(group)
        for group in asked
    )


def _share_text(group: Group) -> str:
    parts = [count_text(format_cpus(group.cpus_milli), "CPU"), format_memory(group.memory_bytes)]
    if group.gpus:
        gpus = count_text(format_gpus(group.gpus, group.gpu_milli), "GPU")
        parts.append(" ".join(filter(None, [gpus, " or ".join(group.gpu_models)])))
    return ", ".join(parts)


def slot_text(slot: Slot) -> str:
    """Write what a slot holds: ``worker-0 on node1: 1 CPU, 2G, GPU 0,1``."""
    parts = [count_text(format_cpus(slot.cpus_milli), "CPU"), format_memory(slot.memory_bytes)]
    if slot.gpus:
        share = "" if slot.gpu_milli == 1000 else f"{format_gpus(1, slot.gpu_milli)} of "
        parts.append(f"{share}GPU {','.join(map(str, slot.gpus))}")
    return f"{slot.name} on {slot.host}: {', '.join(parts)}"


def status_text(job: Job) -> str:
    """Write where a job is: ``queued, position 2: waits for 1 GPU; starts at the latest 14:32``.

    An attempt after the first names itself.
    """
    hosts = hosts_text(replica.host for replica in job.replicas)
    text = job.state
    if hosts and job.state in ("starting", "running"):
        text += f" on {hosts}"
    if job.attempt > 1 and not job.is_ended:
        text += f", attempt {job.attempt} of {job.attempts}"
    return text + detail_text(waiting_text(job))


def job_ended_text(job: Job) -> str:
    """Write how a job ended."""
    return f"job {job.id} {job.state}" + (f": {job.reason}" if job.reason else "")


def lease_text(lease: Lease) -> str:
    """Write a lease in a few lines: state, end, what it holds."""
    title = f"lease {lease.id}" + (f" ({lease.name})" if lease.name else "") + f" {lease.state}"
    lines = [title + detail_text(waiting_text(lease))]
    if lease.parent:
        lines.append(f"debug gang of session {lease.parent}")
    if lease.placement:
        lines.append(lease.placement)
    if lease.expires_at and not lease.is_ended:
        lines.append(ends_text(lease))
    lines.extend(slot_text(slot) for slot in lease.slots)
    if not lease.slots:
        lines.append(f"asked for {wish_text(lease.groups)}")
    return "\n  ".join(lines)


def ends_text(lease: Lease) -> str:
    """Write when a lease ends, and until when it may be renewed."""
    if lease.expires_at is None:
        return f"lasts {format_duration(timedelta(seconds=lease.length_seconds))} once it starts"
    left = format_duration(max(timedelta(0), lease.expires_at - lease.now))
    return f"ends {moment_text(lease.expires_at, lease.now)} (in {left}), {renewable_text(lease)}"
