"""``nimbus hosts``, ``gpus``, ``queue``: what there is, what is free, and who waits."""

from __future__ import annotations

import click

from nimbus_hub.cli.command import Command, connect, json_option
from nimbus_hub.cli.output import moment_text, print_json, print_table, wish_text
from nimbus_hub.client import Gpu, Host
from nimbus_hub.model.quantities import format_cpus, format_memory

__all__ = ["gpus", "hosts", "queue"]


@click.command("hosts", cls=Command)
@json_option
@click.pass_context
def hosts(ctx: click.Context, as_json: bool) -> None:
    """List the hosts and what of them is free."""
    found = connect(ctx).hosts()
    if as_json:
        print_json(found)
        return
    columns = ("HOST", "STATE", "FREE CPUS", "FREE MEMORY", "FREE GPUS", "DATACENTER", "RACK")
    print_table(columns, map(_host_row, found), "no hosts")


def _host_row(host: Host) -> tuple[object, ...]:
    return (
        host.name,
        host.state,
        f"{format_cpus(host.cpus_free_milli)} of {format_cpus(host.cpus_milli)}",
        f"{format_memory(host.memory_free_bytes)} of {format_memory(host.memory_bytes)}",
        _gpus_text(host.gpus),
        host.datacenter,
        host.rack,
    )


def _gpus_text(devices: tuple[Gpu, ...]) -> str:
    """Write the devices by model: ``3 of 4 A100``."""
    models = dict.fromkeys(gpu.model for gpu in devices)
    counts = {model: [gpu for gpu in devices if gpu.model == model] for model in models}
    return ", ".join(
        f"{sum(gpu.lease_id is None for gpu in same)} of {len(same)} {model}"
        for model, same in counts.items()
    )


@click.command("gpus", cls=Command)
@json_option
@click.pass_context
def gpus(ctx: click.Context, as_json: bool) -> None:
    """List the GPUs and the leases that hold them."""
    devices = [(host.name, gpu) for host in connect(ctx).hosts() for gpu in host.gpus]
    if as_json:
        print_json([{"host": name, "gpu": gpu} for name, gpu in devices])
        return
    rows = [
        (name, gpu.index, gpu.model, format_memory(gpu.memory_bytes), gpu.lease_id or "free")
        for name, gpu in devices
    ]
    print_table(("HOST", "GPU", "MODEL", "MEMORY", "LEASE"), rows, "no GPUs")


@click.command("queue", cls=Command)
@json_option
@click.pass_context
def queue(ctx: click.Context, as_json: bool) -> None:
    """List what waits, in its order, and why."""
    leases = connect(ctx).queue()
    if as_json:
        print_json(leases)
        return
    rows = [
        (
            lease.position,
            lease.id,
            lease.kind,
            lease.name,
            lease.owner,
            wish_text(lease.groups),
            moment_text(lease.starts_by),
            lease.reason,
        )
        for lease in leases
    ]
    columns = ("POSITION", "LEASE", "KIND", "NAME", "OWNER", "ASKS FOR", "STARTS BY", "REASON")
    print_table(columns, rows, "nothing waits")
