"""A job's output as running text, each line under its replica's name."""

from __future__ import annotations

from collections.abc import Iterator

from nimbus_hub.client import Client, resources
from nimbus_hub.client.lines import Lines
from nimbus_hub.magics.job import Job
from nimbus_hub.magics.render import headline
from nimbus_hub.magics.session import Call

__all__ = ["follow"]


def follow(call: Call, job: Job, replica: str | None = None, tail: int | None = None) -> None:
    """Print output as it comes until the job ends; an interrupt leaves the job alone."""
    try:
        for text in _texts(call.session.client, job.id, replica, tail):
            call.write(text)
    except KeyboardInterrupt:
        call.write(f"\nThe job goes on; `%nimbus_logs {job.id} -f` follows it again.\n")
    job.refresh()


def _texts(client: Client, job_id: str, replica: str | None, tail: int | None) -> Iterator[str]:
    """Yield lines and changes of state."""
    lines = Lines(has_names=True)
    told = ""
    for item in client.follow(job_id, tail=tail, replica=replica):
        if isinstance(item, resources.LogText):
            yield lines.add(item)
            continue
        if item.is_ended:
            yield lines.rest()
        if (line := headline(item)) != told:
            yield f"{line}\n"
        told = line
