"""Registers the magics with IPython and calls them.

Each magic is a click command: its options, its help and its complaints come from one
table. ``%name?`` and ``%name --help`` show the same text. What goes wrong is one sentence
below a cell that counts as failed, so that "run all" stops there.
"""

from __future__ import annotations

import atexit
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import click
from IPython.core.error import UsageError

from nimbus_hub.client import Client
from nimbus_hub.errors import InvalidRequest, NimbusError
from nimbus_hub.magics import board, debug, jobs, lease, run
from nimbus_hub.magics.session import Call, Session

__all__ = ["MAGICS", "Magic", "load"]


_HELP_WIDTH = 88


@dataclass(frozen=True, slots=True)
class Magic:
    """A command and whether it may also stand above a cell."""

    command: click.Command
    kind: Literal["line", "line_cell"] = "line"

    @property
    def name(self) -> str:
        """Return the name without its percent sign."""
        return str(self.command.name).removeprefix("%")

    def help(self) -> str:
        """Return the text that ``?`` shows."""
        context = click.Context(
            self.command, info_name=self.command.name, terminal_width=_HELP_WIDTH
        )
        return self.command.get_help(context)


MAGICS = (
    Magic(run.run, "line_cell"),
    Magic(jobs.jobs),
    Magic(jobs.logs),
    Magic(jobs.stop),
    Magic(lease.lease),
    Magic(debug.debug),
    Magic(board.tensorboard),
)


def load(shell: Any, client_factory: Callable[[], Client] = Client.from_environment) -> Session:
    """Register the magics; the client is made when one is used for the first time."""
    session = Session(shell, client_factory)
    atexit.register(session.close)
    for magic in MAGICS:
        function = _function(magic, session)
        shell.register_magic_function(function, magic_kind=magic.kind, magic_name=magic.name)
    return session


def _function(magic: Magic, session: Session) -> Callable[..., object]:
    """Return what IPython calls with the line, and with the cell if there is one."""

    def function(line: str, cell: str | None = None) -> object:
        try:
            return _call(magic, session, line, cell)
        except NimbusError as error:
            raise UsageError(error.message) from None

    function.__name__ = magic.name
    function.__doc__ = magic.help()
    return function


def _call(magic: Magic, session: Session, line: str, cell: str | None) -> object:
    words = _words(line)
    try:
        context = magic.command.make_context(
            magic.command.name,
            list(words),
            obj=Call(session, words, cell),
            terminal_width=_HELP_WIDTH,
        )
        with context:
            result: object = magic.command.invoke(context)
            return result
    except click.exceptions.Exit:  # --help has printed its text
        return None
    except click.ClickException as error:
        message = error.format_message().rstrip(".")
        raise InvalidRequest(f"{message} (%{magic.name}? lists what it takes)") from None


def _words(line: str) -> tuple[str, ...]:
    """Split a line as a shell does."""
    try:
        return tuple(shlex.split(line))
    except ValueError as error:
        raise InvalidRequest(f"the line cannot be read: {error} in {line.strip()!r}") from None
