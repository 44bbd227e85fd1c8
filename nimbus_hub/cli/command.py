"""What all commands share: errors and exit codes, ``--json``, the client.

Exit codes are a contract with scripts; ``EXIT_CODES`` is their only table.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from nimbus_hub.client import Client
from nimbus_hub.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NimbusError,
    NotFound,
    Unauthenticated,
    Unavailable,
)

__all__ = [
    "EPILOG",
    "EXIT_CODES",
    "INTERRUPTED",
    "JOB_EXIT_CODES",
    "Command",
    "Group",
    "connect",
    "guarded",
    "json_option",
]

FAILED = 1
INTERRUPTED = 130

EXIT_CODES: dict[type[NimbusError], int] = {
    InvalidRequest: 2,
    NotFound: 4,
    Conflict: 5,
    Unavailable: 6,
    Unauthenticated: 7,
    Forbidden: 7,
}

JOB_EXIT_CODES = {"succeeded": 0, "failed": FAILED, "stopped": 3}

EPILOG = """\b
Exit codes:
  0    done; with --follow: the job succeeded
  1    the job failed (on held slots: the code of the replica that failed first), or an error
       without a code of its own
  2    the command or the request is wrong, nothing was changed
  3    the job was stopped
  4    there is no such object of yours
  5    the object is not in a state that allows this, or has ended
  6    the service does not answer
  7    no token, an unknown one, or not allowed
  130  Ctrl-C
"""

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Turn errors meant for people into one sentence and an exit code, Ctrl-C into 130."""
    try:
        yield
    except NimbusError as error:
        click.echo(f"Error: {error.message}", err=True)
        raise click.exceptions.Exit(exit_code(error)) from error
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None


def exit_code(error: NimbusError) -> int:
    """Return the exit code of the nearest class that has one."""
    return next((EXIT_CODES[cls] for cls in type(error).__mro__ if cls in EXIT_CODES), FAILED)


class Command(click.Command):
    """A command whose errors end as a sentence and an exit code."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"epilog": EPILOG, **settings})

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with guarded():
            return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands; ``lazy`` names further ones as ``module:attribute``.

    ``aliases`` are other names of commands, which no list has.
    """

    command_class = Command

    def __init__(
        self,
        *args: Any,
        lazy: dict[str, str] | None = None,
        aliases: dict[str, str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **{"epilog": EPILOG, **settings})
        self._lazy = lazy or {}
        self._aliases = aliases or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; importing it here keeps the others' imports out of its start."""
        cmd_name = self._aliases.get(cmd_name, cmd_name)
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._lazy[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self._lazy[cmd_name]} is no command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the group's own part and the command."""
        with guarded():
            return super().invoke(ctx)


def json_option(function: AnyFunction) -> AnyFunction:
    """Add ``--json``, which the function gets as ``as_json``."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON for programs instead of text."
    )(function)


def connect(ctx: click.Context) -> Client:
    """Return a client that is closed with the command; a test's context brings its own."""
    make: Callable[[], Client] = ctx.obj or Client.from_environment
    return ctx.with_resource(make())
