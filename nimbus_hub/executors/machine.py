"""This machine as a host: what it has, as its kernel and its driver tell."""

from __future__ import annotations

import os
import socket

import psutil

from nimbus_hub.executors.gpus import find_gpus
from nimbus_hub.model.host import Host

__all__ = ["this_machine"]


def this_machine(cpu_overcommit: float) -> Host:
    """Return this machine as the host ``local``, with so many times its CPUs."""
    return Host(
        name="local",
        cpus_milli=round((os.cpu_count() or 1) * cpu_overcommit * 1000),
        memory_bytes=psutil.virtual_memory().total,
        gpus=find_gpus(),
        labels={"hostname": socket.gethostname().partition(".")[0]},
    )
