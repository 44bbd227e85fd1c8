"""The service as a process of its own, which can be killed: ``python -m tests.frameworks.serve``.

Its only host is this machine, taken to have many CPUs: gangs are large here and work little.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path

from nimbus_hub.executors.accounts import Account, Accounts
from nimbus_hub.executors.local import LocalExecutor
from nimbus_hub.model.host import Host
from nimbus_hub.store.snapshots import SnapshotStore
from tests.service.conftest import GIB, Servers, Service, SteppedClock


def main(given: str) -> None:
    """Serve until killed; ``given`` has state, port and environments (name to bin), as JSON."""
    told = json.loads(given)
    state = Path(told["state"])
    executor = LocalExecutor(
        state,
        {name: Path(bin) for name, bin in told["environments"].items()},
        SnapshotStore(state / "snapshots", 10 * 2**20),
        hosts=[Host("local", 64_000, 64 * GIB)],
        accounts=Accounts(Account("ada", os.getuid(), os.getgid(), state / "home")),
    )
    (state / "home").mkdir(exist_ok=True)
    database = f"sqlite:///{state / 'nimbus.sqlite'}"
    service = Service(state, executor, Servers(), SteppedClock(), database, port=told["port"])
    service.environments = dict.fromkeys(told["environments"], "")
    asyncio.run(service._serve(threading.Event()))


if __name__ == "__main__":
    main(sys.argv[1])
