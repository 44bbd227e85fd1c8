"""A job's output on the terminal until the job ends.

One replica's output goes through as it is; that of several is put together line by line,
each with the replica's name in front. States are told on stderr.
"""

from __future__ import annotations

import click

from nimbus_hub.cli.command import INTERRUPTED, JOB_EXIT_CODES
from nimbus_hub.cli.output import job_ended_text, print_json, say, status_text
from nimbus_hub.client import Client, Job, LogText
from nimbus_hub.client.lines import Lines

__all__ = ["Colours", "follow_job", "print_text"]

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_red", "bright_cyan")


def follow_job(
    client: Client,
    job: Job,
    *,
    as_json: bool,
    tail: int | None = None,
    replica: str | None = None,
    replicas: int = 1,
) -> int:
    """Show a job's output to its end and return the exit code; Ctrl-C only looks away."""
    has_names = replica is None and max(replicas, len(job.replicas)) > 1
    lines = Lines(has_names=has_names, style=Colours())
    teller = _Teller()
    last = job
    try:
        for item in client.follow(job.id, tail=tail, replica=replica):
            if isinstance(item, Job):
                last = item
            if as_json:
                kind = "job" if isinstance(item, Job) else "log"
                print_json({"event": kind, kind: item}, is_line=True)
            elif isinstance(item, LogText):
                print_text(lines.add(item))
            elif not item.is_ended:
                teller.tell(status_text(item))
    except KeyboardInterrupt:
        print_text(lines.rest())
        say(
            f"\njob {job.id} goes on\n  nimbus logs -f {job.id}   its output"
            f"\n  nimbus stop {job.id}      end it"
        )
        return INTERRUPTED
    print_text(lines.rest())
    if not as_json:
        say(job_ended_text(last))
    return JOB_EXIT_CODES.get(last.state, 1)


class _Teller:
    """Says what was not just said."""

    def __init__(self) -> None:
        self._last = ""

    def tell(self, text: str) -> None:
        if text != self._last:
            self._last = text
            say(text)


class Colours:
    """Paints each name in a colour of its own."""

    def __init__(self) -> None:
        self._colours: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Return the name, painted."""
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        return click.style(name, fg=colour)


def print_text(text: str) -> None:
    """Print output as it is, at once; colours only on a terminal."""
    if text:
        click.echo(text, nl=False)
