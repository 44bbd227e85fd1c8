"""Keeps the Nimbus service running while its hub runs: `python -m nimbus_hub.up.service`.

JupyterHub looks after a service every 30 s; here one that died is back in a second. When
the hub is gone, however it went, the service is ended too: two of them on one database
would undo each other. A service that was left behind is ended before a new one starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from nimbus_hub.up.processes import ProcessRecord
from nimbus_hub.up.state import State

__all__ = ["keep", "main"]

log = logging.getLogger(__name__)

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 10.0
_LOOK_SECONDS = 0.5


async def keep(argv: Sequence[str], state: State, parent: int) -> int:
    """Run a command again and again until we are told to end or ``parent`` is gone."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ending.set)
    orphan = ProcessRecord.read(state.service_record)
    if orphan is not None:
        await orphan.end()
    watcher = asyncio.create_task(_watch_parent(parent, ending))
    delay = _FIRST_DELAY
    while not ending.is_set():
        began = loop.time()
        await _run_once(argv, state, ending)
        delay = _FIRST_DELAY if loop.time() - began > _LONGEST_DELAY else delay * 2
        await _wait(ending, min(delay, _LONGEST_DELAY))
    watcher.cancel()
    return 0


async def _run_once(argv: Sequence[str], state: State, ending: asyncio.Event) -> None:
    child = await asyncio.create_subprocess_exec(*argv)
    ProcessRecord.of(child.pid).write(state.service_record)
    over = asyncio.create_task(child.wait())
    told = asyncio.create_task(ending.wait())
    await asyncio.wait((over, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if over.done():
        log.error("The Nimbus service ended with exit code %s", child.returncode)
        return
    child.terminate()
    try:
        await asyncio.wait_for(asyncio.shield(over), timeout=15)
    except TimeoutError:
        child.kill()
    await over


async def _watch_parent(parent: int, ending: asyncio.Event) -> None:
    # An orphan is given another parent: that change is the news, and no pid is reused in it.
    while os.getppid() == parent:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_SECONDS)
    ending.set()


async def _wait(event: asyncio.Event, timeout_seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            await event.wait()


def main() -> None:
    """Keep `python -m nimbus_hub.app` running with the arguments of this command."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    argv = [sys.executable, "-m", "nimbus_hub.app", *sys.argv[1:]]
    raise SystemExit(asyncio.run(keep(argv, State.from_environment(), os.getppid())))


if __name__ == "__main__":
    main()
