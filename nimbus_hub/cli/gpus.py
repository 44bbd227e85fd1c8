"""``nimbus gpus``: how many there are, what is free, and who holds the rest."""

from __future__ import annotations

import click

from nimbus_hub.cli.command import Command, connect, json_option
from nimbus_hub.cli.output import print_json, print_table
from nimbus_hub.client import GpuPool
from nimbus_hub.model.quantities import format_gpus

__all__ = ["gpus"]

_COLUMNS = ("MODEL", "DATACENTER", "FREE", "SHARES FREE", "AWAY", "HELD BY")


@click.command("gpus", cls=Command)
@json_option
@click.pass_context
def gpus(ctx: click.Context, as_json: bool) -> None:
    """List the GPUs, what is free and who holds the rest.

    By model and datacenter. SHARES FREE is what is left of devices that are shared. AWAY are
    on hosts that are down or draining. Other users' names are shown to administrators only.
    """
    pools = connect(ctx).gpus()
    if as_json:
        print_json(pools)
        return
    print_table(_COLUMNS, map(_row, pools), "no GPUs")


def _row(pool: GpuPool) -> tuple[object, ...]:
    shares = f"{format_gpus(1, pool.shared_free_milli)} on {pool.shared}" if pool.shared else ""
    holders = ", ".join(
        f"{holder.owner or 'others'} {format_gpus(1, holder.gpus_milli)}" for holder in pool.holders
    )
    free = f"{pool.free} of {pool.total}"
    return pool.model, pool.datacenter, free, shares, pool.away or "", holders
