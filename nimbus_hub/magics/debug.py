"""``%nimbus_debug``: the gang of slots that is held for one run after another."""

from __future__ import annotations

from typing import Any

import click

from nimbus_hub.client.gangs import bring_up, gang_lines, gang_request, own_gang, until_text
from nimbus_hub.client.run_options import run_values
from nimbus_hub.client.run_parameters import gang_parameters
from nimbus_hub.errors import InvalidRequest, NimbusError
from nimbus_hub.magics.session import Call

__all__ = ["debug"]

_ACTIONS = ("start", "status", "renew", "stop")
_NEXT = """\
  %nimbus_run train.py, or %%nimbus_run above a cell, runs on it
  %nimbus_debug renew keeps it longer, %nimbus_debug stop gives it back
"""


@click.command("%nimbus_debug", params=list(gang_parameters()))
@click.argument("action", default="", metavar="[status|renew|stop]")
@click.argument("length", default="", metavar="[DURATION]")
@click.pass_obj
def debug(call: Call, /, action: str, length: str, wait: str | None, **values: Any) -> None:
    """Hold a gang of slots for this session, on which runs start at once.

    \b
      %nimbus_debug --framework pytorch --workers 2 --gpus 1
      %nimbus_run train.py

    With options it asks for a gang and waits until it is ready; interrupting gives it back.
    Alone it says how the gang is. renew [DURATION] moves its end to DURATION (like 30m or 1h)
    from now, or as far as one renewal goes; stop gives it back and stops what runs on it.
    """
    if action not in ("", *_ACTIONS):
        raise InvalidRequest(f"%nimbus_debug takes status, renew or stop, got {action!r}")
    if length and action != "renew":
        raise InvalidRequest("a duration alone goes with renew: %nimbus_debug renew 1h")
    if action == "start" or (not action and call.words):
        _start(call, wait, values)
    elif any(word.startswith("-") for word in call.words):
        raise InvalidRequest(f"options are for a gang to be asked for: not with {action}")
    else:
        call.write(_told(call, action, length) + "\n")


def _start(call: Call, wait: str | None, values: dict[str, Any]) -> None:
    request = gang_request(run_values(values), wait)
    try:
        gang = bring_up(call.session.client, request, lambda text: call.write(f"{text}\n"))
    except KeyboardInterrupt:
        raise NimbusError("interrupted before the debug gang was ready") from None
    call.write("\n  ".join(gang_lines(gang)) + f"\n{_NEXT}")


def _told(call: Call, action: str, length: str) -> str:
    """Do what is to be done with the gang there is, and return what to say."""
    client = call.session.client
    gang = own_gang(client)
    if action == "renew":
        lease = client.renew(gang.lease.id, duration=length or None)
        return f"debug gang {lease.id} {until_text(lease)}"
    if action == "stop":
        lease = client.release(gang.lease.id, reason="Given back from the notebook.")
        return f"debug gang {lease.id} is given back"
    return "\n  ".join(gang_lines(gang))
