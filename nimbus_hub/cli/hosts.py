"""``nimbus hosts``: what there is and what of it is free; adding, checking and draining one."""

from __future__ import annotations

from contextlib import suppress

import click

from nimbus_hub.cli.command import Command, Group, connect, json_option
from nimbus_hub.cli.output import print_json, print_table, say
from nimbus_hub.client import Gpu, Host, HostCheck
from nimbus_hub.errors import Conflict, InvalidRequest
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.quantities import format_cpus, format_memory

__all__ = ["hosts"]

_COLUMNS = ("HOST", "STATE", "FREE CPUS", "FREE MEMORY", "FREE GPUS", "DATACENTER", "RACK")
_CHECK_COLUMNS = ("HOST", "CHECK", "", "FOUND", "REMEDY")


@click.group("hosts", cls=Group, invoke_without_command=True)
@click.option("-v", "--verbose", is_flag=True, help="Labels, too.")
@json_option
@click.pass_context
def hosts(ctx: click.Context, verbose: bool, as_json: bool) -> None:
    """List the hosts and what of them is free; with a command: add, check or drain one."""
    if ctx.invoked_subcommand is None:
        _list(ctx, verbose, as_json)
    elif verbose or as_json:
        raise InvalidRequest(
            f"options go after the command: hosts {ctx.invoked_subcommand} --json HOST"
        )


@hosts.command("check", cls=Command)
@click.argument("names", metavar="[HOST]...", nargs=-1)
@json_option
@click.pass_context
def check(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Look what works on hosts and what is missing, with remedies.

    Without names on all that have something to check. Exits with 1 if something is missing.
    """
    client = connect(ctx)
    found: dict[str, tuple[HostCheck, ...]] = {}
    for name in names or [host.name for host in client.hosts()]:
        with suppress(*([] if names else [Conflict])):
            found[name] = client.check_host(name)
    if as_json:
        print_json(found)
    else:
        rows = [_check_row(name, each) for name, own in found.items() for each in own]
        print_table(_CHECK_COLUMNS, rows, "no hosts with anything to check")
    if not all(each.is_ok for own in found.values() for each in own):
        ctx.exit(1)


@hosts.command("add", cls=Command)
@click.argument("name", metavar="HOST")
@click.argument("endpoint")
@click.option(
    "--tls", default="", metavar="DIR", help="Its certificates, on the service's machine."
)
@click.option("--address", metavar="IP", help="Where other hosts reach it.  [default: ENDPOINT's]")
@click.option("--network", help="bridge, host or the name of an overlay.  [default: bridge]")
@click.option("--subnet", help="Addresses of the network, if it is to be made.")
@click.option("--datacenter", help="Where it stands.")
@click.option("--rack", help="Where it stands there.")
@click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="May be repeated.")
@click.option("--write", is_flag=True, help="Write it into the cluster file if nothing is missing.")
@json_option
@click.pass_context
def add(
    ctx: click.Context,
    /,
    name: str,
    endpoint: str,
    labels: tuple[str, ...],
    write: bool,
    as_json: bool,
    **given: str | None,
) -> None:
    """Look what works on a Docker engine that is no host yet, and say how to make it one.

    ENDPOINT is where the service reaches it, like tcp://10.0.0.5:2376, ssh://user@gpu-1 or
    unix:///var/run/docker.sock. Prints what works, what is missing with remedies, and the lines
    for the cluster file. Exits with 1 if something is missing.
    """
    known = {key: value for key, value in given.items() if value}
    engine = Engine(name, endpoint, labels=_read_labels(labels), **known)
    client = connect(ctx)
    found = client.check_engine(engine)
    is_ok = all(each.is_ok for each in found.items)
    if as_json:
        print_json(found)
    else:
        print_table(_CHECK_COLUMNS, [_check_row(name, each) for each in found.items], "no checks")
        click.echo()
        click.echo(found.lines, nl=False)
        where = found.file or "a file that c.NimbusHub.cluster_file of the service names"
        say(f"These lines go into {where}; below its engines, if it has some.")
    if write and is_ok:
        client.add_engine(engine)
        say(f"They are written there: {name} is a host within seconds, see: nimbus hosts")
    elif write:
        say("Nothing was written, as something is missing.")
    if not is_ok:
        ctx.exit(1)


@hosts.command("drain", cls=Command)
@click.argument("name", metavar="HOST")
@click.option("--reason", default="", metavar="TEXT", help="Why; shown with the host.")
@json_option
@click.pass_context
def drain(ctx: click.Context, name: str, reason: str, as_json: bool) -> None:
    """Have a host take nothing new; what runs there runs to its end."""
    found = connect(ctx).drain(name, reason)
    print_json(found) if as_json else click.echo(_told(found))


@hosts.command("undrain", cls=Command)
@click.argument("name", metavar="HOST")
@json_option
@click.pass_context
def undrain(ctx: click.Context, name: str, as_json: bool) -> None:
    """Let a drained host take new slots again."""
    found = connect(ctx).undrain(name)
    print_json(found) if as_json else click.echo(_told(found))


def _list(ctx: click.Context, verbose: bool, as_json: bool) -> None:
    found = connect(ctx).host_list()
    if found.cluster_file_error:
        say(
            f"The cluster file is refused, what it said before holds on: {found.cluster_file_error}"
        )
    if as_json:
        print_json(found.items)
        return
    columns = [*_COLUMNS, *(["LABELS"] if verbose else [])]
    has_reasons = any(host.state_reason for host in found.items)
    rows = [
        (*_row(host), *([_labels_text(host)] if verbose else []), *_reason(host, has_reasons))
        for host in found.items
    ]
    print_table([*columns, *(["REASON"] if has_reasons else [])], rows, "no hosts")


def _read_labels(given: tuple[str, ...]) -> dict[str, str]:
    """Return labels by name; raise InvalidRequest for one without a name or a value."""
    pairs = [(text, *text.partition("=")) for text in given]
    for text, name, mark, _ in pairs:
        if not name or not mark:
            raise InvalidRequest(f"a label must be NAME=VALUE, got {text!r}")
    return {name: value for _, name, _, value in pairs}


def _check_row(host: str, found: HostCheck) -> tuple[str, ...]:
    return host, found.name, "ok" if found.is_ok else "MISSING", found.text, found.remedy


def _row(host: Host) -> tuple[str, ...]:
    return (
        host.name,
        host.state,
        f"{format_cpus(host.cpus_free_milli)} of {format_cpus(host.cpus_milli)}",
        f"{format_memory(host.memory_free_bytes)} of {format_memory(host.memory_bytes)}",
        _gpus_text(host.gpus),
        host.datacenter,
        host.rack,
    )


def _reason(host: Host, is_shown: bool) -> list[str]:
    return [host.state_reason] if is_shown else []


def _gpus_text(devices: tuple[Gpu, ...]) -> str:
    """Write the devices by model, shares counted: ``2.5 of 4 A100``."""
    totals: dict[str, int] = {}
    free: dict[str, int] = {}
    for gpu in devices:
        totals[gpu.model] = totals.get(gpu.model, 0) + 1
        free[gpu.model] = free.get(gpu.model, 0) + gpu.free_milli
    return ", ".join(f"{format_cpus(free[model])} of {n} {model}" for model, n in totals.items())


def _labels_text(host: Host) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(host.labels.items()))


def _told(host: Host) -> str:
    """Write what a host is now: ``gpu-1 draining: drained by root: new fans``."""
    return f"{host.name} {host.state}" + (f": {host.state_reason}" if host.state_reason else "")
