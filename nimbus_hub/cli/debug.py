"""``nimbus debug``: the gang of slots that is held for one run after another."""

from __future__ import annotations

from typing import Any

import click

from nimbus_hub.cli.command import Command, Group, connect, json_option
from nimbus_hub.cli.output import moment_text, print_json, print_table, say
from nimbus_hub.client import Client, Gang
from nimbus_hub.client.explain import hosts_text, waiting_text
from nimbus_hub.client.gangs import (
    bring_up,
    gang_lines,
    gang_request,
    own_gang,
    roles_text,
    until_text,
)
from nimbus_hub.client.run_options import run_values
from nimbus_hub.client.run_parameters import gang_parameters
from nimbus_hub.errors import InvalidRequest

__all__ = ["debug"]

_COLUMNS = (
    "GANG", "SESSION", "STATE", "HOLDS", "FRAMEWORK", "HOSTS", "ENDS", "LATEST END", "RUNS",
    "REASON",
)  # fmt: skip

_gang_argument = click.argument("gang_id", metavar="[GANG]", required=False)


@click.group("debug", cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def debug(ctx: click.Context, as_json: bool) -> None:
    """Hold a gang of slots that runs start on at once; without a command: status.

    nimbus run in the same session then runs on it. GANG is the id of its lease; left out, the
    session's gang is meant, or else your only one.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(status, as_json=as_json)
    elif as_json:
        raise InvalidRequest(
            f"--json goes after the command: debug {ctx.invoked_subcommand} --json"
        )


@debug.command("start", cls=Command, params=list(gang_parameters()))
@click.option("--detach", is_flag=True, help="Return at once; nimbus debug tells when it is ready.")
@json_option
@click.pass_context
def start(
    ctx: click.Context, /, wait: str | None, detach: bool, as_json: bool, **values: Any
) -> None:
    """Ask for a gang and wait until it is ready; Ctrl-C gives it back."""
    request = gang_request(run_values(values), wait)
    client = connect(ctx)
    if detach:
        gang = client.request_gang(request)
    else:
        gang = bring_up(client, request, lambda text: None if as_json else say(text))
    if as_json:
        print_json(gang)
        return
    click.echo(gang.lease.id)
    say("\n  ".join(gang_lines(gang)))
    say(
        "  nimbus run train.py   runs on it\n"
        "  nimbus debug renew    keeps it longer\n"
        "  nimbus debug stop     gives it back"
    )


@debug.command("status", cls=Command)
@_gang_argument
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool, gang_id: str | None = None) -> None:
    """Show a gang: how it is, what it holds, and until when."""
    gang = _chosen(connect(ctx), gang_id)
    print_json(gang) if as_json else click.echo("\n  ".join(gang_lines(gang)))


@debug.command("list", cls=Command)
@click.option("-a", "--all", "is_all", is_flag=True, help="Those that ended, too.")
@json_option
@click.pass_context
def list_gangs(ctx: click.Context, is_all: bool, as_json: bool) -> None:
    """List your gangs, newest first."""
    gangs = connect(ctx).gangs(state="all" if is_all else "live")
    if as_json:
        print_json(gangs)
        return
    print_table(_COLUMNS, map(_row, gangs), "no gangs; nimbus debug list -a lists those that ended")


@debug.command("renew", cls=Command)
@click.argument("duration", required=False)
@click.option("--gang", "gang_id", metavar="GANG", help="Another gang than the session's.")
@json_option
@click.pass_context
def renew(ctx: click.Context, duration: str | None, gang_id: str | None, as_json: bool) -> None:
    """Move the end to DURATION from now: 30m, 1h; without it, by the hub's step."""
    client = connect(ctx)
    lease = client.renew(_chosen(client, gang_id).lease.id, duration)
    print_json(lease) if as_json else click.echo(f"debug gang {lease.id} {until_text(lease)}")


@debug.command("stop", cls=Command)
@_gang_argument
@click.option("--reason", default="", help="A sentence that is kept with the gang.")
@json_option
@click.pass_context
def stop(ctx: click.Context, gang_id: str | None, reason: str, as_json: bool) -> None:
    """Give a gang back: what runs on it is stopped."""
    client = connect(ctx)
    lease = client.release(_chosen(client, gang_id).lease.id, reason)
    print_json(lease) if as_json else click.echo(f"debug gang {lease.id} is given back")


def _chosen(client: Client, gang_id: str | None) -> Gang:
    return client.gang(gang_id) if gang_id else own_gang(client)


def _row(gang: Gang) -> tuple[object, ...]:
    lease = gang.lease
    return (
        lease.id,
        lease.parent or "",
        gang.state,
        roles_text(lease.groups),
        gang.framework,
        hosts_text(slot.host for slot in lease.slots),
        moment_text(lease.ended_at or lease.expires_at),
        moment_text(lease.latest_end),
        gang.runs,
        waiting_text(lease) if gang.state == "queued" else gang.reason,
    )
