"""Records: the directory of a replica on disk, from which it is found again.

The supervisor's module docstring says what is in it. It belongs to the service's account
and nobody else may enter it, so what is read here is what was written here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nimbus_hub.clock import SystemClock
from nimbus_hub.errors import Conflict, InvalidRequest
from nimbus_hub.executors.limits import ReplicaLimits
from nimbus_hub.executors.processes import Process
from nimbus_hub.model.replica import LogChunk, ReplicaState, ReplicaStatus

__all__ = ["Reading", "Record", "checked_id", "refuse_live"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def checked_id(text: str) -> str:
    """Return an id that is safe as the name of a file; raise InvalidRequest for others."""
    if not _ID.fullmatch(text):
        raise InvalidRequest(f"an id must be letters, digits, dots and dashes, got {text!r}")
    return text


def refuse_live(records: Iterable[Record]) -> None:
    """Raise Conflict if a replica has begun and is not over."""
    for record in records:
        if record.exists() and not record.read().is_over:
            raise Conflict(f"replica {record.path.name} is not over: what it leaves stays")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a record says at one moment. ``session`` is the pid of the main process.

    ``holder`` is the id of the replica in whose place it runs, None for one of its own.
    """

    status: ReplicaStatus | None
    supervisor: Process | None
    is_supervised: bool
    session: int | None = None
    holder: str | None = None

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

    def delete(self) -> None:
        """Delete all that was recorded, and the output; what is gone is left alone."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path)

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
        holder = identity.get("holder") if identity else None
        return Reading(_status(values), supervisor, is_supervised, session, holder)

    def write_spec(self, values: dict[str, Any]) -> None:
        """Write what the supervisor is to run."""
        self._save("spec.json", values)

    def spec(self) -> dict[str, Any]:
        """Return what was written to be run, nothing if nothing was."""
        return self._load("spec.json") or {}

    def write_status(self, state: ReplicaState, **values: Any) -> None:
        """Record how it is, for one that has no supervisor to do so; an end is for `write_end`."""
        self._save("status.json", {**(self._load("status.json") or {}), "state": state, **values})

    def write_stop(self, grace_seconds: float) -> None:
        """Write that it is to end; the supervisor looks for it before it starts anything."""
        self._save("stop.json", {"grace_seconds": grace_seconds})

    def make_input(self) -> None:
        """Make the pipe that its supervisor opens for it to read from."""
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self.path / "input", 0o600)

    def open_input(self) -> int | None:
        """Return a descriptor to write to what it reads, None while it does not read.

        Writing never waits: it raises BlockingIOError if there is no room.
        """
        if (self.path / "input.end").exists():
            return None
        try:
            return os.open(self.path / "input", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise

    def write_input_end(self) -> None:
        """Write that its input is to end; raise Conflict if it has none."""
        if not (self.path / "input").exists():
            raise Conflict(f"replica {self.path.name} takes no input")
        (self.path / "input.end").touch()

    def is_stopping(self) -> bool:
        """Tell whether somebody asked for the end."""
        return (self.path / "stop.json").exists()

    def grace_seconds(self) -> float | None:
        """Return the grace that was asked for, None if nobody asked for the end."""
        grace: float | None = (self._load("stop.json") or {}).get("grace_seconds")
        return grace

    def write_end(
        self,
        reason: str,
        exit_code: int | None = None,
        state: ReplicaState = ReplicaState.EXITED,
        ended_at: datetime | None = None,
        **values: Any,
    ) -> ReplicaStatus:
        """Record an end that no supervisor has recorded; return what is recorded now."""
        status = {**(self._load("status.json") or {}), **values}
        found = _status(status)
        if found is not None and found.state.is_end:
            return found
        moment = (ended_at or SystemClock().now()).timestamp()
        status.update(state=str(state), exit_code=exit_code, reason=reason, ended_at=moment)
        self._save("status.json", status)
        ended = _status(status)
        assert ended is not None
        return ended

    def groups(self) -> tuple[Path, ...]:
        """Return the control groups it was put into."""
        return self.limits().groups

    def limits(self) -> ReplicaLimits:
        """Return its control groups, and where the kernel counts what it killed in them."""
        spec = self._load("spec.json") or {}
        events = spec.get("memory_events")
        groups = tuple(Path(group) for group in spec.get("cgroups", ()))
        return ReplicaLimits(groups, Path(events) if events else None)

    def directory(self) -> str:
        """Return where its job's files are; empty before it started, and for a holder."""
        return str((self._load("status.json") or {}).get("directory", ""))

    def top(self) -> str:
        """Return the directory that its job's is in; empty if that is not known."""
        directory = self.directory()
        # A holder has no directory, but runs on it have a workspace there.
        found = (self._load("spec.json") or {}).get("top")
        return str(found or (Path(directory).parent if directory else ""))

    def account(self) -> dict[str, Any] | None:
        """Return the ids of the account it runs under, None for the service's own."""
        found: dict[str, Any] | None = (self._load("spec.json") or {}).get("account")
        return found

    def output_changed_at(self) -> datetime | None:
        """Return when it last wrote output, None if it never did."""
        try:
            changed = (self.path / "output.log").stat().st_mtime
        except FileNotFoundError:
            return None
        return _moment(changed)

    def gpus(self) -> tuple[int, ...]:
        """Return the indices of the devices it holds."""
        return tuple((self._load("spec.json") or {}).get("gpus", ()))

    def cpu_seconds(self) -> float | None:
        """Return the CPU time it came to; None before its end, or if nobody saw it."""
        seconds: float | None = (self._load("status.json") or {}).get("cpu_seconds")
        return seconds

    def gpu_seconds(self) -> float:
        """Return the busy GPU time that was written last."""
        return float((self._load("usage.json") or {}).get("gpu_seconds", 0.0))

    def write_gpu_seconds(self, seconds: float) -> None:
        """Keep the busy GPU time, which nobody else counts, over restarts of the service."""
        self._save("usage.json", {"gpu_seconds": seconds})

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
