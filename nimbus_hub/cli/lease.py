"""``nimbus lease``: the right to hold resources, how long it lasts, and giving it back."""

from __future__ import annotations

import sys

import click

from nimbus_hub.cli.command import Command, Group, connect, json_option
from nimbus_hub.cli.output import (
    ends_text,
    lease_text,
    moment_text,
    print_json,
    print_table,
)
from nimbus_hub.client import Client, session_lease_id
from nimbus_hub.client.explain import hosts_text, waiting_text
from nimbus_hub.client.gangs import gang_lines
from nimbus_hub.errors import InvalidRequest

__all__ = ["lease"]

_COLUMNS = ("ID", "KIND", "NAME", "SESSION", "STATE", "HOSTS", "ENDS", "LATEST END", "REASON")


@click.group("lease", cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def lease(ctx: click.Context, as_json: bool) -> None:
    """Show, renew and release leases; without a command: show.

    LEASE is the session's own lease if it is left out, or else your only session's.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(show, as_json=as_json)
    elif as_json:
        raise InvalidRequest(
            f"--json goes after the command: lease {ctx.invoked_subcommand} --json"
        )


@lease.command("list", cls=Command)
@click.option("-a", "--all", "is_all", is_flag=True, help="Those that ended, too.")
@json_option
@click.pass_context
def list_leases(ctx: click.Context, is_all: bool, as_json: bool) -> None:
    """List your leases: of sessions, of their debug gangs, and of jobs."""
    leases = connect(ctx).leases(state="all" if is_all else "live")
    if as_json:
        print_json(leases)
        return
    rows = [
        (
            each.id,
            each.kind,
            each.name,
            each.parent or "",
            each.state,
            hosts_text(slot.host for slot in each.slots),
            moment_text(each.ended_at or each.expires_at),
            moment_text(each.renewable_until),
            waiting_text(each),
        )
        for each in leases
    ]
    print_table(_COLUMNS, rows, "no leases; nimbus lease list -a lists those that ended")


@lease.command("show", cls=Command)
@click.argument("lease_id", metavar="[LEASE]", required=False)
@json_option
@click.pass_context
def show(ctx: click.Context, as_json: bool, lease_id: str | None = None) -> None:
    """Show what a lease holds and when it ends; of a session its debug gang, too."""
    client = connect(ctx)
    found = client.lease(lease_id or own_lease(client))
    if as_json:
        print_json(found)
        return
    click.echo(lease_text(found))
    for gang in client.gangs(session=found.id) if found.kind == "session" else ():
        click.echo("\n  ".join(gang_lines(gang)))


@lease.command("renew", cls=Command)
@click.argument("duration", required=False)
@click.option("--lease", "lease_id", metavar="LEASE", help="Another lease than the session's.")
@json_option
@click.pass_context
def renew(ctx: click.Context, duration: str | None, lease_id: str | None, as_json: bool) -> None:
    """Move the end to DURATION from now: 90m, 2h; without it, by the hub's step."""
    client = connect(ctx)
    found = client.renew(lease_id or own_lease(client), duration)
    print_json(found) if as_json else click.echo(f"lease {found.id} now {ends_text(found)}")


@lease.command("release", cls=Command)
@click.argument("lease_id", metavar="[LEASE]", required=False)
@click.option("--reason", default="", help="A sentence that is kept with the lease.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def release(
    ctx: click.Context, lease_id: str | None, reason: str, yes: bool, as_json: bool
) -> None:
    """Give a lease back: what runs on it is stopped."""
    client = connect(ctx)
    chosen = lease_id or own_lease(client)
    is_asking = sys.stdin.isatty() and not (yes or as_json)
    if is_asking and not click.confirm(f"Stop what runs on lease {chosen}?", err=True):
        return
    found = client.release(chosen, reason)
    print_json(found) if as_json else click.echo(lease_text(found))


def own_lease(client: Client) -> str:
    """Return the lease of this session, or of the caller's only one."""
    here = session_lease_id()
    if here is not None:
        return here
    leases = client.leases(state="live", kind="session")
    if len(leases) == 1:
        return leases[0].id
    if not leases:
        raise InvalidRequest("you have no session; name a lease of nimbus lease list")
    named = ", ".join(each.id for each in leases)
    raise InvalidRequest(f"you have several sessions; name the lease of one: {named}")
