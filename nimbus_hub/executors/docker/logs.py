"""The output of containers, followed into their records byte for byte.

A container is attached to before it is started: what it writes is there at once, also the
beginning of a line. Whoever comes later, after a restart of the service or a cut in the
network, reads the engine's own copy from the beginning and leaves out what is there already;
that copy has lines when they are complete. It is bounded: what was in it and is not any more
is said to be missing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from nimbus_hub.errors import NimbusError

__all__ = ["Follower", "OutputFile", "Source", "Stream"]

TAIL_BYTES = 64 * 2**10
"""How much of the end is kept of output that is longer than may be kept."""
ANCHOR_BYTES = 4096
ENTRY_BYTES = 64
"""What the engine needs for a line beside its text, at most."""
RETRY_SECONDS = 1.0


class Stream(Protocol):
    """Bytes as they come, until it is closed from any thread."""

    def __iter__(self) -> Iterator[bytes]:
        """Return itself."""

    def __next__(self) -> bytes:
        """Return some bytes."""

    def close(self) -> None:
        """End it."""


class Source(Protocol):
    """A container, as its output is read; all raise Unavailable if its engine is silent."""

    def is_running(self) -> bool | None:
        """Tell whether it runs; None if it is gone."""

    def output(self, *, follow: bool) -> Stream:
        """Return all that the engine has kept, and what comes until its end."""


class OutputFile:
    """The file of a record's output; it takes so many bytes, and the last ones at the end."""

    def __init__(self, path: Path, limit: int) -> None:
        """Go on where an earlier one was.

        ``position`` is how many bytes came in all, ``recent`` the last of them.
        """
        self._path = path
        self._limit = limit
        self._file = open(path, "ab", buffering=0, opener=_private)  # noqa: SIM115
        size = os.fstat(self._file.fileno()).st_size
        if size > limit:
            # It was cut off at its end, which is written again.
            os.truncate(path, limit)
        self.position = min(size, limit)
        self._tail = bytearray()
        self._left_out = 0
        with path.open("rb") as file:
            file.seek(max(0, self.position - ANCHOR_BYTES))
            self.recent = file.read()

    def write(self, data: bytes) -> None:
        """Take bytes."""
        room = max(0, self._limit - self.position)
        self._append(data[:room])
        self.position += len(data)
        self.recent = (self.recent + data)[-ANCHOR_BYTES:]
        if data[room:]:
            self._tail += data[room:]
            self._left_out += max(0, len(self._tail) - TAIL_BYTES)
            del self._tail[:-TAIL_BYTES]
            # Silence is taken for a stall.
            os.utime(self._path)

    def note(self, words: str) -> None:
        """Write a line of ours, which is not in the replica's own."""
        self._append(f"\n[nimbus] {words}\n".encode())

    def finish(self) -> None:
        """Write the end, with a word on what is not there."""
        if self._left_out:
            limit = f"{self._limit / 2**20:.0f} MiB"
            self.note(f"{self._left_out} bytes of output are left out here, beyond {limit}")
        self._append(bytes(self._tail))
        self._tail.clear()
        self._left_out = 0

    def close(self) -> None:
        """Let go of it."""
        self._file.close()

    def _append(self, data: bytes) -> None:
        while data:
            data = data[self._file.write(data) :]


class Follower:
    """Reads one container's output to its end, in a thread of its own."""

    def __init__(self, source: Source, path: Path, limit: int, kept: int) -> None:
        """Write at most ``limit`` bytes to a path; the engine keeps about ``kept``."""
        self._source = source
        self._path = path
        self._limit = limit
        self._kept = kept
        self._stream: Stream | None = None
        self._is_closed = threading.Event()

    def run(self, attached: Stream | None) -> bool:
        """Follow to the end, from an attachment that has all, if there is one; False if closed.

        Silent engines are asked again and again: only what they say is an end.
        """
        file = OutputFile(self._path, self._limit)
        try:
            if attached is not None:
                self._take(attached, file, 0)
            while not self._is_closed.is_set():
                with suppress(NimbusError):
                    if self._go_on(file):
                        file.finish()
                        return True
                self._is_closed.wait(RETRY_SECONDS)
            return False
        finally:
            file.close()

    def again(self) -> None:
        """Ask anew: a connection may be dead without a word."""
        if self._stream is not None:
            self._stream.close()

    def close(self) -> None:
        """Have it end soon."""
        self._is_closed.set()
        self.again()

    def _go_on(self, file: OutputFile) -> bool:
        """Take what is missing, and what comes; tell whether that is all there will ever be."""
        is_running = self._source.is_running()
        if is_running:
            skip = self._catch_up(file)
            self._take(self._source.output(follow=True), file, skip)
            is_running = self._source.is_running()
        if is_running is False:
            self._catch_up(file)
        return not is_running and not self._is_closed.is_set()

    def _catch_up(self, file: OutputFile) -> int:
        """Take what the engine has now; return how much of its copy is there then."""
        size = total = 0
        for data in self._guarded(self._source.output(follow=False)):
            size += len(data) + ENTRY_BYTES
            total += len(data)
        # One of its files has just begun when the oldest of them goes.
        if size > self._kept * 3 // 4:
            return self._join(file)
        if total > file.position:
            self._take(self._source.output(follow=False), file, file.position)
        return file.position

    def _join(self, file: OutputFile) -> int:
        """Go on after the last bytes that are there, wherever the engine's copy begins."""
        found, total = _place(self._guarded(self._source.output(follow=False)), file.recent)
        if found is None:
            file.note("output is missing here: more came while nobody read than the engine keeps")
        if found != total:
            self._take(self._source.output(follow=False), file, found or 0)
        return total

    def _take(self, stream: Stream, file: OutputFile, skip: int) -> None:
        for data in self._guarded(stream):
            fresh = data[skip:]
            skip = max(0, skip - len(data))
            if fresh:
                file.write(fresh)

    def _guarded(self, stream: Stream) -> Iterator[bytes]:
        """Yield what comes; close it at the end, and from outside."""
        self._stream = stream
        try:
            if not self._is_closed.is_set():
                yield from stream
        finally:
            self._stream = None
            stream.close()


def _place(pieces: Iterable[bytes], anchor: bytes) -> tuple[int | None, int]:
    """Return where an anchor occurs last, by its end, None if it does not; and where all ends."""
    found, total, window = None, 0, b""
    for piece in pieces:
        window += piece
        total += len(piece)
        place = window.rfind(anchor)
        if place >= 0:
            found = total - len(window) + place + len(anchor)
        window = window[-len(anchor) :] if anchor else b""
    return found, total


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
