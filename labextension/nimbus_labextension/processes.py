"""The processes of this session, as Linux tells them in one short file each.

A session is its server, all that comes of it, and what left the family but still has the
lease's id in its environment, like a script started with nohup.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "Processes", "Share", "gained"]

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process: ``cpu_seconds`` are its own and those of its children that have ended."""

    pid: int
    parent: int
    started: int
    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Share:
    """The session's processes by what they are; each is in ``all``, and in one other at most."""

    all: Mapping[int, Process]
    terminals: Mapping[int, Process]
    others: Mapping[int, Process]


class Processes:
    """Finds the processes of a session; ``marks`` is what is in the environment of its own."""

    def __init__(self, marks: str, proc: Path = PROC) -> None:
        self._marks = marks.encode()
        self._proc = proc
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._is_marked: dict[tuple[int, int], bool] = {}

    def look(
        self, server: int, kernels: Collection[int], terminals: Collection[int]
    ) -> Share | None:
        """Return the session's processes; None where the system does not tell them.

        Kernels and the server itself are no ``others``, but what comes of them is.
        """
        table = {each.pid: each for each in self._table()}
        if server not in table:
            return None
        children: dict[int, list[int]] = {}
        for process in table.values():
            children.setdefault(process.parent, []).append(process.pid)
        family = _family([server], children)
        stray = _family(self._strays(table, family), children) - family
        shells = _family([pid for pid in terminals if pid in family], children)
        others = (family | stray) - shells - {server, *kernels}
        return Share(
            {pid: table[pid] for pid in family | stray},
            {pid: table[pid] for pid in shells},
            {pid: table[pid] for pid in others},
        )

    def _table(self) -> Iterator[Process]:
        try:
            names = [name for name in os.listdir(self._proc) if name.isdigit()]  # noqa: PTH208
        except OSError:
            return
        for name in names:
            try:
                with open(f"{self._proc}/{name}/stat", "rb") as file:  # noqa: PTH123
                    found = file.read()
            except OSError:
                continue  # It has ended meanwhile.
            # The name in brackets may have brackets and spaces itself.
            values = found[found.rindex(b")") + 2 :].split()
            yield Process(
                pid=int(name),
                parent=int(values[1]),
                started=int(values[19]),
                cpu_seconds=sum(map(int, values[11:15])) / self._ticks,
                memory_bytes=int(values[21]) * self._page_bytes,
            )

    def _strays(self, table: Mapping[int, Process], family: Collection[int]) -> Iterable[int]:
        """Yield what has the session's mark; each process is asked once in its life."""
        seen = {}
        for process in table.values():
            if process.pid in family:
                continue
            key = process.pid, process.started
            known = self._is_marked.get(key)
            seen[key] = self._has_mark(process.pid) if known is None else known
            if seen[key]:
                yield process.pid
        self._is_marked = seen

    def _has_mark(self, pid: int) -> bool:
        try:
            return self._marks in (self._proc / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:
            return False  # Of another account, or ended.


def gained(now: Mapping[int, Process], before: Mapping[int, Process]) -> float:
    """Return the CPU seconds that a group of processes used between two looks.

    Who ended is counted by its parent from then on, what it had used before included.
    """
    known = {(each.pid, each.started): each for each in before.values()}
    seconds = 0.0
    for process in now.values():
        last = known.pop((process.pid, process.started), None)
        seconds += process.cpu_seconds - (last.cpu_seconds if last else 0.0)
    seconds -= sum(each.cpu_seconds for each in known.values() if each.parent in before)
    return max(0.0, seconds)


def _family(roots: Iterable[int], children: Mapping[int, list[int]]) -> set[int]:
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found
