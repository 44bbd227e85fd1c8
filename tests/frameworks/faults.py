"""Faults for the tests of frameworks: what befalls a replica once it has got somewhere."""

from __future__ import annotations

import signal
import time

from nimbus_hub.client import Job
from tests.frameworks.cluster import Cluster

__all__ = ["kill_when", "wait_for_line"]


def wait_for_line(cluster: Cluster, job: Job, line: str) -> None:
    """Return once some replica has printed a line; fail after 60 s."""
    end = time.monotonic() + 60
    while line not in cluster.text(job):
        assert time.monotonic() < end, cluster.text(job)
        time.sleep(0.05)


def kill_when(
    cluster: Cluster, job: Job, line: str, name: str, number: int = signal.SIGKILL
) -> None:
    """Send the processes of one replica a signal once some replica has printed a line."""
    wait_for_line(cluster, job, line)
    role, _, index = name.rpartition("-")
    mine = [
        process
        for process in cluster.processes(job)
        if (process.environ()["NIMBUS_ROLE"], process.environ()["NIMBUS_ROLE_RANK"])
        == (role, index)
    ]
    assert mine, f"{name} has no process"
    for process in mine:
        process.send_signal(number)
