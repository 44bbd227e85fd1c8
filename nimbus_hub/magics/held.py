"""``%nimbus_run`` on slots that are held: the cell stays with the run and ends as it does."""

from __future__ import annotations

from nimbus_hub.client import Client, Gang, JobRequest, resources
from nimbus_hub.client.attend import attend
from nimbus_hub.client.held import start_on_gang
from nimbus_hub.client.lines import Lines
from nimbus_hub.client.run_options import RunOptions
from nimbus_hub.errors import InvalidRequest, NimbusError
from nimbus_hub.magics.job import Job
from nimbus_hub.magics.render import headline
from nimbus_hub.magics.screen import has_widgets
from nimbus_hub.magics.session import Call
from nimbus_hub.magics.view import View

__all__ = ["run_held"]


def run_held(
    call: Call, gang: Gang, request: JobRequest, options: RunOptions, *, has_tabs: bool
) -> Job:
    """Run on a gang and return the job, at its end unless it is detached.

    An interrupt stops the run everywhere. Raises NimbusError for a run that did not succeed.
    """
    if has_tabs and options.pdb:
        raise InvalidRequest("--pdb talks in text, so --tabs cannot be meant")
    client = call.session.client
    is_watched = options.follow is not False
    try:
        submitted = start_on_gang(client, request)
        job = call.session.last = Job(client, submitted, is_live=not is_watched)
        if is_watched and has_tabs and has_widgets():
            _watch(client, submitted)
        elif is_watched:
            lines = Lines(has_names=len(gang.lease.slots) > 1)
            attend(client, submitted, _Cell(call), lines, has_debugger=options.pdb)
    except KeyboardInterrupt:
        raise NimbusError("interrupted: the run was stopped everywhere") from None
    if is_watched and job.refresh().known.state != "succeeded":
        raise NimbusError(headline(job.known))
    return job


def _watch(client: Client, job: resources.Job) -> None:
    """Show a tab for each replica until the run ends."""
    view = View(client, job)
    view.show()
    try:
        view.watch.join()
    except KeyboardInterrupt:
        client.stop(job.id, reason="interrupted")
        view.watch.join()
        raise


class _Cell:
    """Output, talk and questions below the cell."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def write(self, text: str) -> None:
        self._call.write(text)

    def say(self, text: str) -> None:
        self._call.write(f"{text}\n")

    def ask(self, prompt: str) -> str:
        try:
            return input(prompt)
        except NotImplementedError as error:  # a notebook that is run without a front end
            self.say(f"{prompt}nobody can be asked here, so the debugger is left")
            raise EOFError from error
