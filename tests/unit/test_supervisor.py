"""The supervisor alone, as the process it is: what it reads, what it leaves on disk."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nimbus_hub import replica

FOLDER = Path(replica.__file__).parent
COMMAND = [sys.executable, "-I", "-S", str(FOLDER / "supervisor.py")]
ENV = {"PATH": "/usr/bin:/bin"}


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def write_spec(record: Path, *argv: str, **changes: Any) -> None:
    spec = {"argv": argv, "env": ENV, "cwd": "/", "directory": "/home/ada/nimbus/job-1", **changes}
    (record / "spec.json").write_text(json.dumps(spec))


def supervise(record: Path) -> dict[str, Any]:
    subprocess.run([*COMMAND, str(record)], check=True, timeout=60)
    return status(record)


def status(record: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((record / "status.json").read_text())
    return found


def end(exit_code: int | None, reason: str = "") -> dict[str, Any]:
    return {
        "state": "exited",
        "exit_code": exit_code,
        "reason": reason,
        "directory": "/home/ada/nimbus/job-1",
    }


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if not key.endswith(("_at", "cpu_seconds"))}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_what_runs_in_a_replica_is_written_in_python_3_6(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 6))
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    # What they share is beside them, and imported from there.
    beside = {other.stem for other in FOLDER.glob("*.py")}
    assert imported <= {*sys.stdlib_module_names, *beside}


def test_the_end_is_recorded_with_times_and_the_job_directory(tmp_path: Path) -> None:
    write_spec(tmp_path, "sh", "-c", "echo out; echo err >&2; exit 3")
    before = time.time()
    found = supervise(tmp_path)
    assert without_times(found) == end(3)
    assert before <= found["started_at"] <= found["ended_at"] <= time.time()
    assert (tmp_path / "output.log").read_text() == "out\nerr\n"


def test_it_says_who_it_is_so_that_it_can_be_told_from_others(tmp_path: Path) -> None:
    write_spec(tmp_path, "sh", "-c", "cut -d' ' -f22 /proc/$PPID/stat; echo $PPID")
    supervise(tmp_path)
    start_time, pid = map(int, (tmp_path / "output.log").read_text().split())
    assert json.loads((tmp_path / "supervisor.json").read_text()) == {
        "pid": pid,
        "start_time": start_time,
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    }


@pytest.mark.parametrize(
    ("argv", "changes", "code", "reason"),
    [
        (["nothing"], {}, 127, "the program 'nothing' was not found"),
        (["/nothing"], {}, 127, "the program '/nothing' was not found"),
        (["/etc/passwd"], {}, 126, "the program '/etc/passwd' cannot be run: Permission denied"),
        (["tr\0ue"], {}, 126, "the program 'tr\\x00ue' cannot be run: embedded null byte"),
        (
            ["true"],
            {"cwd": "/nowhere"},
            126,
            "the directory /nowhere cannot be entered: No such file or directory",
        ),
        (
            ["true"],
            {"cgroups": ["/nowhere"]},
            126,
            "its limits cannot be set in /nowhere: No such file or directory",
        ),
        (["sh", "-c", "kill -11 $$"], {}, -11, "ended by SIGSEGV"),
        (
            ["sh", "-c", "kill -9 $$"],
            {},
            -9,
            "killed by SIGKILL from outside, perhaps because the host had no memory left",
        ),
    ],
)
def test_the_reason_says_what_the_exit_code_does_not(
    tmp_path: Path, argv: list[str], changes: dict[str, Any], code: int, reason: str
) -> None:
    write_spec(tmp_path, *argv, **changes)
    assert without_times(supervise(tmp_path)) == end(code, reason)


def test_a_replica_is_run_once_whatever_is_started_again(tmp_path: Path) -> None:
    write_spec(tmp_path, "echo", "run")
    first = supervise(tmp_path)
    assert supervise(tmp_path) == first
    assert (tmp_path / "output.log").read_text() == "run\n"


def test_a_replica_whose_supervisor_died_is_not_run_again(tmp_path: Path) -> None:
    write_spec(tmp_path, "echo", "run")
    (tmp_path / "supervisor.json").write_text("{}")
    subprocess.run([*COMMAND, str(tmp_path)], check=True)
    assert not (tmp_path / "status.json").exists()


def test_a_stop_before_the_start_is_kept(tmp_path: Path) -> None:
    write_spec(tmp_path, "echo", "run")
    (tmp_path / "stop.json").write_text('{"grace_seconds": 5}')
    assert without_times(supervise(tmp_path)) == end(None, "stopped before it was started")
    assert not (tmp_path / "output.log").exists()


def test_two_at_once_start_one(tmp_path: Path) -> None:
    write_spec(tmp_path, "echo", "run")
    supervisors = [subprocess.Popen([*COMMAND, str(tmp_path)]) for _ in range(4)]
    assert [one.wait(60) for one in supervisors] == [0, 0, 0, 0]
    assert (tmp_path / "output.log").read_text() == "run\n"


def test_standard_input_is_empty_and_output_unbuffered(tmp_path: Path) -> None:
    write_spec(tmp_path, "sh", "-c", "cat; echo $PYTHONUNBUFFERED; ls /proc/self/fd | wc -l")
    supervise(tmp_path)
    # 0, 1, 2 and the directory that ls reads: no descriptor of the supervisor leaks.
    assert (tmp_path / "output.log").read_text() == "1\n4\n"


def test_a_stop_waits_for_the_grace_and_takes_a_shorter_one_later(tmp_path: Path) -> None:
    write_spec(tmp_path, "sh", "-c", "trap 'echo asked' TERM; echo on; while :; do sleep 1; done")
    log = tmp_path / "output.log"
    process = subprocess.Popen([*COMMAND, str(tmp_path)])
    eventually(lambda: log.exists() and log.read_text() == "on\n")
    for grace in (1000, 0):
        (tmp_path / "stop.json").write_text(json.dumps({"grace_seconds": grace}))
        process.send_signal(signal.SIGTERM)
        if grace:
            eventually(lambda: "asked" in log.read_text())
            assert status(tmp_path)["state"] == "running"
    assert process.wait(60) == 0
    reason = "stopped; killed because it had not ended after the grace"
    assert without_times(status(tmp_path)) == end(-9, reason)


def test_the_main_process_dies_with_its_supervisor(tmp_path: Path) -> None:
    write_spec(tmp_path, "sleep", "1000")
    process = subprocess.Popen([*COMMAND, str(tmp_path)])
    eventually((tmp_path / "status.json").exists)
    pid = status(tmp_path)["pid"]
    process.kill()
    process.wait(60)
    eventually(lambda: is_gone(pid))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"


def test_what_it_reads_comes_through_a_pipe_that_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "input")
    write_spec(tmp_path, "cat", has_input=True)
    process = subprocess.Popen([*COMMAND, str(tmp_path)])
    eventually(lambda: (tmp_path / "status.json").exists())
    for text in ("first\n", "second\n"):
        (tmp_path / "input").write_text(text)
    eventually(lambda: (tmp_path / "output.log").read_text() == "first\nsecond\n")
    assert status(tmp_path)["state"] == "running"
    (tmp_path / "input.end").touch()
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 0
    assert without_times(status(tmp_path)) == end(0)


def test_the_end_says_how_much_processor_time_it_took(tmp_path: Path) -> None:
    write_spec(
        tmp_path,
        sys.executable,
        "-I",
        "-S",
        "-c",
        "while __import__('time').process_time() < 0.2: pass",
    )
    assert 0.15 <= supervise(tmp_path)["cpu_seconds"] < 10
