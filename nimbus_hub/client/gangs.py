"""Debug gangs as people meet them: which one is theirs, how it comes up, how it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta

from nimbus_hub.client.client import Client
from nimbus_hub.client.environment import session_environment, session_lease_id
from nimbus_hub.client.explain import (
    count_text,
    detail_text,
    hosts_text,
    local_moment,
    role_count,
    waiting_text,
)
from nimbus_hub.client.requests import GangRequest
from nimbus_hub.client.resources import Gang, Group, Lease
from nimbus_hub.client.run_options import RunOptions, slot_groups
from nimbus_hub.errors import Conflict, InvalidRequest, NotFound
from nimbus_hub.model.quantities import format_duration, format_gpus

__all__ = [
    "bring_up",
    "gang_lines",
    "gang_request",
    "gang_text",
    "own_gang",
    "renewable_text",
    "roles_text",
    "session_gang",
    "until_text",
]

_POLL_SECONDS = 20.0
_SETTLED = frozenset({"ready", "busy", "ended"})


def gang_request(options: RunOptions, wait: str | None) -> GangRequest:
    """Return the wish for a gang, for the session this runs in; its amounts are checked."""
    request = GangRequest(
        framework=options.framework or "script",
        groups=slot_groups(options),
        environment=options.environment or session_environment(),
        name=options.name,
        duration=options.duration,
        wait=wait,
        session=session_lease_id(),
    )
    request.check()
    return request


def session_gang(client: Client) -> Gang | None:
    """Return the gang that the session holds or waits for; None without one, or a session."""
    session = session_lease_id()
    return None if session is None else next(iter(client.gangs(session=session)), None)


def own_gang(client: Client) -> Gang:
    """Return the session's gang, outside of a session the caller's only one.

    Raises NotFound where there is none, InvalidRequest where there are several.
    """
    session = session_lease_id()
    found = client.gangs(session=session)
    if not found:
        whose = "you hold" if session is None else "this session holds"
        raise NotFound(
            f"{whose} no debug gang; ask for one with nimbus debug start, or in a notebook with "
            "%nimbus_debug --workers 2"
        )
    if session is None and len(found) > 1:
        named = ", ".join(gang.lease.id for gang in found)
        raise InvalidRequest(f"you hold several debug gangs; name one by its lease: {named}")
    return found[0]


def bring_up(client: Client, request: GangRequest, tell: Callable[[str], None]) -> Gang:
    """Ask for a gang and return it when it is ready, telling each news once.

    An interrupt gives it back. Raises Conflict with the reason if it ends before it is ready.
    """
    gang = client.request_gang(request)
    told = ""
    try:
        while gang.state not in _SETTLED:
            if (text := gang_text(gang)) != told:
                tell(text)
            told = text
            gang = client.gang(gang.lease.id, after=gang.version, timeout=_POLL_SECONDS)
    except KeyboardInterrupt:
        client.release(gang.lease.id, reason="given back before it was ready")
        tell(f"debug gang {gang.lease.id} was given back")
        raise
    if gang.state == "ended":
        raise Conflict(f"debug gang {gang.lease.id} ended before it was ready: {gang.reason}")
    return gang


def gang_text(gang: Gang) -> str:
    """Return one line: what state a gang is in, and why or where.

    ``debug gang l-1 queued, position 2: waits for 4 more A100; starts at the latest 14:32``,
    ``debug gang l-1 warming 1 of 3 on node1 (2), node2``.
    """
    title = f"debug gang {gang.lease.id} {gang.state}"
    where = f" on {hosts_text(slot.host for slot in gang.lease.slots)}"
    if gang.state == "queued":
        return title + detail_text(waiting_text(gang.lease))
    if gang.state == "warming":
        warm = sum(replica.state == "running" for replica in gang.replicas)
        return f"{title} {warm} of {len(gang.lease.slots)}{where}"
    if gang.state == "ready":
        return title + where
    return title + detail_text(gang.reason)


def gang_lines(gang: Gang) -> list[str]:
    """Return a gang in a few lines: its state, what it holds, until when."""
    lines = [gang_text(gang), f"{roles_text(gang.lease.groups)}, {gang.framework}"]
    if gang.lease.placement:
        lines.append(gang.lease.placement)
    if gang.lease.expires_at is not None and gang.state not in ("ending", "ended"):
        lines.append(until_text(gang.lease))
    if gang.lease.note and gang.state != "queued":
        lines.append(gang.lease.note)
    if gang.runs:
        lines.append(f"{count_text(gang.runs, 'run')} so far")
    return lines


def until_text(lease: Lease) -> str:
    """Write when a lease ends: ``until 14:32 (in 55m), can be renewed until 18:00``."""
    if lease.expires_at is None:
        return f"for {format_duration(timedelta(seconds=lease.length_seconds))} once it starts"
    left = format_duration(max(timedelta(0), lease.expires_at - lease.now))
    until = local_moment(lease.expires_at, lease.now)
    return f"until {until} (in {left}), {renewable_text(lease)}"


def renewable_text(lease: Lease) -> str:
    """Write until when a lease can be renewed: ``can be renewed until 18:00``."""
    if lease.renewable_until is None:
        return "cannot be renewed any more"
    return f"can be renewed until {local_moment(lease.renewable_until, lease.now)}"


def roles_text(groups: Iterable[Group]) -> str:
    """Write what a gang holds: ``1 ps, 2 workers with 1 GPU A100 each``."""
    return ", ".join(map(_role_text, groups))


def _role_text(group: Group) -> str:
    name = role_count(group.count, group.role)
    if not group.gpus:
        return name
    gpus = count_text(format_gpus(group.gpus, group.gpu_milli), "GPU")
    models = f" {' or '.join(group.gpu_models)}" if group.gpu_models else ""
    return f"{name} with {gpus}{models}" + (" each" if group.count > 1 else "")
