"""What a session has started is found and ended at its end, wherever it has gone.

Processes are started and waited for, since what is checked is how they end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nimbus_spawner.local import end_processes, marked

from nimbus_hub.up.processes import ProcessRecord


def test_a_process_that_left_the_sessions_tree_is_found_by_its_lease() -> None:
    lease_id = f"l-{uuid.uuid4().hex}"
    # The shell ends at once, and init takes over what it has started.
    shell = subprocess.run(
        ["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!"],
        env={**os.environ, "NIMBUS_LEASE_ID": lease_id},
        capture_output=True,
        text=True,
        check=True,
    )
    left = ProcessRecord.of(int(shell.stdout))
    try:
        assert marked(lease_id) == [left]
        assert marked("l-other") == []
        assert marked("") == []
    finally:
        left.send(9)


Start = Callable[[str], ProcessRecord]


@pytest.fixture
def lease_id() -> str:
    return f"l-{uuid.uuid4().hex}"


@pytest.fixture
def start(lease_id: str, tmp_path: Path) -> Iterator[Start]:
    """Return how a program of a session is started; it writes a line when it is ready."""
    started: list[subprocess.Popen[str]] = []

    def run(text: str) -> ProcessRecord:
        process = subprocess.Popen(
            [sys.executable, "-uc", text],
            env={**os.environ, "NIMBUS_LEASE_ID": lease_id},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline()
        return ProcessRecord.of(process.pid)

    yield run
    for process in started:
        process.kill()
        process.communicate()


_SAVES = """
import signal, sys, time
def save(*_):
    open("saved", "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, save)
print("ready")
time.sleep(60)
"""
_IGNORES = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready")
time.sleep(60)
"""
_LEAVES_ANOTHER = """
import signal, subprocess, sys, time
def leave(*_):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                             start_new_session=True)
    open("another", "w").write(str(child.pid))
    sys.exit()
signal.signal(signal.SIGTERM, leave)
print("ready")
time.sleep(60)
"""


async def test_a_program_has_time_to_save_and_ends_by_itself(
    start: Start, lease_id: str, tmp_path: Path
) -> None:
    record = start(_SAVES)
    began = time.monotonic()
    assert await end_processes(lease_id, [], 5)
    assert time.monotonic() - began < 4
    assert not record.is_alive
    assert (tmp_path / "saved").exists()


async def test_a_program_that_does_not_end_is_killed_when_the_grace_is_over(
    start: Start, lease_id: str
) -> None:
    ignores, ends = start(_IGNORES), start(_SAVES)
    began = time.monotonic()
    assert await end_processes(lease_id, [], 1)
    assert 1 <= time.monotonic() - began < 4
    assert not ignores.is_alive
    assert not ends.is_alive


async def test_what_a_program_starts_when_it_is_ended_is_ended_too(
    start: Start, lease_id: str, tmp_path: Path
) -> None:
    start(_LEAVES_ANOTHER)
    assert await end_processes(lease_id, [], 5)
    another = ProcessRecord.of(int((tmp_path / "another").read_text()))
    assert not another.is_alive


async def test_a_child_without_the_lease_in_its_environment_is_ended_with_its_parent(
    start: Start, lease_id: str, tmp_path: Path
) -> None:
    text = _IGNORES.replace(
        "print(",
        "import subprocess; child = subprocess.Popen(['sleep', '60'], env={});"
        "open('child', 'w').write(str(child.pid)); print(",
    )
    start(text)
    child = ProcessRecord.of(int((tmp_path / "child").read_text()))
    assert await end_processes(lease_id, [], 0.5)
    assert not child.is_alive


async def test_what_is_no_part_of_the_session_goes_on(start: Start) -> None:
    other = start(_SAVES)
    assert await end_processes("l-other", [], 1)
    assert await end_processes("", [], 1)
    assert other.is_alive
