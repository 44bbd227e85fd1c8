"""What a user is told about a session that ended without their doing."""

from __future__ import annotations

import signal
from datetime import UTC
from html import escape

from nimbus_hub.client.resources import Lease

__all__ = ["ended_notice", "ending_notice", "how_it_ended"]

_DIED = "the session's server ended"

_NOT_ASKED_FOR = frozenset({"expired", "preempted", "lost"})

_SCRIPT = (
    "<script>document.querySelectorAll('time.nimbus-ended').forEach(function (t) {"
    "var d = new Date(t.dateTime), today = d.toDateString() === new Date().toDateString();"
    "t.textContent = today ? d.toLocaleTimeString([], {hour: '2-digit', minute: '2-digit'})"
    " : d.toLocaleString([], {dateStyle: 'medium', timeStyle: 'short'});});</script>"
)
"""Shows the time in the reader's zone; without scripts it reads in UTC."""


def how_it_ended(status: int) -> str:
    """Return the reason for a server that ended by itself.

    Nothing is known of 0: the user shut it down, or a restarted hub could not see the code.
    """
    if status == 0:
        return _DIED
    if status < 0:
        return f"{_DIED} with exit code {status} ({_signal_name(-status)})"
    return f"{_DIED} with exit code {status}"


def ended_notice(lease: Lease | None) -> str:
    """Return an alert that says when and why a session ended, or nothing if its user did it."""
    if lease is None or lease.ended_at is None or lease.active_at is None:
        return ""
    if lease.state not in _NOT_ASKED_FOR and not lease.reason.startswith(f"{_DIED} with"):
        return ""
    ended = lease.ended_at.astimezone(UTC)
    reason = lease.reason.rstrip(".") or "its lease ended"
    return (
        '<div class="alert alert-warning nimbus-session-ended" role="status">'
        f'Your session ended at <time class="nimbus-ended" datetime="{ended.isoformat()}">'
        f"{ended:%H:%M} UTC</time>: {escape(reason)}.</div>{_SCRIPT}"
    )


def ending_notice(reason: str) -> str:
    """Return an alert for a session that is being stopped; the page looks again soon."""
    why = reason.rstrip(".")
    return (
        '<div class="alert alert-info nimbus-session-ending" role="status">'
        f"Your session is being stopped{': ' + escape(why) if why else ''} ...</div>"
        "<script>setTimeout(function () { location.reload(); }, 1000);</script>"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
