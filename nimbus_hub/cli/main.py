"""``nimbus``: all commands. Each is imported when it is asked for."""

from __future__ import annotations

import click

from nimbus_hub import __version__
from nimbus_hub.cli.command import Group, connect, json_option
from nimbus_hub.cli.output import print_json
from nimbus_hub.errors import NimbusError

__all__ = ["main", "nimbus"]

_COMMANDS = {
    "run": "nimbus_hub.cli.run:run",
    "ps": "nimbus_hub.cli.jobs:ps",
    "logs": "nimbus_hub.cli.jobs:logs",
    "files": "nimbus_hub.cli.files:files",
    "stop": "nimbus_hub.cli.jobs:stop",
    "rm": "nimbus_hub.cli.jobs:rm",
    "lease": "nimbus_hub.cli.lease:lease",
    "debug": "nimbus_hub.cli.debug:debug",
    "hosts": "nimbus_hub.cli.hosts:hosts",
    "gpus": "nimbus_hub.cli.gpus:gpus",
    "queue": "nimbus_hub.cli.queue:queue",
    "explain": "nimbus_hub.cli.queue:explain",
    "usage": "nimbus_hub.cli.usage:usage",
    "tensorboard": "nimbus_hub.cli.tensorboard:tensorboard",
}


_ALIASES = {"delete": "rm"}


@click.group("nimbus", cls=Group, lazy=_COMMANDS, aliases=_ALIASES)
def nimbus() -> None:
    """Train on the hub's hosts, from a session's terminal or from outside.

    In a session everything is set. Outside, NIMBUS_API_URL is the hub's address followed by
    /services/nimbus, and NIMBUS_TOKEN a token from the hub's token page.
    """


@nimbus.command("version")
@json_option
@click.pass_context
def version(ctx: click.Context, as_json: bool) -> None:
    """Print the version here and that of the service."""
    found = {"client": __version__, "service": None, "error": None, "url": None}
    try:
        client = connect(ctx)
        found["url"] = client.url
        found["service"] = client.health().version
    except NimbusError as error:
        found["error"] = error.message
    if as_json:
        print_json(found)
        return
    click.echo(f"nimbus-hub {__version__}")
    service = found["service"]
    click.echo(
        f"service {service} at {found['url']}" if service else f"no service: {found['error']}"
    )


def main() -> None:
    """Run ``nimbus``."""
    nimbus(prog_name="nimbus")
