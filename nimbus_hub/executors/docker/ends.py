"""What became of a container, as an engine tells it: pure functions."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nimbus_hub.executors.docker.containers import REPLICA_LABEL
from nimbus_hub.model.replica import ReplicaState

__all__ = ["End", "belongs_to", "by_signal", "end_of", "is_over", "moment"]

_GOING = ("removing", "dead")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d)")
_NO_PROGRAM = re.compile(rb"sh: (.* )?exec: (line \d+: )?(?P<name>.*): (?P<why>[^:\n]*)\n")
_NEVER = 1


@dataclass(frozen=True, slots=True)
class End:
    """What is recorded of an end."""

    state: ReplicaState
    exit_code: int | None
    reason: str
    ended_at: datetime | None


def end_of(
    found: Mapping[str, Any] | None,
    events: Sequence[Mapping[str, Any]] = (),
    *,
    was_stopped: bool,
    memory_bytes: int,
    output: bytes,
) -> End:
    """Return how a container ended; None is one that is gone, ``output`` how what it wrote ends.

    ``events`` are what its engine remembers of it, where that alone does not say enough.
    """
    if found is None or found["State"]["Status"] in _GOING:
        return End(ReplicaState.LOST, None, "its container was removed", _died_at(events))
    state = found["State"]
    code = _exit_code(state["ExitCode"])
    reason = _reason(code, state, was_stopped, memory_bytes)
    if code < 0 and not was_stopped and not state["OOMKilled"]:
        reason = _outside(code, events)
    reason = reason or _not_begun(code, output)
    return End(ReplicaState.EXITED, code, reason, moment(state["FinishedAt"]))


def by_signal(found: Mapping[str, Any]) -> bool:
    """Tell whether a container was ended by a signal."""
    return _exit_code(found["State"]["ExitCode"]) < 0


def is_over(found: Mapping[str, Any]) -> bool:
    """Tell whether a container has run and does not any more."""
    return found["State"]["Status"] in ("exited", *_GOING)


def belongs_to(found: Mapping[str, Any], replica_id: str) -> bool:
    """Tell whether a container is a replica's, and not of another that has its name."""
    labels = found["Config"]["Labels"] or {}
    return bool(labels.get(REPLICA_LABEL) == replica_id)


def moment(text: str) -> datetime | None:
    """Return a moment as an engine tells it, with its nine digits; None for never."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    zone = "+00:00" if match[3] == "Z" else match[3]
    found = datetime.fromisoformat(f"{match[1]}{match[2] or ''}{zone}").astimezone(UTC)
    return found if found.year > _NEVER else None


def _exit_code(code: int) -> int:
    """Return a code as subprocess has it; init tells 128 and the signal of the main process."""
    number = code - 128
    return -number if 0 < number <= signal.NSIG - 1 else code


def _reason(code: int, state: Mapping[str, Any], was_stopped: bool, memory_bytes: int) -> str:
    if state["OOMKilled"] and code:
        size = memory_bytes / 2**20
        return f"ended by its memory limit of {size:.0f} MiB; ask for more memory"
    if was_stopped and code == -signal.SIGKILL:
        return "stopped; killed because it had not ended after the grace"
    if was_stopped:
        return "stopped"
    return str(state.get("Error") or "")


def _outside(code: int, events: Sequence[Mapping[str, Any]]) -> str:
    """Say who ended it with a signal that we did not send, as far as that can be told."""
    if any(each["Action"] == "kill" for each in events):
        return f"its Docker engine sent {_name(-code)}: it was started again, or asked to do so"
    if code == -signal.SIGKILL:
        return "killed by SIGKILL from outside, perhaps because the host had no memory left"
    return f"ended by {_name(-code)}"


def _died_at(events: Sequence[Mapping[str, Any]]) -> datetime | None:
    """Return when it died: others that end for it end later."""
    moments = [each["timeNano"] for each in events if each["Action"] == "die"]
    return datetime.fromtimestamp(moments[-1] / 1e9, UTC) if moments else None


def _not_begun(code: int, output: bytes) -> str:
    match = _NO_PROGRAM.fullmatch(output) if code in (126, 127) else None
    if match is None:
        return ""
    name = match["name"].decode(errors="replace")
    if match["why"].strip() == b"not found":
        return f"the program {name!r} was not found"
    return f"the program {name!r} cannot be run: {match['why'].decode(errors='replace').strip()}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
