"""Jobs through a real hub, from the command line a user has; killed at the worst moments."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import httpx
import pytest

from nimbus_hub.up.processes import ProcessRecord
from tests.hub.conftest import HubProcess, Terminal, User, wait_for

pytestmark = pytest.mark.hub

COUNT = 40
TICKING = f"""
import os, pathlib, time
rank = os.environ["NIMBUS_RANK"]
with open(os.path.join(os.environ["NIMBUS_OUTPUT_DIR"], "started-" + rank), "a") as file:
    file.write("once ")
for tick in range({COUNT}):
    print("rank", rank, "tick", tick, flush=True)
    time.sleep(0.2)
"""


def session_environment(hub: HubProcess) -> dict[str, str]:
    """Return what a terminal of the session has in its environment."""
    record = ProcessRecord.read(next(hub.state.sessions.glob("*.json")))
    assert record is not None
    environment = Path(f"/proc/{record.pid}/environ").read_bytes().decode().split("\0")
    return dict(word.split("=", 1) for word in environment if "=" in word)


def submitted(terminal: Terminal, *options: str) -> str:
    (terminal.directory / "ticking.py").write_text(TICKING)
    code, out, err = terminal.run("nimbus-run", "--detach", "--json", *options, "ticking.py")
    assert code == 0, err
    return str(json.loads(out)["id"])


def started(terminal: Terminal, job_id: str) -> None:
    """Wait until every replica is in the middle of its work."""
    wait_for(
        lambda: (
            all("tick 3" in log.text for log in terminal.client.logs(job_id))
            and len(terminal.client.logs(job_id)) == 2
        ),
        30,
        "job in the middle",
    )


def ended_as_if_nothing_had_happened(terminal: Terminal, job_id: str) -> None:
    job = wait_for(lambda: (seen := terminal.client.job(job_id)).is_ended and seen, 60, "job over")
    assert (job.state, job.reason, job.attempt) == ("succeeded", "", 1)
    for log in terminal.client.logs(job_id):
        rank = log.replica.rpartition("-")[2]
        assert log.text == "".join(f"rank {rank} tick {tick}\n" for tick in range(COUNT))
    for rank in range(2):
        assert (Path(job.output_dir) / f"started-{rank}").read_text() == "once "
    assert terminal.client.lease(job.lease_id).reason == "job succeeded"


def test_a_job_prints_in_the_terminal_and_ends_with_its_exit_code(terminal: Terminal) -> None:
    (terminal.directory / "hello.py").write_text(
        "import os, sys\nprint('hello', os.environ['NIMBUS_RANK'])\nsys.exit(int(sys.argv[1]))\n"
    )
    code, out, _ = terminal.run("nimbus-run", "--follow", "hello.py", "0")
    assert (code, out) == (0, "hello 0\n")
    code, out, err = terminal.run("nimbus-run", "--follow", "hello.py", "3")
    assert (code, out) == (1, "hello 0\n")
    assert "worker-0 on local exited with code 3" in err


def test_the_readme_cell_trains_on_two_processes(terminal: Terminal) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (cell,) = re.findall(r"```python\n%%nimbus_run (.*?)\n(.*?)```", readme, re.DOTALL)
    (terminal.directory / "cell.py").write_text(cell[1])
    code, out, err = terminal.run("nimbus-run", "--follow", *cell[0].split(), "cell.py")
    assert code == 0, err
    losses = [float(found) for found in re.findall(r"rank \d: loss (\d\.\d+)", out)]
    assert len(losses) == 2
    assert max(losses) < 0.3


def test_a_job_reports_its_progress_by_itself(terminal: Terminal) -> None:
    (terminal.directory / "reports.py").write_text(
        "from nimbus_hub.replica.progress import report\n"
        "print(report(0.5, 'epoch 1 of 2'), report(1.0, 'epoch 2 of 2'))\n"
    )
    code, out, err = terminal.run("nimbus-run", "--follow", "reports.py")
    assert (code, out) == (0, "True True\n"), err
    job = terminal.client.jobs(state="ended")[0]
    assert (job.progress, job.progress_message) == (1.0, "epoch 2 of 2")


def test_tensorboard_of_a_terminal_is_behind_its_sessions_log_in(
    hub: HubProcess, user: User, terminal: Terminal
) -> None:
    user.start()
    terminal.env |= session_environment(hub)
    logs = terminal.directory / "logs"
    logs.mkdir()
    board = terminal.start("nimbus-tensorboard", str(logs))
    try:
        assert board.stdout is not None
        path = board.stdout.readline().strip()
        assert path.startswith(f"/user/{user.name}/proxy/")
        assert "<title>TensorBoard</title>" in user.http.get(path).text
        with httpx.Client(base_url=hub.url, trust_env=False) as stranger:
            answer = stranger.get(path)
        assert "TensorBoard" not in answer.text
        assert answer.status_code in (302, 403)
    finally:
        board.send_signal(signal.SIGINT)
        board.communicate(timeout=30)


def test_a_killed_service_loses_nothing_of_a_running_job(
    hub: HubProcess, terminal: Terminal
) -> None:
    job_id = submitted(terminal, "--workers", "2")
    following = terminal.start("nimbus", "logs", "-f", job_id)
    started(terminal, job_id)
    service = ProcessRecord.read(hub.state.service_record)
    assert service is not None
    service.send(signal.SIGKILL)
    out, err = following.communicate(timeout=120)
    assert following.returncode == 0, err
    for rank in range(2):
        mine = [line for line in out.splitlines() if f"rank {rank} tick" in line]
        assert [int(line.split()[-1]) for line in mine] == list(range(COUNT))
    ended_as_if_nothing_had_happened(terminal, job_id)


def test_a_killed_hub_loses_nothing_of_a_running_job(hub: HubProcess, terminal: Terminal) -> None:
    job_id = submitted(terminal, "--workers", "2")
    started(terminal, job_id)
    hub.kill()
    hub.start()
    ended_as_if_nothing_had_happened(terminal, job_id)


def test_a_job_that_ended_while_nobody_looked_is_known_after(
    hub: HubProcess, terminal: Terminal
) -> None:
    job_id = submitted(terminal, "--workers", "2")
    started(terminal, job_id)
    outputs = Path(terminal.client.job(job_id).output_dir or "")
    hub.interrupt()
    logs = [hub.state.directory / "replicas" / f"{job_id}.1.worker-{n}" for n in range(2)]
    wait_for(
        lambda: all("exited" in (log / "status.json").read_text() for log in logs), 60, "exits"
    )
    assert outputs.is_dir()
    hub.start()
    ended_as_if_nothing_had_happened(terminal, job_id)


def test_a_job_outlives_the_session_it_came_from(
    hub: HubProcess, user: User, terminal: Terminal
) -> None:
    user.start()
    terminal.env |= session_environment(hub)
    job_id = submitted(terminal, "--workers", "2")
    started(terminal, job_id)
    user.stop()
    ended_as_if_nothing_had_happened(terminal, job_id)


def test_an_ended_lease_cannot_be_renewed(user: User, terminal: Terminal) -> None:
    user.start()
    (lease,) = user.leases("live")
    user.stop()
    code, out, err = terminal.run("nimbus", "lease", "renew", "--lease", lease["id"])
    assert (code, out) == (5, "")
    assert f"lease {lease['id']} ended at" in err
    assert "start a new session" in err


def test_a_directory_over_the_limit_names_its_largest_files(terminal: Terminal) -> None:
    (terminal.directory / "train.py").write_text("print(1)\n")
    with (terminal.directory / "weights.bin").open("wb") as file:
        file.truncate(501 * 2**20)
    code, out, err = terminal.run("nimbus-run", "train.py")
    assert (code, out) == (2, "")
    assert "weights.bin" in err
    assert ".nimbusignore" in err


def test_stop_all_without_a_hub_ends_sessions_and_jobs(
    hub: HubProcess, user: User, terminal: Terminal
) -> None:
    user.start()
    session = ProcessRecord.read(next(hub.state.sessions.glob("*.json")))
    assert session is not None
    job_id = submitted(terminal, "--workers", "2")
    started(terminal, job_id)
    hub.interrupt()
    assert session.is_alive
    hub.stop_all()
    assert not session.is_alive
    hub.start()
    job = terminal.client.job(job_id)
    assert (job.state, [replica.state for replica in job.replicas]) == ("stopped", ["exited"] * 2)
    assert "stop-all" in job.reason
    assert user.leases("live") == []


def test_one_dead_worker_ends_the_gang_and_is_named(terminal: Terminal) -> None:
    (terminal.directory / "dies.py").write_text(
        "import os, sys, time\n"
        "if os.environ['NIMBUS_RANK'] == '1':\n    sys.exit('out of luck')\n"
        "time.sleep(600)\n"
    )
    code, _, err = terminal.run("nimbus-run", "--follow", "--workers", "2", "dies.py")
    assert code == 1
    assert "worker-1 on local exited with code 1; the others were stopped" in err
    assert "out of luck" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--wrokers", "2", "ticking.py"], "--workers"),
        (["absent.py"], "absent.py"),
        (["--workers", "0", "ticking.py"], "workers must be at least 1, got 0"),
        (["--memory", "lots", "ticking.py"], "memory must be a size like 4G or 512M, got 'lots'"),
        (["--gpus", "64", "ticking.py"], "64"),
        (["--framework", "torch", "ticking.py"], "pytorch"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(
    terminal: Terminal, arguments: list[str], sentence: str
) -> None:
    (terminal.directory / "ticking.py").write_text("print(1)\n")
    before = len(terminal.client.jobs(state="all"))
    code, out, err = terminal.run("nimbus-run", *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err
    assert len(terminal.client.jobs(state="all")) == before


def test_anothers_job_id_is_no_job(terminal: Terminal) -> None:
    code, _, err = terminal.run("nimbus", "logs", "j-abcdefgh")
    assert code == 4
    assert "there is no job j-abcdefgh" in err
