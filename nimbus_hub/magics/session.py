"""What the magics of one kernel share: the client, the last job, the TensorBoards."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nimbus_hub.client import Client
from nimbus_hub.client.environment import proxied_url
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.magics.job import Job
from nimbus_hub.magics.tensorboard import TensorBoards

__all__ = ["Call", "Session"]


@dataclass
class Session:
    """One kernel; ``make_client`` is called at the first use of a magic."""

    shell: Any
    make_client: Callable[[], Client]
    last: Job | None = field(default=None, init=False)

    @cached_property
    def client(self) -> Client:
        """Return the connection to the service."""
        return self.make_client()

    @cached_property
    def tensorboards(self) -> TensorBoards:
        """Return the TensorBoards of this kernel."""
        return TensorBoards(_path_of)

    def close(self) -> None:
        """End what would otherwise stay."""
        if "tensorboards" in self.__dict__:
            self.tensorboards.close()

    def job(self, text: str) -> Job:
        """Return the job that is meant: a variable, an id, a name, or nothing for the last one.

        Of several jobs of a name, the one that has not ended is meant.
        Raises InvalidRequest when it is not one job, NotFound when there is none.
        """
        if not text:
            return self._last_job()
        value = self.shell.user_ns.get(text)
        if isinstance(value, Job):
            return value
        named = [job for job in self.client.jobs(state="all") if text in (job.id, job.name)]
        if len(named) > 1:
            named = [job for job in named if not job.is_ended] or named
        if len(named) > 1:
            ids = ", ".join(job.id for job in named[:5])
            raise InvalidRequest(f"{len(named)} jobs are called {text}: name one by its id: {ids}")
        return Job(self.client, named[0] if named else self.client.job(text))

    def _last_job(self) -> Job:
        if self.last is not None:
            return self.last
        newest = self.client.jobs(state="all")
        if not newest:
            raise InvalidRequest("there is no job yet: start one with %nimbus_run script.py")
        return Job(self.client, newest[0])


def _path_of(port: int) -> str:
    """Return where the browser reaches a port; a server without a hub is at the root."""
    return proxied_url(port) or f"/proxy/{port}/"


@dataclass(frozen=True, slots=True)
class Call:
    """One use of a magic: whose, with what cell below it, and the words of its line."""

    session: Session
    words: tuple[str, ...]
    cell: str | None = None

    def write(self, text: str) -> None:
        """Show text below the cell, as it comes."""
        sys.stdout.write(text)
        sys.stdout.flush()
