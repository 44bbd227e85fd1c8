"""A hub with one declared GPU: who gets it, who waits, and what they are told."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from nimbus_hub.up.processes import ProcessRecord
from tests.hub.conftest import HubProcess, Terminal, User, wait_for

pytestmark = pytest.mark.hub

CLUSTER = """\
hosts:
  - name: gpu-1
    cpus: 8
    memory: 32G
    gpus: {model: A100, count: 1, memory: 40G}
"""
DEVICES = "import os; print('devices', os.environ['CUDA_VISIBLE_DEVICES'], flush=True)\n"
HOLDS = DEVICES + "import time; time.sleep(600)\n"


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> str:
    cluster = tmp_path_factory.mktemp("cluster") / "cluster.yaml"
    cluster.write_text(CLUSTER)
    return (
        "c = get_config()\n"
        f"c.NimbusHub.cluster_file = {str(cluster)!r}\n"
        "c.NimbusSpawner.patience = '3s'\n"
    )


def free_gpus(user: User) -> str:
    found = re.search(r"A100: (\d of \d) free", user.http.get("/hub/spawn").text)
    assert found is not None
    return found[1]


def test_a_session_sees_the_gpu_it_was_granted_and_no_other(hub: HubProcess, user: User) -> None:
    assert free_gpus(user) == "1 of 1"
    user.start(gpus=1)
    record = ProcessRecord.read(next(hub.state.sessions.glob("*.json")))
    assert record is not None
    environment = Path(f"/proc/{record.pid}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=0" in environment
    user.stop()
    user.start(cpus=1)
    record = ProcessRecord.read(next(hub.state.sessions.glob("*.json")))
    assert record is not None
    environment = Path(f"/proc/{record.pid}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=" in environment


def test_a_job_waits_for_the_gpu_and_gets_it_when_it_is_given_back(
    user: User, terminal: Terminal
) -> None:
    user.start(gpus=1)
    (terminal.directory / "devices.py").write_text(DEVICES)
    waiting = terminal.start("nimbus-run", "--follow", "--gpus", "A100:1", "devices.py")
    (lease,) = wait_for(
        lambda: [one for one in terminal.client.queue() if one.position == 1], 30, "job waits"
    )
    assert "GPU" in lease.reason
    user.stop()
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (0, "devices 0\n"), err


def test_patience_that_is_over_is_a_sentence_and_no_traceback(
    hub: HubProcess, user: User, terminal: Terminal
) -> None:
    (terminal.directory / "holds.py").write_text(HOLDS)
    code, _, err = terminal.run("nimbus-run", "--detach", "--gpus", "1", "holds.py")
    assert code == 0, err
    wait_for(lambda: terminal.client.jobs()[0].state == "running", 30, "job holds the GPU")
    said = len(hub.state.hub_log.read_text())
    began = time.monotonic()
    sentence = user.refusal(gpus=1)
    assert "No session was started: nothing was free within" in sentence
    assert "GPU" in sentence
    assert time.monotonic() - began < 30
    assert "Traceback" not in hub.state.hub_log.read_text()[said:]
    assert user.leases("live") == []


def test_more_gpus_than_exist_are_refused_with_what_there_is(
    user: User, terminal: Terminal
) -> None:
    assert "1" in user.refusal(gpus=2)
    (terminal.directory / "devices.py").write_text(DEVICES)
    code, _, err = terminal.run("nimbus-run", "--gpus", "H100:1", "devices.py")
    assert code == 2
    assert "A100" in err


def test_hosts_join_and_leave_as_the_file_says_without_a_restart(
    configuration: str, hub: HubProcess, user: User
) -> None:
    found = re.search(r"cluster_file = '(.+)'", configuration)
    assert found is not None
    file = Path(found[1])
    file.write_text(CLUSTER + CLUSTER.partition("\n")[2].replace("gpu-1", "gpu-2"))
    wait_for(lambda: free_gpus(user).endswith("of 2"), 20, "the second host joins")
    file.write_text(CLUSTER.replace("count: 1", "count: none"))
    sentence = f"{file}:5: hosts[0].gpus.count must be a whole number from 0 to 1000, got 'none'"
    wait_for(lambda: sentence in hub.state.hub_log.read_text(), 20, "the fault is told")
    assert free_gpus(user).endswith("of 2")
    file.write_text(CLUSTER)
    wait_for(lambda: free_gpus(user).endswith("of 1"), 20, "the second host leaves")
