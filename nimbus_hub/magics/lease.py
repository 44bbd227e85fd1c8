"""``%nimbus_lease``: how long this session lasts."""

from __future__ import annotations

from datetime import timedelta

import click

from nimbus_hub.client import Client, resources
from nimbus_hub.client.environment import session_lease_id
from nimbus_hub.client.gangs import gang_lines, renewable_text
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.magics.session import Call
from nimbus_hub.model.quantities import format_duration

__all__ = ["lease"]

_ACTIONS = ("", "renew", "release")


@click.command("%nimbus_lease")
@click.argument("action", default="", metavar="[renew|release]")
@click.argument("duration", default="")
@click.pass_obj
def lease(call: Call, action: str, duration: str) -> None:
    """Say how long this session and its debug gang last, renew it, or give it back.

    renew [DURATION] moves the end to DURATION (like 90m or 2h) from now, or as far as one
    renewal goes. release gives the session back: it is stopped and its kernels end.
    """
    if action not in _ACTIONS:
        raise InvalidRequest(f"%nimbus_lease takes renew or release, got {action!r}")
    if duration and action != "renew":
        raise InvalidRequest("a duration goes with renew: %nimbus_lease renew 2h")
    identity = session_lease_id()
    if identity is None:
        raise InvalidRequest(
            "this kernel does not run in a Nimbus session, so it holds no lease: "
            "start a session on the hub's page"
        )
    client = call.session.client
    call.write(_sentence(_act(client, identity, action, duration)) + "\n")
    for gang in client.gangs(session=identity) if not action else ():
        call.write("\n  ".join(gang_lines(gang)) + "\n")


def _act(client: Client, identity: str, action: str, duration: str) -> resources.Lease:
    if action == "renew":
        return client.renew(identity, duration=duration or None)
    if action == "release":
        return client.release(identity, reason="Released from the notebook.")
    return client.lease(identity)


def _sentence(lease: resources.Lease) -> str:
    """Return what is to be known of a lease: state, end, whether it can be renewed."""
    words = [f"Lease {lease.id}: {lease.state}"]
    if lease.expires_at is not None and not lease.is_ended:
        left = max(lease.expires_at - lease.now, timedelta(0))
        words.append(f" until {lease.expires_at.astimezone():%H:%M}, {format_duration(left)} left")
        words.append(_renewal(lease))
    if lease.reason:
        words.append(f". {lease.reason}")
    return "".join(words)


def _renewal(lease: resources.Lease) -> str:
    words = f"; it {renewable_text(lease)}"
    if not lease.can_renew:
        return words
    step = format_duration(timedelta(seconds=lease.renewal_seconds))
    return f"{words} (%nimbus_lease renew makes it {step} from now)"
