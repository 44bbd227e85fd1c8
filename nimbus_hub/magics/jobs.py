"""``%nimbus_jobs``, ``%nimbus_logs`` and ``%nimbus_stop``."""

from __future__ import annotations

import click

from nimbus_hub.client import resources
from nimbus_hub.client.lines import Lines
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.magics.follow import follow
from nimbus_hub.magics.job import Job
from nimbus_hub.magics.render import first_line, headline
from nimbus_hub.magics.session import Call
from nimbus_hub.magics.table import table

__all__ = ["jobs", "logs", "stop"]

_COLUMNS = ("id", "name", "state", "reason", "framework", "replicas", "created", "ended")


@click.command("%nimbus_jobs")
@click.option("-a", "--all", "is_all", is_flag=True, help="Ended jobs, too.")
@click.pass_obj
def jobs(call: Call, is_all: bool) -> object:
    """List your jobs, newest first: as a DataFrame when pandas is installed."""
    found = call.session.client.jobs(state="all" if is_all else "live")
    return table(_COLUMNS, [_row(job) for job in found])


@click.command("%nimbus_logs")
@click.argument("job", default="")
@click.option("--replica", metavar="NAME", help="Only this replica, like worker-0.")
@click.option("--tail", type=click.IntRange(min=1), help="Only the last lines of each replica.")
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Go on until the job ends.")
@click.pass_obj
def logs(call: Call, job: str, replica: str | None, tail: int | None, is_followed: bool) -> None:
    """Print the output of a job's replicas.

    JOB is an id, a name or a variable that holds a job; without it, the last job is meant.
    Interrupting --follow leaves the job alone.
    """
    chosen = call.session.job(job)
    _require_replica(chosen, replica)
    if is_followed:
        follow(call, chosen, replica, tail)
        return
    items = tuple(call.session.client.whole_logs(chosen.id, replica=replica, tail=tail))
    lines = Lines(has_names=len({item.replica for item in items}) > 1)
    for item in items:
        call.write(lines.add(item))
    call.write(lines.rest())
    if not items:
        call.write(f"{headline(chosen.refresh().known)} It has written nothing yet.\n")


@click.command("%nimbus_stop")
@click.argument("job", default="")
@click.pass_obj
def stop(call: Call, job: str) -> None:
    """Stop a job.

    JOB is an id, a name or a variable that holds a job; without it, the last job is meant.
    """
    chosen = call.session.job(job).stop("Stopped from the notebook.")
    call.write(f"{headline(chosen.known)}\n")


def _require_replica(job: Job, replica: str | None) -> None:
    names = [each.name for each in job.replicas]
    if replica is not None and names and replica not in names:
        raise InvalidRequest(
            f"job {job.id} has no replica {replica}: it has {', '.join(names[:10])}"
        )


def _row(job: resources.Job) -> tuple[object, ...]:
    created, ended = (
        moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else None
        for moment in (job.created_at, job.ended_at)
    )
    replicas, reason = len(job.replicas), first_line(job.reason)
    return (job.id, job.name, job.state, reason, job.framework, replicas, created, ended)
