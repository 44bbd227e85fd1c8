"""`nimbus-hub`: starts and ends the hub on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from nimbus_hub import __version__
from nimbus_hub.errors import NimbusError
from nimbus_hub.up.hub import Wish, renew_password, run_hub
from nimbus_hub.up.state import State, default_directory
from nimbus_hub.up.stop import stop_all

__all__ = ["cli", "main"]

_state_option = click.option(
    "--state",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="NIMBUS_HUB_STATE",
    default=default_directory,
    show_default="$NIMBUS_HUB_STATE, .nimbus in a checkout, else ~/.local/share/nimbus-hub",
    help="Directory of the hub's database, secrets and logs.",
)


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    click.echo(text)
    sys.stdout.flush()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nimbus-hub")
def cli() -> None:
    """JupyterHub with leased sessions on this machine."""


@cli.command()
@click.option("--port", default=8000, envvar="PORT", show_default=True, help="Port for browsers.")
@click.option("--ip", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Configuration of JupyterHub, spawner and service, loaded on top of ours.",
)
@_state_option
def up(directory: Path, port: int, ip: str, config: Path | None) -> None:
    """Start the hub and stay with it; Ctrl-C ends it, sessions and jobs go on."""
    raise SystemExit(run_hub(Wish(State(directory.absolute()), ip, port, config), say))


@cli.command()
@_state_option
def password(directory: Path) -> None:
    """Make a new log-in password and print it this once."""
    state = State(directory.absolute())
    state.create()
    click.echo(renew_password(state))


@cli.command("stop-all")
@_state_option
def stop_everything(directory: Path) -> None:
    """End all sessions and jobs, and the hub if it runs."""
    state = State(directory.absolute())
    if not state.directory.is_dir():
        raise NimbusError(f"there is no state directory {state.directory}; choose it with --state")
    state.create()
    stop_all(state, say)


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Run the service alone, as a hub would; options as `nimbus-hub serve --help` lists them."""
    argv = [sys.executable, "-m", "nimbus_hub.app", *arguments]
    os.execv(argv[0], argv)


def main() -> None:
    """Run `nimbus-hub`; an error for people is one line and exit code 1."""
    try:
        cli()
    except NimbusError as error:
        click.echo(f"nimbus-hub: {error.message}", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
