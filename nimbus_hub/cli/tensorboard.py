"""``nimbus-tensorboard``: the curves of a job, seen through the session's proxy."""

from __future__ import annotations

from pathlib import Path

import click

from nimbus_hub.cli.command import Command, connect, json_option
from nimbus_hub.cli.output import print_json, say, status_text
from nimbus_hub.client.tensorboard import TensorBoard, log_directory
from nimbus_hub.errors import NotFound

__all__ = ["main", "tensorboard"]


@click.command("tensorboard", cls=Command)
@click.argument("source", metavar="JOB|DIR")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to use.  [default: a free one]")
@json_option
@click.pass_context
def tensorboard(ctx: click.Context, source: str, port: int | None, as_json: bool) -> None:
    """Show the curves of a job, or of a directory, in TensorBoard until Ctrl-C."""
    directory = _directory(ctx, source)
    board = TensorBoard.start(directory, port or 0)
    try:
        if as_json:
            print_json({"url": board.url, "port": board.port, "directory": str(directory)})
        else:
            click.echo(board.url)
            say(f"TensorBoard of {directory}; Ctrl-C ends it")
        board.wait()
    finally:
        board.stop()


def _directory(ctx: click.Context, source: str) -> Path:
    if Path(source).is_dir():
        return Path(source).resolve()
    if "/" in source:
        raise NotFound(f"the directory {source!r} does not exist")
    return log_directory(connect(ctx), source, on_wait=lambda job: say(status_text(job)))


def main() -> None:
    """Run ``nimbus-tensorboard``."""
    tensorboard(prog_name="nimbus-tensorboard")
