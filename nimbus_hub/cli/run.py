"""``nimbus run``: a script of the working directory as a job. ``nimbus-run`` is the same."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from nimbus_hub.cli.command import EPILOG, connect, guarded, json_option
from nimbus_hub.cli.following import follow_job
from nimbus_hub.cli.held import run_held
from nimbus_hub.cli.output import print_json, say
from nimbus_hub.client import Client, Job, JobRequest, Manifest, Plan, scan
from nimbus_hub.client.environment import cache_directory
from nimbus_hub.client.explain import (
    detail_text,
    framework_text,
    hosts_text,
    plan_text,
    role_count,
    waiting_text,
)
from nimbus_hub.client.gangs import session_gang
from nimbus_hub.client.held import gang_to_run_on, like_gang, on_gang, refuse_before_upload
from nimbus_hub.client.run_options import (
    RunCommand,
    RunOptions,
    Script,
    job_request,
    run_values,
)
from nimbus_hub.model.quantities import format_memory

__all__ = ["main", "run"]

_LONG_UPLOAD_BYTES = 5 * 2**20


class _Run(RunCommand):
    """The command, with the errors of all commands."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with guarded():
            return super().invoke(ctx)


@click.command("run", cls=_Run, epilog=EPILOG)
@json_option
@click.pass_context
def run(ctx: click.Context, /, as_json: bool, **values: Any) -> None:
    """Run SCRIPT with ARGS as a job, on one worker or many.

    Options come first; what follows SCRIPT is its own. SCRIPT is a .py or .sh file of the
    working directory, of which the job gets a copy, or any program: nimbus run -- echo hi.

    In a session that holds a debug gang it runs there, at once: the output is shown to its
    end, Ctrl-C stops it everywhere, and the exit code is that of the replica that failed.
    """
    options = run_values(values)
    workdir = Path(options.workdir)
    script = Script.find(options.argv, workdir)
    request = job_request(options, script.argv)
    client = connect(ctx)
    gang = gang_to_run_on(client, options)
    if gang is not None:
        request = on_gang(request, options, gang)
    else:
        if options.submit:
            request = job_request(like_gang(options, session_gang(client)), script.argv)
        request = _with_imports(request, workdir)
    if options.dry_run:
        plan = client.plan(request)
        print_json(plan) if as_json else click.echo(plan_text(plan))
    elif gang is not None:
        refuse_before_upload(client, request)
        request = replace(request, snapshot=_snapshot(client, script, workdir, as_json))
        ctx.exit(run_held(client, gang, request, options, as_json=as_json))
    else:
        ctx.exit(_submit(client, request, options, script, as_json))


def _with_imports(request: JobRequest, workdir: Path) -> JobRequest:
    """Return a request that names no framework with what its script imports."""
    # Imported here: a run on held slots parses nothing.
    from nimbus_hub.client.imports import with_imports

    return with_imports(request, workdir)


def _submit(
    client: Client, request: JobRequest, options: RunOptions, script: Script, as_json: bool
) -> int:
    """Run as a job of its own and return the exit code."""
    # The plan comes first: what can never run is refused before anything is uploaded.
    plan = client.plan(request)
    snapshot = _snapshot(client, script, Path(options.workdir), as_json)
    job = client.submit(replace(request, snapshot=snapshot))
    _tell(job, plan, request, options, as_json)
    if not options.follow:
        return 0
    replicas = sum(group.count for group in request.groups)
    return follow_job(client, job, as_json=as_json, replicas=replicas)


def _snapshot(client: Client, script: Script, workdir: Path, as_json: bool) -> str:
    """Upload the working directory and return its digest."""
    manifest = scan(workdir, cache=cache_directory())
    script.check_in(manifest)
    digest = _upload(client, manifest, is_quiet=as_json)
    for path in () if as_json else manifest.left_out:
        say(f"note: {path} is left out of the job's files: a link to a directory or to outside")
    return digest


def _tell(job: Job, plan: Plan, request: JobRequest, options: RunOptions, as_json: bool) -> None:
    """Say what was started, where, and what one may do next."""
    if as_json:
        print_json(
            {"event": "job", "job": job} if options.follow else job, is_line=bool(options.follow)
        )
        return
    where = "" if plan.would_wait else f" on {hosts_text(slot.host for slot in plan.slots)}"
    roles = ", ".join(role_count(group.count, group.role) for group in request.groups)
    say(f"job {job.id} ({job.name}): {roles}{where}")
    if plan.framework_reason:
        say(f"  {framework_text(plan)}")
    if plan.placement:
        say(f"  {plan.placement}")
    if options.follow:
        return
    click.echo(job.id)
    if plan.would_wait:
        say(f"queued{detail_text(waiting_text(plan))}")
    say(
        f"  nimbus logs -f {job.id}       its output\n"
        f"  nimbus-tensorboard {job.id}   its curves\n"
        f"  nimbus stop {job.id}          end it"
    )


def _upload(client: Client, manifest: Manifest, *, is_quiet: bool) -> str:
    """Upload the working directory, with a bar if it takes long enough to see one."""
    if is_quiet or manifest.size < _LONG_UPLOAD_BYTES or not sys.stderr.isatty():
        return client.upload(manifest)
    # Imported here, for rich takes as long as all the rest of the start.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"uploading {format_memory(manifest.size)}", visible=False)
        return client.upload(
            manifest,
            progress=lambda sent, total: bar.update(
                task, completed=sent, total=total, visible=total >= _LONG_UPLOAD_BYTES
            ),
        )


def main() -> None:
    """Run ``nimbus-run``."""
    run(prog_name="nimbus-run")
