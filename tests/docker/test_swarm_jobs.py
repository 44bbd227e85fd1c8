"""Jobs over the overlay of a Swarm, through the whole service: a host for each replica."""

from __future__ import annotations

import re
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from nimbus_hub.client import Job
from tests.docker.cluster import wait_for
from tests.docker.swarm_service import SwarmService
from tests.frameworks.cluster import SCRIPTS

OVERLAY = IPv4Network("10.64.0.0/16")


def addresses(swarm: SwarmService, job: Job) -> dict[str, str]:
    """Return the addresses of a job's slots by name, which are all of the overlay's."""
    slots = swarm.client.lease(job.lease_id).slots
    assert {slot.host for slot in slots} == {"h1", "h2", "h3"}
    assert all(IPv4Address(slot.address) in OVERLAY for slot in slots)
    return {slot.name: slot.address for slot in slots}


def value(name: str, text: str) -> float:
    found = re.findall(rf"{name}=([\d.]+)", text)
    assert found, text
    return float(found[-1])


def one_process(directory: Path, script: str) -> str:
    """Return what a script prints as one process of this machine."""
    ran = subprocess.run(
        [sys.executable, script],
        cwd=directory,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=120,
    )
    return ran.stdout


def test_servers_and_workers_talk_over_the_overlay_while_the_service_is_killed(
    swarm: SwarmService,
) -> None:
    job = swarm.gang("--ps 1 --workers 2", SLOW="0.1")
    swarm.until_written(job, 1, "step 5 ")
    swarm.kill()
    swarm.until_written(job, 1, "step 20 ")
    swarm.start()
    ended = swarm.wait(job, 60)
    assert (ended.state, ended.attempt) == ("succeeded", 1), swarm.text(job)
    written = swarm.written(job, 1)
    assert swarm.output(job) == written
    own = addresses(swarm, job)
    workers = own["worker-0"], own["worker-1"]
    assert f"workers at {' '.join(workers)}\n".encode() in written["ps-0"]
    assert f"{workers[1]} reaches {own['ps-0']}\n".encode() in written["worker-1"]
    assert f"{workers[0]} agrees with {workers[1]}\n".encode() in written["worker-0"]
    single = one_process(swarm.digits, "servers.py")
    for name in ("accuracy", "weights"):
        assert value(name, written["worker-0"].decode()) == pytest.approx(value(name, single))
    assert value("accuracy", single) > 0.9
    swarm.until_clean(job)


def test_data_parallel_pytorch_comes_to_what_one_process_does(
    swarm: SwarmService, tmp_path: Path
) -> None:
    (tmp_path / "torch_digits.py").write_bytes((SCRIPTS / "torch_digits.py").read_bytes())
    line = "--framework pytorch --workers 3 --cpus 1.5 --env SLOW=0.5 torch_digits.py"
    job = swarm.submit(line, tmp_path)
    single = one_process(tmp_path, "torch_digits.py")
    wait_for(lambda: swarm.text(job).count("round 0") == 3, 90, "all three train")
    own = addresses(swarm, job)
    all_with_all = {address: {*own.values()} for address in own.values()}
    wait_for(lambda: peers(swarm, job) == all_with_all, 60, "each sums with both others")
    ended = swarm.wait(job, 60)
    text = swarm.text(job)
    assert (ended.state, ended.attempt) == ("succeeded", 1), text
    assert text.count("world=3") == 3
    assert value("accuracy", text) == value("accuracy", single) > 0.8
    assert value("weights", text) == pytest.approx(value("weights", single))
    swarm.until_clean(job)


def peers(swarm: SwarmService, job: Job) -> dict[str, set[str]]:
    """Return the addresses that each of a job's addresses is connected with, and itself."""
    found: dict[str, set[str]] = {}
    for process in swarm.processes(job):
        entered = [
            "nsenter",
            f"--net=/proc/{process.pid}/ns/net",
            "ss",
            "-Htn",
            "state",
            "established",
        ]
        told = subprocess.run(entered, capture_output=True, text=True, check=False, timeout=30)
        for line in told.stdout.splitlines():
            own, other = re.findall(r"\d+(?:\.\d+){3}", line)
            found.setdefault(own, {own}).add(other)
    return found
