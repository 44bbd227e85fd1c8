"""Input: what is written to the pipe that a replica reads from."""

from __future__ import annotations

import asyncio
import os

from nimbus_hub.errors import Conflict
from nimbus_hub.executors.records import Record

__all__ = ["write_input"]

_PATIENCE_SECONDS = 5.0


async def write_input(record: Record, data: bytes) -> None:
    """Write all of it; raise Conflict if the replica does not read, now or any more."""
    name = record.path.name
    descriptor = record.open_input()
    if descriptor is None:
        raise Conflict(f"replica {name} takes no input, or does not read it yet")
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await _write(descriptor, data)
    except TimeoutError:
        raise Conflict(f"replica {name} does not read what was written before") from None
    except BrokenPipeError:
        raise Conflict(f"replica {name} does not read its input any more") from None
    finally:
        os.close(descriptor)


async def _write(descriptor: int, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            has_room = asyncio.Event()
            loop.add_writer(descriptor, has_room.set)
            try:
                await has_room.wait()
            finally:
                loop.remove_writer(descriptor)
