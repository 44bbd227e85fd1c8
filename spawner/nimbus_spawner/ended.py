"""What a user is told about a session that ended without their doing."""

from __future__ import annotations

import signal
from datetime import UTC, timedelta
from html import escape
from urllib.parse import quote, urlencode

from nimbus_hub.client.resources import Group, Lease
from nimbus_hub.model.lease import SERVER_DIED
from nimbus_hub.model.quantities import format_cpus, format_duration, format_gpus
from nimbus_spawner.options import CUSTOM

__all__ = ["again_url", "ended_notice", "ending_notice", "how_it_ended"]

_MOST_NAMES = 8

_NOT_ASKED_FOR = frozenset({"expired", "preempted", "lost"})

_SCRIPT = (
    "<script>document.querySelectorAll('time.nimbus-ended').forEach(function (t) {"
    "var d = new Date(t.dateTime), today = d.toDateString() === new Date().toDateString();"
    "t.textContent = today ? d.toLocaleTimeString([], {hour: '2-digit', minute: '2-digit'})"
    " : d.toLocaleString([], {dateStyle: 'medium', timeStyle: 'short'});});"
    "document.querySelectorAll('a.nimbus-again').forEach(function (a) {"
    "var at = new URLSearchParams(location.search).get('next'), url = new URL(a.href);"
    "if (at && at.startsWith(url.searchParams.get('next'))) {"
    "url.searchParams.set('next', at); a.href = url;}});</script>"
)
"""Shows the time in the reader's zone; without scripts it reads in UTC.

Whoever comes from JupyterLab brings along what of it was shown, and gets back there.
"""


def how_it_ended(status: int) -> str:
    """Return the reason for a server that ended by itself.

    Nothing is known of 0: the user shut it down, or a restarted hub could not see the code.
    """
    if status == 0:
        return "the session's server ended"
    if status < 0:
        return f"{SERVER_DIED} {status} ({_signal_name(-status)})"
    return f"{SERVER_DIED} {status}"


def ended_notice(lease: Lease | None, hub_url: str, server_url: str) -> str:
    """Return an alert that says when and why a session ended, or nothing if its user did it.

    It has a button that starts the same session again. Addresses end with a slash.
    """
    if lease is None or lease.ended_at is None or lease.active_at is None:
        return ""
    if lease.state not in _NOT_ASKED_FOR and not lease.reason.startswith(SERVER_DIED):
        return ""
    ended = lease.ended_at.astimezone(UTC)
    reason = lease.reason.rstrip(".") or "its lease ended"
    return (
        '<div class="alert alert-warning nimbus-session-ended" role="status">'
        f'Your session ended at <time class="nimbus-ended" datetime="{ended.isoformat()}">'
        f"{ended:%H:%M} UTC</time>: {escape(reason)}.{_opened(lease)}"
        f"{_again(lease, again_url(lease, hub_url, server_url))}</div>{_SCRIPT}"
    )


def again_url(lease: Lease, hub_url: str, server_url: str) -> str:
    """Return where a click starts a session like one that ended, and then shows JupyterLab.

    JupyterHub starts a server at once for the form's address with options in it.
    """
    amounts = {} if lease.size else _amounts(lease.groups[0])
    chosen = {
        "size": lease.size or CUSTOM,
        **amounts,
        "environment": lease.environment,
        "duration": f"{lease.length_seconds:.0f}",
        "queue": lease.queue,
        "datacenter": lease.datacenter or "",
    }
    options = {f"opt-{name}": value for name, value in chosen.items() if value}
    name = f"/{quote(lease.name, safe='')}" if lease.name else ""
    form = f"{hub_url}spawn/{quote(lease.owner, safe='@~')}{name}"
    return f"{form}?{urlencode({**options, 'next': f'{server_url}lab'})}"


def ending_notice(reason: str) -> str:
    """Return an alert for a session that is being stopped; the page looks again soon."""
    why = reason.rstrip(".")
    return (
        '<div class="alert alert-info nimbus-session-ending" role="status">'
        f"Your session is being stopped{': ' + escape(why) if why else ''} ...</div>"
        "<script>setTimeout(function () { location.reload(); }, 1000);</script>"
    )


def _opened(lease: Lease) -> str:
    if not lease.opened:
        return ""
    more = len(lease.opened) - _MOST_NAMES
    names = ", ".join(lease.opened[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f' <span class="nimbus-opened">Open were: {escape(names)}.</span>'


def _again(lease: Lease, url: str) -> str:
    length = format_duration(timedelta(seconds=lease.length_seconds))
    size = f"size {lease.size}" if lease.size else "the same amounts"
    return (
        f'<p class="mt-2 mb-0"><a class="btn btn-primary nimbus-again" href="{escape(url)}">'
        "Start the same session again</a> "
        f'<span class="text-muted">{escape(size)}, environment {escape(lease.environment)}, '
        f"for {length}</span></p>"
    )


def _amounts(group: Group) -> dict[str, str]:
    return {
        "cpus": format_cpus(group.cpus_milli),
        "memory": str(group.memory_bytes),
        "gpus": format_gpus(group.gpus, group.gpu_milli, group.gpu_models),
    }


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
