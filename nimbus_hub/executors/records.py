"""Records: the directory of a replica on disk, from which it is found again.

The supervisor's module docstring says what is in it. It belongs to the service's account
and nobody else may enter it, so what is read here is what was written here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nimbus_hub.clock import SystemClock
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.processes import Process
from nimbus_hub.model.replica import LogChunk, ReplicaState, ReplicaStatus

__all__ = ["Reading", "Record", "checked_id"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def checked_id(text: str) -> str:
    """Return an id that is safe as the name of a file; raise InvalidRequest for others."""
    if not _ID.fullmatch(text):
        raise InvalidRequest(f"an id must be letters, digits, dots and dashes, got {text!r}")
    return text


@dataclass(frozen=True, slots=True)
class Reading:
    """What a record says at one moment. ``session`` is the pid of the main process."""

    status: ReplicaStatus | None
    supervisor: Process | None
    is_supervised: bool
    session: int | None = None

    @property
    def is_over(self) -> bool:
        """Tell whether the end is recorded."""
        return self.status is not None and self.status.state.is_end


@dataclass(frozen=True, slots=True)
class Record:
    """One replica's directory."""

    path: Path

    def make(self) -> None:
        """Make the directory, for the service's account alone."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def exists(self) -> bool:
        """Tell whether anything was ever recorded."""
        return self.path.is_dir()

    def read(self) -> Reading:
        """Read who supervises and what is recorded, in the order that misses no end."""
        supervisor = None
        identity = self._load("supervisor.json")
        if identity is not None:
            supervisor = _process(identity)
        # First who lives, then what is recorded: an end is recorded before the supervisor goes.
        is_supervised = supervisor is not None and supervisor.is_alive
        values = self._load("status.json")
        session = values.get("pid") if values else None
        return Reading(_status(values), supervisor, is_supervised, session)

    def write_spec(self, values: dict[str, Any]) -> None:
        """Write what the supervisor is to run."""
        self._save("spec.json", values)

    def write_stop(self, grace_seconds: float) -> None:
        """Write that it is to end; the supervisor looks for it before it starts anything."""
        self._save("stop.json", {"grace_seconds": grace_seconds})

    def is_stopping(self) -> bool:
        """Tell whether somebody asked for the end."""
        return (self.path / "stop.json").exists()

    def write_end(
        self, reason: str, exit_code: int | None = None, state: ReplicaState = ReplicaState.EXITED
    ) -> ReplicaStatus:
        """Record an end that no supervisor has recorded; return what is recorded now."""
        values = self._load("status.json") or {}
        found = _status(values)
        if found is not None and found.state.is_end:
            return found
        now = SystemClock().now()
        values.update(
            state=str(state), exit_code=exit_code, reason=reason, ended_at=now.timestamp()
        )
        self._save("status.json", values)
        status = _status(values)
        assert status is not None
        return status

    def groups(self) -> tuple[Path, ...]:
        """Return the control groups it was put into."""
        spec = self._load("spec.json") or {}
        return tuple(Path(group) for group in spec.get("cgroups", ()))

    def last_words(self) -> str:
        """Return the last line that the supervisor itself has written."""
        with contextlib.suppress(OSError):
            lines = (self.path / "supervisor.log").read_text(errors="replace").split("\n")
            return next((line for line in reversed(lines) if line.strip()), "")
        return ""

    def read_output(self, offset: int, limit: int) -> LogChunk:
        """Read the log. First whether it is over, then how long it is: so no byte is lost."""
        is_over = self.read().is_over
        try:
            descriptor = os.open(self.path / "output.log", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return LogChunk(max(0, offset), b"", is_over)
        try:
            size = os.fstat(descriptor).st_size
            start = max(0, size + offset) if offset < 0 else offset
            data = os.pread(descriptor, max(0, min(limit, size - start)), start)
        finally:
            os.close(descriptor)
        return LogChunk(start, data, is_over and start + len(data) >= size)

    def _load(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            # Cut short by a crash of the machine; that the file is there still says something.
            return {}
        return found

    def _save(self, name: str, values: dict[str, Any]) -> None:
        partial = self.path / f".{name}.new"
        partial.write_text(json.dumps(values))
        partial.replace(self.path / name)


def _process(values: dict[str, Any]) -> Process:
    return Process(values.get("pid", 0), values.get("start_time", 0), values.get("boot_id", ""))


def _status(values: dict[str, Any] | None) -> ReplicaStatus | None:
    if not values or "state" not in values:
        return None
    return ReplicaStatus(
        ReplicaState(values["state"]),
        exit_code=values.get("exit_code"),
        reason=values.get("reason", ""),
        directory=values.get("directory", ""),
        started_at=_moment(values.get("started_at")),
        ended_at=_moment(values.get("ended_at")),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
