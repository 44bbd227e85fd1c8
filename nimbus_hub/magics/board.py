"""``%nimbus_tensorboard``: which directory to show, and when there is something in it."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import click

from nimbus_hub.client import resources
from nimbus_hub.errors import InvalidRequest, NotFound
from nimbus_hub.magics.job import Job
from nimbus_hub.magics.render import headline, title
from nimbus_hub.magics.screen import show
from nimbus_hub.magics.session import Call

__all__ = ["tensorboard"]

_START_SECONDS = 60.0
_LOOKS = 30
_LOOK_SECONDS = 0.5


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
    log_dir = _log_dir_of(call, job)
    _wait_for_data(job, log_dir)
    if not log_dir.is_dir():
        raise InvalidRequest(
            f"job {title(job.known)} has no directory {log_dir} on this machine: "
            "write to NIMBUS_LOG_DIR in the job"
        )
    return log_dir


def _log_dir_of(call: Call, job: Job) -> Path:
    """Return a job's log directory; wait a while for a job that is about to start."""
    job.refresh()
    if not _has_started(job.known):
        call.write(f"{headline(job.known)} Waiting for its start.\n")
        job.wait_until(_has_started, _START_SECONDS)
    if job.known.log_dir is None:
        when = "" if job.known.is_ended else " yet, try again later"
        raise InvalidRequest(f"there are no logs to show{when}. {headline(job.known)}")
    return Path(job.known.log_dir)


def _has_started(job: resources.Job) -> bool:
    return job.log_dir is not None or job.is_ended


def _wait_for_data(job: Job, log_dir: Path) -> None:
    """Give a running job a moment to write: TensorBoard opened on nothing stays empty."""
    never = Event()
    for _ in range(_LOOKS):
        if any(log_dir.rglob("*tfevents*")) or job.is_ended:
            return
        never.wait(_LOOK_SECONDS)
