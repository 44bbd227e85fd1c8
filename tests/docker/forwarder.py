"""A wire that can be cut, or slow: forwards connections to a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

__all__ = ["Wire", "wire"]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Wire:
    """Forwards what connects to a port of this machine, or to a path, to ``target``."""

    target: str | int
    path: str = ""
    bytes_per_second: float = float("inf")
    port: int = 0
    server: asyncio.Server | None = None
    ends: set[asyncio.StreamWriter] = field(default_factory=set)

    async def join(self) -> None:
        """Let connections come."""
        if self.path:
            self.server = await asyncio.start_unix_server(self._forward, self.path)
            return
        self.server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all connections and take no more."""
        assert self.server is not None
        self.server.close()
        for end in list(self.ends):
            end.close()
        await asyncio.sleep(0)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await self._reach()
        self.ends |= {writer, there[1]}
        with suppress(OSError):
            await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))
        for end in (writer, there[1]):
            self.ends.discard(end)
            end.close()

    async def _reach(self) -> Streams:
        if isinstance(self.target, int):
            return await asyncio.open_connection("127.0.0.1", self.target)
        return await asyncio.open_unix_connection(self.target)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(len(data) / self.bytes_per_second)
        with suppress(OSError):
            writer.write_eof()


@asynccontextmanager
async def wire(
    target: str | int, path: str = "", bytes_per_second: float = float("inf")
) -> AsyncIterator[Wire]:
    """Give a wire, and cut it at the end."""
    made = Wire(target, path, bytes_per_second)
    await made.join()
    yield made
    await made.cut()
