"""``nimbus files``: what a job has written, listed or brought here."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nimbus_hub.cli.command import Command, connect, json_option
from nimbus_hub.cli.output import moment_text, print_json, print_table, say
from nimbus_hub.client import Client, FileList
from nimbus_hub.model.quantities import format_memory
from nimbus_hub.model.text import one_line

__all__ = ["files"]

_COLUMNS = ("PATH", "SIZE", "CHANGED", "HOST")
_LONG_BYTES = 5 * 2**20


@click.command("files", cls=Command)
@click.argument("job_id", metavar="JOB")
@click.argument("path", default="")
@click.option("--to", "target", metavar="DIR", help="Copy them there, . for here.")
@click.option("--replica", metavar="NAME", help="Those on the host of this one, like worker-1.")
@json_option
@click.pass_context
def files(
    ctx: click.Context,
    job_id: str,
    path: str,
    target: str | None,
    replica: str | None,
    as_json: bool,
) -> None:
    """List what a job has written, or with --to copy it, also after its end.

    PATH is a file or directory like output/model.json, logs or checkpoints; one that begins
    with none of these three is in output. Without it all files are meant.
    """
    client = connect(ctx)
    found = client.files(job_id, path, replica)
    if target is None:
        _show(found, as_json=as_json)
        return
    place = Path(target)
    place.mkdir(parents=True, exist_ok=True)
    size = sum(file.size_bytes for file in found.items)
    copied = _download(client, job_id, path, place, replica, size, is_quiet=as_json)
    if as_json:
        print_json({"path": str(copied), "files": found.items})
    else:
        click.echo(copied)


def _show(found: FileList, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one_line(file.path),
            format_memory(file.size_bytes),
            moment_text(file.changed_at),
            file.host,
        )
        for file in found.items
    ]
    print_table(_COLUMNS, rows, "the job has written no files yet")
    if not found.is_whole:
        say("there are more; name a directory to see what is in it")


def _download(
    client: Client,
    job_id: str,
    path: str,
    place: Path,
    replica: str | None,
    size: int,
    *,
    is_quiet: bool,
) -> Path:
    """Copy, with a bar if that takes long enough to see one."""
    if is_quiet or size < _LONG_BYTES or not sys.stderr.isatty():
        return client.download(job_id, path, place, replica=replica)
    # Imported here, for rich takes as long as all the rest of the start.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"copying {format_memory(size)}", total=size)
        return client.download(
            job_id,
            path,
            place,
            replica=replica,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
