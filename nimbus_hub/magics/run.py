"""``%nimbus_run``: a script, or the cell as a script, as a job in fresh processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from nimbus_hub.client import JobRequest, Manifest, Plan, scan
from nimbus_hub.client.environment import cache_directory
from nimbus_hub.client.explain import plan_text
from nimbus_hub.client.gangs import session_gang
from nimbus_hub.client.held import gang_to_run_on, like_gang, on_gang, refuse_before_upload
from nimbus_hub.client.imports import with_imports
from nimbus_hub.client.run_options import RunCommand, RunOptions, Script, job_request, run_values
from nimbus_hub.errors import InvalidRequest, NimbusError
from nimbus_hub.magics.cell import script_of_cell
from nimbus_hub.magics.follow import follow
from nimbus_hub.magics.held import run_held
from nimbus_hub.magics.job import Job
from nimbus_hub.magics.render import headline
from nimbus_hub.magics.session import Call

__all__ = ["run"]

_HELP = """Run a script, or the cell below as a script, as a job in fresh processes.

\b
  %nimbus_run --workers 2 train.py --lr 0.1
  %%nimbus_run --workers 2 -- --lr 0.1

Options come first; what follows the script, or above a cell what follows --, is the
script's own. {expression} and $variable in the line take their values from the notebook,
the text of a cell is never touched. The working directory is copied to the job; the job
goes on when the notebook is closed.

Without --follow and --detach the job is shown live below the cell. --follow prints its
output and ends with it, --detach shows how it stands and no more. The result is a Job:
job.wait(), job.logs(), job.stop(), job.view().

In a session that holds a debug gang (%nimbus_debug) it runs there, at once, and its output is
printed to its end; interrupting stops it everywhere. --submit sends it as a job of its own.
"""


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to run, and the files it needs; ``texts`` are those that are on no disk."""

    request: JobRequest
    manifest: Manifest
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DryRun:
    """What ``--dry-run`` returns: the service's plan, readable."""

    plan: Plan

    def __repr__(self) -> str:
        """Return the plan as text."""
        return plan_text(self.plan)


@click.pass_obj
def _run(call: Call, /, variable: str | None, tabs: bool, **values: Any) -> object:
    _check_variable(variable)
    options = run_values(values)
    work = _work_of(call, options)
    client = call.session.client
    gang = gang_to_run_on(client, options)
    if gang is not None:
        work = replace(work, request=on_gang(work.request, options, gang))
    else:
        if options.submit:
            wanted = like_gang(options, session_gang(client))
            work = replace(work, request=job_request(wanted, work.request.argv))
        work = replace(work, request=with_imports(work.request, work.manifest.root, work.texts))
    if options.dry_run:
        return _keep(call, variable, DryRun(client.plan(work.request)))
    if gang is not None:
        refuse_before_upload(client, work.request)
        request = replace(work.request, snapshot=client.upload(work.manifest))
        return _keep(call, variable, run_held(call, gang, request, options, has_tabs=tabs))
    # The plan comes first: what can never run is refused before anything is uploaded.
    client.plan(work.request)
    job = _submitted(call, options, work)
    _keep(call, variable, job)
    if options.follow:
        follow(call, job)
        _require_success(job)
    return job


_VARIABLE = click.Option(
    ["--as", "variable"],
    metavar="VARIABLE",
    help="Keep the result in a variable, as job = %nimbus_run ... does for a line.",
)
_TABS = click.Option(
    ["--tabs"], is_flag=True, help="On held slots: each replica's output in a tab of its own."
)
run = RunCommand("%nimbus_run", callback=_run, help=_HELP, params=[_TABS, _VARIABLE])


def _check_variable(variable: str | None) -> None:
    if variable is not None and not variable.isidentifier():
        raise InvalidRequest(f"--as takes the name of a variable, like job, got {variable!r}")


def _work_of(call: Call, options: RunOptions) -> _Work:
    """Return the request and its files, everything checked that can be checked here."""
    workdir = Path(options.workdir).expanduser()
    if call.cell is None:
        script = Script.find(options.argv, workdir)
        request = job_request(options, script.argv)
        manifest = scan(workdir, cache=cache_directory())
        script.check_in(manifest)
        return _Work(request, manifest)
    if options.argv and "--" not in call.words:
        raise InvalidRequest(
            f"the cell is the script, so {options.argv[0]!r} cannot be one: put arguments for "
            "the cell after --, or write %nimbus_run for a script in a file"
        )
    cell = script_of_cell(call.cell)
    request = job_request(options, ("python", "-u", cell.name, *options.argv))
    texts = {cell.name: cell.text}
    return _Work(request, scan(workdir, extra=texts, cache=cache_directory()), texts)


def _submitted(call: Call, options: RunOptions, work: _Work) -> Job:
    """Upload and submit; what shows its output as text is not shown as widgets, too."""
    client = call.session.client
    digest = client.upload(work.manifest)
    submitted = client.submit(replace(work.request, snapshot=digest))
    call.session.last = Job(client, submitted, is_live=options.follow is None)
    return call.session.last


def _require_success(job: Job) -> None:
    """Mark the cell as failed when the job it followed has failed."""
    if job.known.is_ended and job.known.state != "succeeded":
        raise NimbusError(headline(job.known))


def _keep(call: Call, variable: str | None, value: object) -> object:
    if variable is not None:
        call.session.shell.user_ns[variable] = value
    return value
