"""A warm server in a container: `python -m nimbus_spawner.warm --port 8888`.

It imports ahead what a session's server needs, and then waits on a port for its claim. Only who
knows the secret can claim it. Its SHA-256, in hexadecimal digits, is the variable
``NIMBUS_WARM_SHA256``, or what is in the file that ``--sha256-file`` names; the secret is
nowhere in the container. An open port means that all is imported.

A claim is one connection. One line of JSON, at most 1 MiB with its newline, is sent within 10
seconds of the connection:

    {"secret": "...",               the secret
     "args": ["--allow-root", ...], arguments of the server, as after -m nimbus_spawner.singleuser
     "env": {"HOME": "/home/ada", ...},     its environment, exactly
     "inherit": false,              true: env is put on top of the environment that this process
                                    was started with, less NIMBUS_WARM_*
     "cwd": "/home/ada"}            its directory, absolute; it must be there

"inherit" may be left out, nothing else may, and there is nothing else. Then one line comes back
and the connection is closed:

    {"claimed": true}      this very process, forking nothing, becomes the server. The port was
                           closed before this was sent, so that the server may listen on it.
    {"error": "..."}       it is not claimed, and goes on waiting.

After 100 wrong secrets it ends, with exit code 1. At most 16 connections are open at once; others
wait. A server whose environment holds what python or an import reads once, and other than this
process has it, is started anew in it (`ahead.py`): the claim is the same, the start slower.
What /proc shows of the environment is what fits where that of this process was; a variable
``NIMBUS_WARM_ROOM`` of many spaces makes room.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import select
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from nimbus_spawner.ahead import Ahead
from nimbus_spawner.claim import Claim

__all__ = ["Counter", "main"]

_VARIABLE = "NIMBUS_WARM_SHA256"
_OWN = "NIMBUS_WARM_"
_LONGEST_BYTES = 2**20
_SECONDS = 10.0
_MOST_WRONG = 100
_MOST_CONNECTIONS = 16


class Counter:
    """Where claims are made: a listening socket, until one caller knew the secret.

    ``digest`` is the SHA-256 of that.
    """

    def __init__(self, listener: socket.socket, digest: bytes) -> None:
        self._listener = listener
        self._digest = digest
        self._deadlines: dict[socket.socket, float] = {}
        self._lines: dict[socket.socket, bytearray] = {}
        self._wrong = 0

    def wait(self) -> Claim:
        """Return the claim. The socket is closed then, and whoever claimed has been answered."""
        self._listener.setblocking(False)
        while True:
            for connection in self._ready():
                if connection is self._listener:
                    self._welcome()
                    continue
                claim = self._hear(connection)
                if claim is not None:
                    return claim
            now = time.monotonic()
            for connection, deadline in list(self._deadlines.items()):
                if deadline <= now:
                    self._refuse(connection, f"no claim came within {_SECONDS:g} s")

    def _ready(self) -> list[socket.socket]:
        """Wait until something comes, or the time of a caller is over."""
        listening = [self._listener] if len(self._lines) < _MOST_CONNECTIONS else []
        seconds = None
        if self._deadlines:
            seconds = max(0.0, min(self._deadlines.values()) - time.monotonic())
        return select.select([*listening, *self._lines], [], [], seconds)[0]

    def _welcome(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # It is gone again.
        connection.setblocking(False)
        self._deadlines[connection] = time.monotonic() + _SECONDS
        self._lines[connection] = bytearray()

    def _hear(self, connection: socket.socket) -> Claim | None:
        """Take what came; return the claim if it is one."""
        try:
            part = connection.recv(_LONGEST_BYTES)
        except OSError:
            part = b""
        line = self._lines[connection]
        line += part
        if not part:
            self._drop(connection)
        elif len(line) > _LONGEST_BYTES:
            self._refuse(connection, f"a claim has at most {_LONGEST_BYTES} bytes")
        elif line.endswith(b"\n"):
            return self._judge(connection, bytes(line))
        return None

    def _judge(self, connection: socket.socket, line: bytes) -> Claim | None:
        try:
            found = json.loads(line)
            secret = found.pop("secret", None) if isinstance(found, dict) else None
            if not isinstance(secret, str):
                raise ValueError("there is no secret in it")
            given = hashlib.sha256(secret.encode(errors="surrogateescape")).digest()
            if not hmac.compare_digest(given, self._digest):
                self._wrong += 1
                raise PermissionError("the secret is wrong")
            claim = Claim.parse(found)
        except (ValueError, RecursionError, PermissionError) as error:
            self._refuse(connection, f"not claimed: {error}")
            if self._wrong >= _MOST_WRONG:
                raise SystemExit(f"nimbus: {_MOST_WRONG} wrong secrets, so this ends") from None
            return None
        self._listener.close()
        for other in set(self._lines) - {connection}:
            self._drop(other)
        self._answer(connection, {"claimed": True})
        return claim

    def _refuse(self, connection: socket.socket, reason: str) -> None:
        self._answer(connection, {"error": reason})

    def _answer(self, connection: socket.socket, answer: dict[str, Any]) -> None:
        with suppress(OSError):  # Who has gone is told nothing.
            connection.send(json.dumps(answer).encode() + b"\n")
        self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        del self._lines[connection], self._deadlines[connection]
        connection.close()


@click.command()
@click.option("--port", required=True, type=click.IntRange(1, 65535), help="Port to wait on.")
@click.option("--ip", default="0.0.0.0", show_default=True, help="Address to wait on.")
@click.option(
    "--sha256-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help=f"File with the SHA-256 of the secret. Default: the variable {_VARIABLE}.",
)
def main(port: int, ip: str, sha256_file: Path | None) -> None:
    """Import ahead, wait for a claim, and become the server of a session."""
    text = sha256_file.read_text() if sha256_file else os.environ.get(_VARIABLE, "")
    try:
        digest = bytes.fromhex(text.strip())
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise click.ClickException("the secret's SHA-256 must be given, in 64 hexadecimal digits")
    ahead = Ahead()
    claim = Counter(socket.create_server((ip, port)), digest).wait()
    env = claim.env
    if claim.is_inheriting:
        own = {name: value for name, value in ahead.own.items() if not name.startswith(_OWN)}
        env = own | env
    os.chdir(claim.cwd)
    ahead.become(claim.args, env)


if __name__ == "__main__":
    main()
