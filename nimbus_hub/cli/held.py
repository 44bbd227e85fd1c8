"""``nimbus run`` on slots that are held: it stays with the run and ends as the run does."""

from __future__ import annotations

import importlib
import json

import click

from nimbus_hub.cli.command import INTERRUPTED, JOB_EXIT_CODES
from nimbus_hub.cli.following import Colours, print_text
from nimbus_hub.cli.output import job_ended_text, print_json, say
from nimbus_hub.client import Client, Gang, JobRequest, LogText, encode
from nimbus_hub.client.attend import attend
from nimbus_hub.client.held import failed_code, start_on_gang
from nimbus_hub.client.lines import Lines
from nimbus_hub.client.run_options import RunOptions
from nimbus_hub.errors import InvalidRequest

__all__ = ["run_held"]


def run_held(
    client: Client, gang: Gang, request: JobRequest, options: RunOptions, *, as_json: bool
) -> int:
    """Run on a gang and return the exit code: that of the replica that failed first, or 0."""
    if options.pdb and as_json:
        raise InvalidRequest("--pdb talks to people, so --json cannot be meant")
    job = start_on_gang(client, request)
    if options.follow is False:
        print_json(job) if as_json else click.echo(job.id)
        return 0
    if as_json:
        print_json({"event": "job", "job": job}, is_line=True)
    else:
        say(f"job {job.id} ({job.name}) on gang {gang.lease.id}, run {gang.runs + 1}")
    lines = _JsonLines() if as_json else _lines(gang)
    try:
        job = attend(client, job, _Terminal(), lines, has_debugger=options.pdb)
    except KeyboardInterrupt:
        return INTERRUPTED
    if as_json:
        print_json({"event": "job", "job": job}, is_line=True)
    else:
        say(job_ended_text(job))
    return failed_code(job) if job.state == "failed" else JOB_EXIT_CODES[job.state]


def _lines(gang: Gang) -> Lines:
    return Lines(has_names=len(gang.lease.slots) > 1, style=Colours())


class _Terminal:
    """Output on stdout, talk on stderr, and the keyboard."""

    def write(self, text: str) -> None:
        print_text(text)

    def say(self, text: str) -> None:
        say(text)

    def ask(self, prompt: str) -> str:
        # It makes input() know arrow keys and what was typed before.
        importlib.import_module("readline")
        return input(prompt)


class _JsonLines(Lines):
    """Each piece of output as a line of JSON."""

    def __init__(self) -> None:
        super().__init__(has_names=True)

    def add(self, item: LogText) -> str:
        """Return the piece as it came."""
        return json.dumps({"event": "log", "log": encode(item)}, ensure_ascii=False) + "\n"
