"""A job's output on the terminal until the job ends.

One replica's output goes through as it is; that of several is put together line by line,
each with the replica's name in front. States are told on stderr.
"""

from __future__ import annotations

import sys

import click

from nimbus_hub.cli.command import INTERRUPTED, JOB_EXIT_CODES
from nimbus_hub.cli.output import job_ended_text, print_json, say, status_text
from nimbus_hub.client import Client, Job, LogText

__all__ = ["LogPrinter", "follow_job"]

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
    printer = LogPrinter(has_names=replica is None and max(replicas, len(job.replicas)) > 1)
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
                printer.write(item)
            elif not item.is_ended:
                teller.tell(status_text(item))
    except KeyboardInterrupt:
        printer.finish()
        say(
            f"\njob {job.id} goes on\n  nimbus logs -f {job.id}   its output"
            f"\n  nimbus stop {job.id}      end it"
        )
        return INTERRUPTED
    printer.finish()
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


class LogPrinter:
    """Writes output of replicas to stdout."""

    def __init__(self, *, has_names: bool) -> None:
        self._has_names = has_names
        self._begun: dict[str, str] = {}
        self._colours: dict[str, str] = {}

    def write(self, log: LogText) -> None:
        """Write what came; of several replicas only whole lines."""
        if not self._has_names:
            click.echo(log.text, nl=False)
            return
        *lines, begun = (self._begun.get(log.replica, "") + log.text).split("\n")
        self._begun[log.replica] = begun
        if lines:
            click.echo("".join(self._line(log.replica, line) for line in lines), nl=False)

    def finish(self) -> None:
        """Write the lines that were begun and never ended."""
        for replica, text in self._begun.items():
            if text:
                click.echo(self._line(replica, text), nl=False)
        self._begun.clear()
        sys.stdout.flush()

    def _line(self, replica: str, line: str) -> str:
        colour = self._colours.setdefault(replica, _COLOURS[len(self._colours) % len(_COLOURS)])
        return f"{click.style(replica, fg=colour)} {line}\n"
