"""The user's script before a session is taken away, run for real: bounds, log, outcome.

Processes are started and waited for, since what is checked is how they end.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from nimbus_labextension.script import Script

VARIABLES = {"NIMBUS_LEASE_ID": "l-1", "NIMBUS_REASON": "it ran out"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".nimbus").mkdir()
    return tmp_path


def script(home: Path, text: str, *, term: float = 20, kill: float = 1) -> Script:
    made = Script(home, term_seconds=term, kill_seconds=kill)
    made.path.write_text(text)
    made.path.chmod(0o700)
    return made


def test_without_a_script_there_is_none(home: Path) -> None:
    assert not Script(home).is_there
    Script(home).path.write_text("#!/bin/sh\n")
    assert not Script(home).is_there, "it is not executable"
    Script(home).path.chmod(0o700)
    assert Script(home).is_there


def test_it_runs_in_the_home_and_knows_the_lease_and_why_it_ends(home: Path) -> None:
    made = script(home, '#!/bin/sh\npwd\necho "$NIMBUS_LEASE_ID: $NIMBUS_REASON"\n')
    assert made.run(VARIABLES, "lease l-1: it ran out") == "exit code 0"
    first, *output, last = made.log.read_text().splitlines()
    assert first.startswith("== 20")
    assert first.endswith("+00:00 lease l-1: it ran out")
    assert output == [str(home), "l-1: it ran out"]
    assert last.endswith("+00:00 exit code 0")


def test_an_exit_code_is_told_with_where_the_output_is(home: Path) -> None:
    made = script(home, "#!/bin/sh\necho no space left >&2\nexit 3\n")
    assert made.run(VARIABLES, "") == "exit code 3, see ~/.nimbus/before-reclaim.log"
    assert "no space left\n" in made.log.read_text()


def test_a_script_that_cannot_be_started_is_told(home: Path) -> None:
    made = script(home, "#!/no/such/shell\n")
    assert made.run(VARIABLES, "").startswith("could not be started (No such file or directory)")


def test_at_the_bound_it_may_end_by_itself_within_the_grace(home: Path) -> None:
    made = script(home, "#!/bin/sh\ntrap 'echo saved; exit 0' TERM\nsleep 60 & wait\n", term=0.5)
    assert made.run(VARIABLES, "").startswith("stopped after 0.5 s")
    assert "saved\n" in made.log.read_text()


def test_at_the_bound_its_whole_group_is_killed(home: Path) -> None:
    text = "#!/bin/sh\ntrap '' TERM\n(trap '' TERM; while :; do sleep 1; done) &\necho $!\nwait\n"
    made = script(home, text, term=0.5, kill=0.5)
    began = time.monotonic()
    assert made.run(VARIABLES, "").startswith("stopped after 0.5 s")
    assert time.monotonic() - began < 5
    child = int(made.log.read_text().splitlines()[1])
    _, alive = psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], 5)
    assert all(each.status() == psutil.STATUS_ZOMBIE for each in alive)


def test_what_it_leaves_running_does_not_hold_up_the_end(home: Path) -> None:
    made = script(home, "#!/bin/sh\nsleep 5 &\necho started\n")
    began = time.monotonic()
    assert made.run(VARIABLES, "") == "exit code 0"
    assert time.monotonic() - began < 3
    assert "started\n" in made.log.read_text()


def test_the_log_is_bounded_within_a_run_and_over_many(home: Path) -> None:
    made = script(home, "#!/bin/sh\nhead -c 5000000 /dev/zero\n")
    for _ in range(3):
        assert made.run(VARIABLES, "") == "exit code 0"
    assert made.log.stat().st_size < 2 * 2**20
    assert b"the rest of the output is not kept" in made.log.read_bytes()
    assert os.access(made.log, os.W_OK)
