"""``nimbus usage``: who held what, for how long, and used how much of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime

import click

from nimbus_hub.cli.command import Command, connect, json_option
from nimbus_hub.cli.output import moment_text, print_json, print_table, say
from nimbus_hub.client import UsageQuery, UsageReport, UsageRow
from nimbus_hub.clock import SystemClock
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.quantities import parse_duration

__all__ = ["usage"]

_COLUMNS = (
    "LEASES", "GPU-HOURS HELD", "GPU-HOURS BUSY", "BUSY %", "CPU-HOURS HELD", "CPU-HOURS USED",
    "GIB-HOURS HELD", "GPU MODELS",
)  # fmt: skip


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """Read a day or a time in the reader's zone, or how long ago."""
    if value is None:
        return None
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.fromisoformat(value).astimezone()
    with contextlib.suppress(InvalidRequest, OverflowError):
        return SystemClock().now() - parse_duration(value)
    raise click.BadParameter(f"must be like 7d, 2026-11-01 or 2026-11-01T14:30, got {value!r}")


@click.command("usage", cls=Command)
@click.option(
    "--since",
    callback=_moment,
    default="7d",
    show_default=True,
    metavar="WHEN",
    help="From then on: 7d ago, 2026-11-01, 2026-11-01T14:30.",
)
@click.option("--until", callback=_moment, metavar="WHEN", help="Until then, and not until now.")
@click.option(
    "--by",
    type=click.Choice(["user", "group", "kind", "day"]),
    help="What to add up by: user with --all, else day.",
)
@click.option("--all", "is_all", is_flag=True, help="Everybody's; for administrators.")
@click.option("--owner", metavar="USER", help="Another user's; for administrators.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV for spreadsheets.")
@json_option
@click.pass_context
def usage(
    ctx: click.Context,
    since: datetime,
    until: datetime | None,
    by: str | None,
    is_all: bool,
    owner: str | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show what was held and how busy it was.

    HELD is what leases had, times hours; BUSY and USED how much of it was at work. GPU MODELS
    is what was held of each. Days are UTC. Groups, like --all, are for administrators.
    """
    if as_csv and as_json:
        raise InvalidRequest("--csv and --json exclude each other")
    query = UsageQuery(since, until, by or ("user" if is_all else "day"), owner, is_all)
    client = connect(ctx)
    if as_csv:
        click.echo(client.usage_csv(query), nl=False)
        return
    report = client.usage(query)
    if as_json:
        print_json(report)
        return
    say(_title(report))
    print_table((report.by.upper(), *_COLUMNS), _rows(report), "nothing was held")


def _title(report: UsageReport) -> str:
    whose = f"of {report.owner}" if report.owner else "of everybody"
    since, until = moment_text(report.since, report.until), moment_text(report.until)
    return f"usage {whose} from {since} to {until}"


def _rows(report: UsageReport) -> Iterator[tuple[object, ...]]:
    for row in report.items:
        yield _row(row.key or "(none)", row)
    if len(report.items) > 1:
        yield _row("together", report.total)


def _row(name: str, row: UsageRow) -> tuple[object, ...]:
    models = ", ".join(f"{model} {hours:.2f}" for model, hours in row.gpu_model_hours.items())
    return (
        name,
        row.leases,
        f"{row.gpu_hours_held:.2f}",
        f"{row.gpu_hours_busy:.2f}",
        "" if row.busy_percent is None else f"{row.busy_percent:.0f}",
        f"{row.cpu_hours_held:.2f}",
        f"{row.cpu_hours_used:.2f}",
        f"{row.gib_hours_held:.2f}",
        models,
    )
