"""``nimbus queue`` and ``nimbus explain``: who waits for what, why, and until when."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import click

from nimbus_hub.cli.command import Command, connect, json_option
from nimbus_hub.cli.output import moment_text, print_json, print_table, wish_text
from nimbus_hub.client import Client, Job, Lease
from nimbus_hub.client.explain import aligned, hosts_text, local_moment, starts_text
from nimbus_hub.errors import NotFound

__all__ = ["explain", "queue", "table_lines"]

_COLUMNS = (
    "POSITION", "LEASE", "FOR", "OWNER", "ASKS FOR", "QUEUE", "SINCE", "AT THE LATEST", "REASON",
)  # fmt: skip


@click.command("queue", cls=Command)
@json_option
@click.pass_context
def queue(ctx: click.Context, as_json: bool) -> None:
    """List what waits, why, and until when.

    By position. AT THE LATEST is a promise where there is one, QUEUE has the priority behind
    it, REASON begins with its code. Administrators see what everybody waits for, others what
    they wait for themselves; positions count everybody's.
    """
    leases = connect(ctx).queue()
    if as_json:
        print_json(leases)
        return
    rows = [_row(lease) for lease in leases]
    if rows and sys.stdout.isatty():
        click.echo("\n".join(table_lines(rows)))
    else:
        print_table(_COLUMNS, rows, "nothing waits")


def table_lines(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the table for a terminal, which is too narrow for a sentence beside the rest."""
    heading, *lines = aligned([_COLUMNS[:-1], *(row[:-1] for row in rows)])
    told = zip(lines, (row[-1] for row in rows), strict=True)
    return [
        click.style(heading, bold=True),
        *(text for line, why in told for text in (line, f"    {why}") if text.strip()),
    ]


def _row(lease: Lease) -> tuple[str, ...]:
    why = ": ".join(filter(None, [lease.reason_code, lease.reason]))
    return (
        "" if lease.position is None else str(lease.position),
        lease.id,
        f"{lease.kind} {lease.name}".rstrip(),
        lease.owner,
        wish_text(lease.groups),
        _queue_text(lease),
        moment_text(lease.created_at, lease.now),
        moment_text(lease.starts_by, lease.now),
        "; ".join(filter(None, [why, lease.note])),
    )


def _queue_text(lease: Lease) -> str:
    """Write the queue and what is asked beside it: ``default +5, preemptible``."""
    priority = f" {lease.priority:+}" if lease.priority else ""
    return f"{lease.queue}{priority}" + (", preemptible" if lease.is_preemptible else "")


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a lease, or the job it is for, is where it is."""

    id: str
    lease_id: str
    state: str
    queue: str
    priority: int
    waiting_since: datetime | None
    position: int | None
    reason_code: str
    reason: str
    starts_by: datetime | None
    note: str
    placement: str


@click.command("explain", cls=Command)
@click.argument("identity", metavar="ID")
@json_option
@click.pass_context
def explain(ctx: click.Context, identity: str, as_json: bool) -> None:
    """Say why a job or lease waits, or why it is where it is.

    ID is that of a job or of a lease. Of one that waits: its position, since when, the reason
    and its code, and when it starts at the latest.
    """
    client = connect(ctx)
    job, lease = _found(client, identity)
    explanation = _explained(job, lease)
    if as_json:
        print_json(explanation)
        return
    click.echo("\n  ".join(_lines(explanation, lease)))


def _found(client: Client, identity: str) -> tuple[Job | None, Lease]:
    """Return a lease, with its job if it was the job that was named."""
    try:
        job = client.job(identity)
    except NotFound:
        try:
            return None, client.lease(identity)
        except NotFound:
            raise NotFound(
                f"there is no job or lease {identity!r} of yours; nimbus ps -a and "
                "nimbus lease list -a list them"
            ) from None
    return job, client.lease(job.lease_id)


def _explained(job: Job | None, lease: Lease) -> Explanation:
    said = lease if job is None else job
    return Explanation(
        id=said.id,
        lease_id=lease.id,
        state=said.state,
        queue=lease.queue,
        priority=lease.priority,
        waiting_since=lease.created_at if lease.state == "queued" else None,
        position=lease.position,
        reason_code=lease.reason_code,
        reason=said.reason,
        starts_by=lease.starts_by,
        note=said.note,
        placement=lease.placement,
    )


def _lines(explanation: Explanation, lease: Lease) -> list[str]:
    """Return what is known, a line each; what there is nothing of is left out."""
    kind = "lease" if explanation.id == lease.id else "job"
    lines = [f"{kind} {explanation.id} is {explanation.state}"]
    since, bound = explanation.waiting_since, explanation.starts_by
    if since is not None:
        lines.append(f"position: {explanation.position or 'not decided yet'}")
        lines.append(f"queue: {_queue_text(lease)}, since {local_moment(since, lease.now)}")
        lines.append(f"asks for: {wish_text(lease.groups)}")
    code = f" ({explanation.reason_code})" if explanation.reason_code else ""
    if explanation.reason:
        lines.append(f"why: {explanation.reason}{code}")
    if bound is not None:
        lines.append(starts_text(bound, lambda moment: local_moment(moment, lease.now)))
    elif since is not None:
        lines.append("starts: no bound can be promised yet")
    hosts = "" if lease.is_ended else hosts_text(slot.host for slot in lease.slots)
    told = (("note", explanation.note), ("on", hosts), ("placement", explanation.placement))
    return lines + [f"{name}: {text}" for name, text in told if text]
