"""``%nimbus_tensorboard``: which directory to show, and when there is something in it."""

from __future__ import annotations

from pathlib import Path

import click

from nimbus_hub.client.tensorboard import log_directory
from nimbus_hub.errors import NotFound
from nimbus_hub.magics.job import Job
from nimbus_hub.magics.render import headline
from nimbus_hub.magics.screen import show
from nimbus_hub.magics.session import Call

__all__ = ["tensorboard"]

_START_SECONDS = 60.0


@click.command("%nimbus_tensorboard")
@click.argument("target", default="", metavar="[JOB|DIR]")
@click.option(
    "--height", type=click.IntRange(100, 10_000), default=800, show_default=True,
    help="Height in the notebook, in pixels.",
)  # fmt: skip
@click.pass_obj
def tensorboard(call: Call, target: str, height: int) -> None:
    """Show TensorBoard in the notebook, while the job still runs or after.

    JOB is an id, a name or a variable that holds a job; DIR is a directory of event files.
    Without either, the last job is meant. A job that has not started yet is waited for.
    """
    frame = call.session.tensorboards.show(_directory(call, target), height)
    show(frame.bundle())


def _directory(call: Call, target: str) -> Path:
    """Return the directory that is meant, with something in it if there soon will be."""
    path = Path(target).expanduser()
    is_variable = isinstance(call.session.shell.user_ns.get(target), Job)
    if target and path.is_dir() and not is_variable:
        return path
    try:
        job = call.session.job(target)
    except NotFound as error:
        raise NotFound(f"{error.message}; there is no directory {target} either") from None
    return log_directory(
        call.session.client,
        job.id,
        _START_SECONDS,
        lambda news: call.write(f"{headline(news)} Waiting for its start.\n"),
    )
