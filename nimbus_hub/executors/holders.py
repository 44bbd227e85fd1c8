"""Holders: replicas that are kept warm, and how others are handed to them and watched.

`nimbus_hub.replica.warm` says what is spoken over its socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from dataclasses import dataclass
from typing import Self

from nimbus_hub.executors.records import Record

__all__ = ["HeldRun"]


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A connection to a holder about one replica that runs in its place."""

    _socket: socket.socket

    @classmethod
    async def begin(cls, holder: Record, run: Record) -> Self | None:
        """Hand over a replica; None if the holder is not there."""
        return await cls._ask(holder, "record", run)

    @classmethod
    async def find(cls, holder: Record, run: Record) -> Self | None:
        """Watch a replica that was handed over; None if the holder is not there."""
        return await cls._ask(holder, "watch", run)

    @classmethod
    async def _ask(cls, holder: Record, verb: str, run: Record) -> Self | None:
        loop = asyncio.get_running_loop()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            directory = os.open(holder.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # The path of a socket has at most 107 bytes, that of a record may have more.
                await loop.sock_connect(connection, f"/proc/self/fd/{directory}/socket")
            finally:
                os.close(directory)
            await loop.sock_sendall(connection, json.dumps({verb: str(run.path)}).encode() + b"\n")
        except OSError:
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    async def has_changed(self) -> bool:
        """Wait for the next change of the replica's status; False at its end."""
        try:
            return bool(await asyncio.get_running_loop().sock_recv(self._socket, 1))
        except OSError:
            return False

    def close(self) -> None:
        """Let go; the replica goes on."""
        self._socket.close()
