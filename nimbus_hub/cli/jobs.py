"""``nimbus ps``, ``logs``, ``stop``, ``rm``: what runs, what it says, its end and what it left."""

from __future__ import annotations

import click

from nimbus_hub.cli.command import Command, connect, json_option
from nimbus_hub.cli.following import Colours, follow_job, print_text
from nimbus_hub.cli.output import (
    job_ended_text,
    moment_text,
    print_json,
    print_table,
    say,
    status_text,
)
from nimbus_hub.client import Client, Job, Lease
from nimbus_hub.client.explain import hosts_text, waiting_text
from nimbus_hub.client.lines import Lines
from nimbus_hub.errors import InvalidRequest

__all__ = ["logs", "ps", "rm", "stop"]

_COLUMNS = ("ID", "KIND", "NAME", "STATE", "HOSTS", "STARTED", "ENDS", "REASON")


@click.command("ps", cls=Command)
@click.option("-a", "--all", "is_all", is_flag=True, help="Those that ended, too.")
@json_option
@click.pass_context
def ps(ctx: click.Context, is_all: bool, as_json: bool) -> None:
    """List your jobs, sessions and debug gangs."""
    client = connect(ctx)
    state = "all" if is_all else "live"
    jobs = client.jobs(state=state)
    sessions = client.leases(state=state, kind="session")
    gangs = client.leases(state=state, kind="debug")
    if as_json:
        print_json({"jobs": jobs, "sessions": sessions, "gangs": gangs})
        return
    rows = [*map(_lease_row, [*sessions, *gangs]), *map(_job_row, jobs)]
    print_table(_COLUMNS, rows, "nothing runs; nimbus ps -a lists what ended")


def _job_row(job: Job) -> tuple[object, ...]:
    hosts = hosts_text(replica.host for replica in job.replicas)
    started, ended = moment_text(job.started_at), moment_text(job.ended_at)
    reason = ", ".join(filter(None, [waiting_text(job), job.progress_message]))
    return job.id, "job", job.name, job.state, hosts, started, ended, reason


def _lease_row(lease: Lease) -> tuple[object, ...]:
    hosts = hosts_text(slot.host for slot in lease.slots)
    ends = moment_text(lease.ended_at or lease.expires_at)
    started, reason = moment_text(lease.active_at), waiting_text(lease)
    return lease.id, lease.kind, lease.name, lease.state, hosts, started, ends, reason


@click.command("logs", cls=Command)
@click.argument("job_id", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--replica", metavar="NAME", help="Only this one, like worker-0.")
@click.option("--tail", type=int, metavar="LINES", help="Only the last lines of each replica.")
@click.option("--attempt", type=int, metavar="N", help="Another attempt than the last one.")
@json_option
@click.pass_context
def logs(
    ctx: click.Context,
    job_id: str,
    follow: bool,
    replica: str | None,
    tail: int | None,
    attempt: int | None,
    as_json: bool,
) -> None:
    """Print the output of a job, also after its end."""
    if tail is not None and tail < 0:
        raise InvalidRequest(f"tail must be at least 0, got {tail}")
    if follow and attempt is not None:
        raise InvalidRequest("--follow shows all attempts; leave out --attempt")
    client = connect(ctx)
    job = client.job(job_id)
    if follow:
        if not as_json and not job.is_ended:
            say(status_text(job))
        ctx.exit(follow_job(client, job, as_json=as_json, tail=tail, replica=replica))
    pieces = client.whole_logs(job.id, replica, tail=tail, attempt=attempt)
    if as_json:
        print_json(list(pieces))
        return
    lines = Lines(has_names=replica is None and len(job.replicas) > 1, style=Colours())
    for piece in pieces:
        print_text(lines.add(piece))
    print_text(lines.rest())


@click.command("stop", cls=Command)
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@click.option("--reason", default="", help="A sentence that is kept with the job.")
@json_option
@click.pass_context
def stop(ctx: click.Context, job_ids: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Stop jobs."""
    client = connect(ctx)
    stopped = [_stop(client, job_id, reason, as_json) for job_id in job_ids]
    if as_json:
        print_json(stopped)


def _stop(client: Client, job_id: str, reason: str, as_json: bool) -> Job:
    job = client.stop(job_id, reason)
    if not as_json:
        click.echo(job_ended_text(job) if job.is_ended else f"job {job.id} is being stopped")
    return job


@click.command("rm", cls=Command)
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@json_option
@click.pass_context
def rm(ctx: click.Context, job_ids: tuple[str, ...], as_json: bool) -> None:
    """Delete the files and the output of jobs that ended; what became of them stays known."""
    client = connect(ctx)
    deleted = [_delete(client, job_id, as_json) for job_id in job_ids]
    if as_json:
        print_json(deleted)


def _delete(client: Client, job_id: str, as_json: bool) -> Job:
    job = client.delete(job_id)
    if not as_json:
        click.echo(f"files and output of job {job.id}: {job.deletion}")
    return job
