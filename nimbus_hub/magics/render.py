"""How a job reads: as text and as HTML, made from values alone.

The HTML carries its style with it and takes its colours from JupyterLab where there are
any, so a saved notebook reads well on any page. Everything a program printed is escaped.
"""

from __future__ import annotations

import re
from html import escape

from nimbus_hub.client.explain import aligned, detail_text, framework_text, waiting_text
from nimbus_hub.client.resources import Job, Replica
from nimbus_hub.magics.tails import Tails
from nimbus_hub.model.quantities import format_duration

__all__ = [
    "as_html",
    "as_text",
    "failed_first",
    "first_line",
    "headline",
    "log_html",
    "summary_html",
    "title",
]

_SHOWN_REPLICAS = 16
_TEXT_LINES = 10
# The newest line is in sight at first.
_LOG_STYLE = "max-height:20em;overflow:auto;display:flex;flex-direction:column-reverse"
_CELL_STYLE = "text-align:left;padding:0 1em 0 0"
_COLOURS = {
    "queued": "#757575",
    "starting": "#1565c0",
    "running": "#1565c0",
    "succeeded": "#2e7d32",
    "failed": "#c62828",
    "stopped": "#757575",
}
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


def title(job: Job) -> str:
    """Return how people call the job: ``digits (j-1a2b)``."""
    return f"{job.name} ({job.id})" if job.name else job.id


def headline(job: Job) -> str:
    """Return a line that ends with a period: what it is, its state, how long, why."""
    words = ", ".join([f"Job {title(job)}: {job.state}", *_facts(job), *_progress(job)])
    if job.state == "queued":
        return f"{words}{detail_text(_reason(job))}."
    reason = _reason(job)
    return f"{words}. {reason}." if reason else f"{words}."


def _reason(job: Job) -> str:
    """Return why the job is in its state, without a period; of one that waits, all about it."""
    if job.state == "queued":
        return waiting_text(job)
    parts = (first_line(job.reason).rstrip("."), "" if job.is_ended else job.note.rstrip("."))
    return "; ".join(filter(None, parts))


def first_line(reason: str) -> str:
    """Return a reason without the output it may quote: that is shown as output."""
    line, _, quoted = reason.strip().partition("\n")
    if quoted and line.endswith(":"):
        return line.rpartition(". ")[0]
    return line


def failed_first(job: Job) -> tuple[Replica, ...]:
    """Return the replicas to show, those that failed before the others, the earliest first."""
    return tuple(sorted(job.replicas, key=_importance))[:_SHOWN_REPLICAS]


def as_text(job: Job, tails: Tails) -> str:
    """Return the job for a reader without widgets and without HTML."""
    lines = [headline(job), *_text_table(job)]
    for replica in failed_first(job):
        shown = _TERMINAL_CODES.sub("", tails.text(replica.name)).strip("\n").split("\n")
        if shown != [""]:
            lines += ["", f"--- {_replica_title(replica)}", *shown[-_TEXT_LINES:]]
    return "\n".join(lines)


def as_html(job: Job, tails: Tails) -> str:
    """Return the whole job as HTML that needs neither widgets nor a kernel."""
    logs = [
        f'<details style="margin:4px 0"{" open" if is_open else ""}>'
        f"<summary>{escape(_replica_title(replica))}</summary>"
        f'<div style="{_LOG_STYLE}">{log_html(tails.text(replica.name))}</div>'
        "</details>"
        for replica, is_open in _opened(job)
        if tails.text(replica.name)
    ]
    return summary_html(job) + "".join(logs)


def summary_html(job: Job, trouble: str = "") -> str:
    """Return state, reason, progress and the table of replicas as HTML."""
    facts = ", ".join(_facts(job))
    parts = [
        f'<span style="{_chip_style(job.state)}" role="status">{escape(job.state)}</span> '
        f"<b>{escape(title(job))}</b> {escape(facts)}"
    ]
    if reason := _reason(job):
        parts.append(escape(reason))
    if job.progress is not None:
        percent = f"{job.progress:.0%}"
        parts.append(
            f'<progress max="1" value="{job.progress:g}" aria-label="progress">{percent}'
            f"</progress> {percent} {escape(job.progress_message)}"
        )
    if trouble:
        parts.append(f'<span role="alert" style="color:#c62828">{escape(trouble)}</span>')
    lines = "".join(f'<div style="margin:2px 0">{part}</div>' for part in parts)
    return lines + _html_table(job)


def log_html(text: str) -> str:
    """Return program output as HTML; terminal colours are left out."""
    shown = escape(_TERMINAL_CODES.sub("", text).rstrip("\n"))
    return (
        '<pre style="flex:none;margin:0;padding:4px;line-height:1.3;white-space:pre-wrap;'
        f'overflow-wrap:anywhere">{shown}</pre>'
    )


def _has_failed(replica: Replica) -> bool:
    return replica.state == "lost" or replica.exit_code not in (None, 0)


def _opened(job: Job) -> list[tuple[Replica, bool]]:
    """Pair each shown replica with whether its log is open at first: those that matter."""
    shown = failed_first(job)
    return [(replica, number == 0) for number, replica in enumerate(shown)]


def _importance(replica: Replica) -> tuple[bool, float, int]:
    ended = replica.ended_at.timestamp() if replica.ended_at else float("inf")
    return (False, ended, replica.rank) if _has_failed(replica) else (True, 0, replica.rank)


def _facts(job: Job) -> list[str]:
    """Return what is to be said besides the state: duration, attempt."""
    facts = []
    if job.started_at and job.ended_at:
        facts.append(f"ran {format_duration(job.ended_at - job.started_at)}")
    if job.attempts > 1 and job.attempt:
        facts.append(f"attempt {job.attempt} of {job.attempts}")
    if job.framework_reason:
        facts.append(framework_text(job))
    return facts


def _progress(job: Job) -> list[str]:
    if job.progress is None or job.is_ended:
        return []
    return [f"{job.progress:.0%} {job.progress_message}".rstrip()]


def _rows(job: Job) -> list[tuple[str, str, str, str, str, str]]:
    return [
        (
            replica.name,
            replica.role,
            str(replica.rank),
            replica.host,
            f"{replica.state} ({replica.reason})" if replica.reason else replica.state,
            "" if replica.exit_code is None else str(replica.exit_code),
        )
        for replica in job.replicas
    ]


_COLUMNS = ("replica", "role", "rank", "host", "state", "exit code")


def _text_table(job: Job) -> list[str]:
    if not job.replicas:
        return []
    return aligned([_COLUMNS, *_rows(job)])


def _html_table(job: Job) -> str:
    if not job.replicas:
        return ""
    head = "".join(f'<th scope="col" style="{_CELL_STYLE}">{name}</th>' for name in _COLUMNS)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL_STYLE}">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in _rows(job)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _replica_title(replica: Replica) -> str:
    if replica.exit_code is not None:
        return f"{replica.name}: exit code {replica.exit_code}"
    return f"{replica.name}: {replica.state}"


def _chip_style(state: str) -> str:
    return (
        f"background:{_COLOURS.get(state, '#757575')};color:#fff;padding:1px 8px;"
        "border-radius:8px;font-weight:600"
    )
