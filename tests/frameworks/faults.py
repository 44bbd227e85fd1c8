"""Faults for the tests of frameworks: what befalls a replica once it has got somewhere."""

from __future__ import annotations

import contextlib
import signal
import time

import psutil

from nimbus_hub.client import Job
from tests.frameworks.cluster import Cluster

__all__ = ["kill_when", "processes_of", "stop_at_start", "wait_for_line"]


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
    mine = processes_of(cluster, job, name)
    assert mine, f"{name} has no process"
    send(mine, number)


def stop_at_start(cluster: Cluster, job: Job, name: str) -> None:
    """Stop a replica as soon as it has a process, before it has met the others; 30 s at most."""
    end = time.monotonic() + 30
    while not (mine := processes_of(cluster, job, name)):
        assert time.monotonic() < end, f"{name} has no process"
        time.sleep(0.01)
    send(mine, signal.SIGSTOP)


def send(processes: list[psutil.Process], number: int) -> None:
    """Send processes a signal; with one of them others may already have gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def processes_of(cluster: Cluster, job: Job, name: str) -> list[psutil.Process]:
    """Return the processes of one replica."""
    role, _, index = name.rpartition("-")
    mine = []
    for process in cluster.processes(job):
        with contextlib.suppress(psutil.NoSuchProcess):
            env = process.environ()
            if (env["NIMBUS_ROLE"], env["NIMBUS_ROLE_RANK"]) == (role, index):
                mine.append(process)
    return mine
