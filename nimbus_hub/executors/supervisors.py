"""Supervisors: the process beside each replica that outlives the service, and its start."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from nimbus_hub import replica
from nimbus_hub.executors.records import Record

__all__ = ["SUPERVISOR", "WARM", "exit_code", "spawn", "until_closed"]

_FOLDER = Path(replica.__file__).parent
SUPERVISOR = _FOLDER / "supervisor.py"
"""Runs one replica to its end."""
WARM = _FOLDER / "warm.py"
"""Keeps a holder warm, and runs others in its place."""


def spawn(program: Path, record: Record) -> tuple[int, int]:
    """Start the supervisor of a record; return its pid and what closes when the replica runs."""
    ready, sink = os.pipe()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        # Without a shell, an inherited environment or a controlling terminal.
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(program), str(record.path), "3"],
            {"LANG": "C.UTF-8"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(record.path / "supervisor.log"), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, sink, 3),
            ],
            setsid=True,
            setsigmask=[],
        )
    except OSError:
        os.close(ready)
        raise
    finally:
        os.close(sink)
    return pid, ready


async def until_closed(descriptor: int) -> None:
    """Wait until the other end of a pipe is closed, then close this one."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    loop.add_reader(descriptor, closed.set)
    try:
        await closed.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def exit_code(pid: int) -> int:
    """Wait for a child and return its exit code; 0 if it was collected already."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return 0
