"""The service as a process of its own, which can be killed: ``python -m tests.frameworks.serve``.

Its only host is this machine, taken to have many CPUs: gangs are large here and work little; or
a Docker engine, where one is given.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from nimbus_hub.executors.accounts import Account, Accounts
from nimbus_hub.executors.base import Executor
from nimbus_hub.executors.docker.executor import DockerExecutor
from nimbus_hub.executors.docker.hosts import HostFinder
from nimbus_hub.executors.docker.policy import read_policy
from nimbus_hub.executors.local import LocalExecutor
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.host import Host
from nimbus_hub.store.snapshots import SnapshotStore
from tests.service.conftest import GIB, Servers, Service, SteppedClock


def main(given: str) -> None:
    """Serve until killed; ``given`` has state, port and environments (name to bin), as JSON."""
    told = json.loads(given)
    state = Path(told["state"])
    executor = in_containers(state, told) if told["endpoint"] else in_processes(state, told)
    database = f"sqlite:///{state / 'nimbus.sqlite'}"
    service = Service(state, executor, Servers(), SteppedClock(), database, port=told["port"])
    service.environments = dict.fromkeys(told["environments"], "")
    asyncio.run(service._serve(threading.Event()))


def in_processes(state: Path, told: dict[str, Any]) -> Executor:
    """Return the executor for processes; environments are directories of programs."""
    (state / "home").mkdir(exist_ok=True)
    return LocalExecutor(
        state,
        {name: Path(bin) for name, bin in told["environments"].items()},
        SnapshotStore(state / "snapshots", 10 * 2**20),
        hosts=[Host("local", 64_000, 64 * GIB)],
        accounts=Accounts(Account("ada", os.getuid(), os.getgid(), state / "home")),
    )


def in_containers(state: Path, told: dict[str, Any]) -> Executor:
    """Return the executor for containers on an engine; environments are images."""
    engine = Engine("engine", told["endpoint"])
    return DockerExecutor(
        state / "docker",
        lambda: (engine,),
        told["environments"],
        SnapshotStore(state / "snapshots", 10 * 2**20),
        HostFinder(),
        read_policy(told["containers"]),
    )


if __name__ == "__main__":
    main(sys.argv[1])
