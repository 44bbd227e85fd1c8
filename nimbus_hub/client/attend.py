"""Staying with a run on held slots: its output, its debugger, and its end.

Unlike a job in the queue a run on held slots belongs to who watches it: an interrupt stops
it everywhere.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

from nimbus_hub.client.client import Client
from nimbus_hub.client.lines import PROMPT, Lines
from nimbus_hub.client.output import Output
from nimbus_hub.client.resources import Job, LogText, Replica
from nimbus_hub.errors import Conflict

__all__ = ["Screen", "attend"]

_WAITS = "waits in its debugger"
"""How the reason of a replica begins that waits in its debugger."""

_QUIET_SECONDS = 0.5
"""After this a line that is begun is taken for a question."""

_TRACEBACK = "Traceback (most recent call last):"
_MOST_CHARACTERS = 50_000


class Screen(Protocol):
    """Where a run is shown, and who watches it."""

    def write(self, text: str) -> None:
        """Show output of the run."""
        ...

    def say(self, text: str) -> None:
        """Show a line about the run."""
        ...

    def ask(self, prompt: str) -> str:
        """Show a prompt and return the line that is typed; raise EOFError where none will be."""
        ...


def attend(
    client: Client, job: Job, screen: Screen, lines: Lines, *, has_debugger: bool = False
) -> Job:
    """Show a run to its end and return it as it ended.

    KeyboardInterrupt stops the run and waits for its end; it is raised again when that is told.
    """
    return _Attention(client, job, screen, lines).run(has_debugger)


class _Attention:
    def __init__(self, client: Client, job: Job, screen: Screen, lines: Lines) -> None:
        self._client = client
        self._job = job
        self._screen = screen
        self._lines = lines
        self._tails: dict[str, str] = {}
        self._debugged: set[str] = set()
        self._output = Output(client, job.id)

    def run(self, has_debugger: bool) -> Job:
        try:
            while not self._job.is_ended:
                self._take(self._output.next())
                if has_debugger and (waiting := self._waiting()):
                    self._debug(waiting.name)
        except KeyboardInterrupt:
            self._stop()
            raise
        self._screen.write(self._lines.rest())
        return self._job

    def _take(self, item: LogText | Job | None) -> None:
        """Show a piece of output, remember a change."""
        if isinstance(item, Job):
            self._job = item
        elif item is not None:
            tail = self._tails.get(item.replica, "") + item.text
            self._tails[item.replica] = tail[-_MOST_CHARACTERS:]
            self._screen.write(self._lines.add(item))

    def _stop(self) -> None:
        """Stop the run everywhere and wait for that; another interrupt does not wait."""
        self._screen.say(f"\nstopping {self._job.id} everywhere ...")
        try:
            with contextlib.suppress(Conflict):  # it has ended already
                self._client.stop(self._job.id, reason="interrupted")
            while not self._job.is_ended:
                self._take(self._output.next())
        except KeyboardInterrupt:
            self._screen.say(f"{self._job.id} is being stopped")
            raise
        self._screen.write(self._lines.rest())
        self._screen.say(f"{self._job.id} {self._job.state}")

    def _waiting(self) -> Replica | None:
        """Return the replica of the lowest rank that waits in its debugger for the first time."""
        waiting = [
            replica
            for replica in self._job.replicas
            if replica.reason.startswith(_WAITS) and replica.name not in self._debugged
        ]
        return min(waiting, key=lambda replica: replica.rank, default=None)

    def _debug(self, name: str) -> None:
        """Be the terminal of a replica's debugger until the replica ends."""
        self._debugged.add(name)
        self._screen.say(f"{name} waits in its debugger: q or Ctrl-D ends it, Ctrl-C the run")
        begun = self._lines.begun(name)
        if self._lines.has_names:
            # What was shown line by line between those of others, once more in one piece.
            _, header, trace = self._tails.get(name, "").rpartition(_TRACEBACK)
            self._screen.write((header + trace).removesuffix(begun) if header else "")
        while not self._job.is_ended:
            if PROMPT.fullmatch(begun):
                begun = self._answer(name, begun)
            item = self._output.next(_QUIET_SECONDS if begun else None)
            if isinstance(item, LogText) and item.replica == name:
                lines, end, begun = (begun + item.text).rpartition("\n")
                self._screen.write(lines + end)
                if item.is_complete:
                    break
            elif item is None:
                begun = self._answer(name, begun)
            else:
                self._take(item)
                if not self._is_alive(name):
                    break
        self._screen.write(f"{begun}\n" if begun else "")

    def _answer(self, name: str, prompt: str) -> str:
        """Send what is typed at a prompt; return what is left of the prompt: nothing."""
        try:
            line = self._screen.ask(prompt)
        except EOFError:
            line = "q"
            self._screen.say(line)
        with contextlib.suppress(Conflict):  # it ended meanwhile, which its job will say
            self._client.write_input(self._job.id, name, f"{line}\n")
        return ""

    def _is_alive(self, name: str) -> bool:
        return any(
            replica.name == name and replica.state not in ("exited", "lost")
            for replica in self._job.replicas
        )
