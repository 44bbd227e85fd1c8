"""Faults of a Swarm with gangs that run: nothing is doubled, lost or left, and each end has a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nimbus_hub.client import Job
from tests.docker.swarm_service import SwarmService

KNOWN_SECONDS = 10
BACK_SECONDS = 90
GANG = "--ps 1 --workers 2"


@pytest.fixture(autouse=True)
def ready(swarm: SwarmService) -> Iterator[None]:
    """Begin with all hosts ready, and end what a failed test has left."""
    swarm.until_stands("ready", BACK_SECONDS)
    yield
    for job in swarm.client.jobs(state="live"):
        swarm.client.stop(job.id)
        swarm.wait(job, 60)


def succeeded(swarm: SwarmService, job: Job, attempt: int, go: Path) -> Job:
    """Let a job end, in an attempt that all replicas were in once."""
    go.touch()
    ended = swarm.wait(job, 120)
    assert (ended.state, ended.attempt) == ("succeeded", attempt), f"{ended.reason}\n{swarm.text(job)}"
    assert swarm.output(job) == swarm.written(job, attempt)
    swarm.until_clean(job)
    return ended


def test_containers_that_are_killed_or_removed_from_outside_end_their_attempt(
    swarm: SwarmService, tmp_path: Path
) -> None:
    go = swarm.shared / "killed"
    job = swarm.gang(f"{GANG} --retries 2", SLOW="0.1", UNTIL=str(go))
    swarm.until_written(job, 1, "step 3 ")
    host = swarm.host_of(job, "worker-1")
    host.docker("kill", f"nimbus-{job.id}.1.worker-1")
    swarm.until_written(job, 2, "step 3 ")
    assert "worker-1 on " in swarm.client.job(job.id).reason
    print(swarm.client.job(job.id).reason)
    host.docker("rm", "--force", f"nimbus-{job.id}.2.worker-1")
    swarm.until_written(job, 3, "step 3 ")
    print(swarm.client.job(job.id).reason)
    succeeded(swarm, job, 3, go)


def test_an_engine_that_is_killed_and_back(swarm: SwarmService) -> None:
    go = swarm.shared / "engine"
    job = swarm.gang(f"{GANG} --retries 2", SLOW="0.1", UNTIL=str(go))
    swarm.until_written(job, 1, "step 3 ")
    host = swarm.host("h2")
    host.kill()
    swarm.until_stands("down", KNOWN_SECONDS, "h2")
    print(swarm.stands("h2"))
    at = swarm.steps(job, 1)
    swarm.until_written(job, 1, f"step {at + 10} ")
    host.start()
    host.wait()
    swarm.until_stands("ready", BACK_SECONDS, "h2")
    swarm.until_written(job, 2, "step 3 ", seconds=90)
    print(swarm.client.job(job.id).reason)
    succeeded(swarm, job, 2, go)


def test_a_host_that_is_cut_off(swarm: SwarmService) -> None:
    """The others go on with the job, and what runs on there is ended when it is back."""
    go = swarm.shared / "cut"
    swarm.restart(patience="3s")
    job = swarm.gang("--ps 1 --workers 1 --retries 1", SLOW="0.1", UNTIL=str(go))
    swarm.until_written(job, 1, "step 3 ")
    first = swarm.client.job(job.id)
    host = swarm.host_of(job, "worker-0")
    if host.name == "h1":
        host = swarm.host_of(job, "ps-0")
    print({r.name: r.host for r in first.replicas}, host.name)
    host.cut()
    import time
    t=time.monotonic()
    swarm.until_stands("down", 15, host.name)
    print("down", time.monotonic()-t, swarm.stands(host.name))
    swarm.until_written(job, 2, "step 3 ", seconds=60)
    print("2", time.monotonic()-t)
    print(swarm.client.lease(first.lease_id).state, swarm.client.lease(first.lease_id).reason)
    print(swarm.client.job(job.id).reason)
    print(swarm.left_on_hosts(job))
    host.heal()
    t=time.monotonic()
    swarm.until_stands("ready", BACK_SECONDS, host.name)
    print("ready", time.monotonic()-t)
    succeeded(swarm, job, 2, go)
    print("clean", time.monotonic()-t)
    job = swarm.gang(GANG, STEPS="3")
    print({r.name: r.host for r in swarm.wait(job, 60).replicas})
    print("used", time.monotonic()-t)
    swarm.restart()


def test_manager_lost(swarm: SwarmService) -> None:
    go = swarm.shared / "manager"
    import subprocess, time
    with swarm.drained("h1"):
     job = swarm.gang("--ps 1 --workers 1 --retries 1", SLOW="0.1", UNTIL=str(go))
     swarm.until_written(job, 1, "step 3 ")
    host = swarm.host("h1")
    host.kill()
    t=time.monotonic()
    swarm.until_stands("down", 15, host.name)
    print("down", time.monotonic()-t, [swarm.stands(h.name) for h in swarm.hosts])
    small = swarm.submit(f"--framework script --cpus 0.2 servers.py", swarm.digits)
    at = swarm.steps(job, 1)
    swarm.until_written(job, 1, f"step {at + 150} ")
    print("150 steps", time.monotonic()-t)
    print([swarm.stands(h.name) for h in swarm.hosts])
    now=swarm.client.job(small.id)
    print(now.state, now.reason, [(r.host,r.state,r.reason) for r in now.replicas])
    host.start()
    host.wait()
    t=time.monotonic()
    swarm.until_stands("ready", BACK_SECONDS)
    print("ready", time.monotonic()-t)
    print(swarm.client.job(job.id).reason)
    print("small", swarm.wait(small, 90), swarm.text(small), time.monotonic()-t)
    print(swarm.client.job(job.id).reason)
    succeeded(swarm, job, 1, go)
    job = swarm.gang(GANG, STEPS="3")
    print({r.name: r.host for r in swarm.wait(job, 120).replicas})
    print("used", time.monotonic()-t)
