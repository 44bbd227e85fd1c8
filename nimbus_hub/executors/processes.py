"""Processes of this machine, told apart for good: a pid alone is soon somebody else's."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["MARKER", "Process", "boot_id", "kill_members"]

MARKER = "NIMBUS_REPLICA_ID"
"""In the environment of every process of a replica: it finds them when all else is lost."""

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process: its pid, when it started (ticks since boot), and of which boot."""

    pid: int
    start_time: int
    boot_id: str

    @property
    def is_alive(self) -> bool:
        """Tell whether it still runs; a zombie does not."""
        fields = _stat(self.pid)
        return (
            fields is not None
            and fields[0] not in "ZX"
            and int(fields[19]) == self.start_time
            and boot_id() == self.boot_id
        )

    def open(self) -> int | None:
        """Return a file descriptor that is readable when it ends, None if it is gone.

        Raises OSError where the kernel (before 5.3) has no such thing.
        """
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.is_alive:
            return descriptor
        os.close(descriptor)
        return None

    def send(self, number: int) -> bool:
        """Send a signal to this process and no other; tell whether it was there."""
        try:
            descriptor = self.open()
        except OSError:
            return self.is_alive and _kill(self.pid, number)
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return what names the time since this machine was started."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def kill_members(
    replica_ids: Iterable[str], session: int | None, groups: Iterable[Path] = ()
) -> bool:
    """Kill every process of a replica that has no supervisor to do it; tell if there was one.

    Processes forked from its holder carry the mark of that: then it is one of the ids.
    """
    marks = frozenset(f"{MARKER}={replica_id}".encode() for replica_id in replica_ids)
    found = {*_members(marks, session), *_grouped(groups)}
    for pid in found:
        _kill(pid, signal.SIGKILL)
    return bool(found)


def _members(marks: frozenset[bytes], session: int | None) -> Iterator[int]:
    """Find a replica's processes: those of its session, and those that carry its mark."""
    if session is not None and not _is_session_of(session, marks):
        session = None
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        fields = _stat(pid)
        if fields is None or fields[0] in "ZX":
            continue
        if (session is not None and int(fields[3]) == session) or _has_mark(pid, marks):
            yield pid


def _grouped(groups: Iterable[Path]) -> Iterator[int]:
    """Find what is in the replica's own control groups."""
    for group in groups:
        with contextlib.suppress(OSError):
            yield from map(int, (group / "cgroup.procs").read_text().split())


def _is_session_of(session: int, marks: frozenset[bytes]) -> bool:
    """Tell whether a session is the replica's and not a later one of the same number.

    A number is not given again while a member of the session lives. So either its leader
    is gone, and who is left is the replica's, or the leader must carry the mark.
    """
    fields = _stat(session)
    return fields is None or fields[0] in "ZX" or _has_mark(session, marks)


def _has_mark(pid: int, marks: frozenset[bytes]) -> bool:
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return not marks.isdisjoint(variables)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on, None if it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def _kill(pid: int, number: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
        return True
    return False
