"""What replicas use: CPU time, memory and GPU time, over all their processes.

Their control group counts it where they have one that does. Else it is the sum over all
descendants of the supervisor; the times of those that ended are in the figures of who waited
for them, which is the supervisor for whatever is left, so nothing is forgotten. After the end
the record says what it came to. All of it blocks.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nimbus_hub.executors.gpu_usage import GpuSampler, GpuUser
from nimbus_hub.executors.processes import Process
from nimbus_hub.executors.records import Record
from nimbus_hub.model.replica import Usage

__all__ = ["ProcessTable", "UsageReader"]

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_VERSION_TWO = b"usage_usec "


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a replica's figures come from; ``gpu_seconds`` were counted by an earlier service."""

    supervisor: Process
    groups: tuple[Path, ...]
    cpu: Path | None
    memory: Path | None
    gpus: tuple[int, ...]
    gpu_seconds: float

    def pids(self) -> Collection[int]:
        """Return the replica's processes of now."""
        if not self.groups:
            return ProcessTable().tree(self.supervisor)
        # Each of its groups has them all.
        return [int(pid) for pid in _content(str(self.groups[0] / "cgroup.procs")).split()]


class UsageReader:
    """Reads what replicas used; remembers where to look, and that times never fall."""

    def __init__(self, gpus: GpuSampler | None = None) -> None:
        self._gpus = gpus or GpuSampler()
        self._lock = threading.Lock()
        self._sources: dict[str, _Source] = {}
        self._last: dict[str, Usage] = {}

    def read(self, records: Mapping[str, Record]) -> dict[str, Usage]:
        """Return what replicas used by id; those of which nothing is known are left out.

        Replicas that are not asked for are forgotten: ask for all at once.
        """
        with self._lock:
            self._sources = {key: it for key, it in self._sources.items() if key in records}
            self._last = {key: used for key, used in self._last.items() if key in records}
            for replica_id, record in records.items():
                if replica_id not in self._sources:
                    self._find(replica_id, record)
            self._gpus.follow(
                {
                    key: GpuUser(source.gpus, source.pids)
                    for key, source in self._sources.items()
                    if source.gpus
                }
            )
            table = ProcessTable() if any(not it.cpu for it in self._sources.values()) else None
            for replica_id, record in records.items():
                used = self._used(replica_id, record, table)
                if used is not None:
                    self._last[replica_id] = _never_less(used, self._last.get(replica_id))
            return dict(self._last)

    def close(self) -> None:
        """Let go of the GPUs."""
        self._gpus.close()

    def _find(self, replica_id: str, record: Record) -> None:
        reading = record.read()
        # What runs in its holder's place is in the holder's figures.
        is_guest = reading.holder is not None
        if reading.supervisor is None or not reading.is_supervised or is_guest:
            return
        groups = record.groups()
        self._sources[replica_id] = _Source(
            reading.supervisor,
            groups,
            _cpu_counter(groups),
            _first(groups, "memory.usage_in_bytes") or _first(groups, "memory.current"),
            record.gpus(),
            record.gpu_seconds(),
        )

    def _used(self, replica_id: str, record: Record, table: ProcessTable | None) -> Usage | None:
        source = self._sources.get(replica_id)
        gpu_seconds = self._gpu_seconds(replica_id, record, source)
        live = None if source is None else _live(source, table)
        if live is not None:
            return replace(live, gpu_seconds=gpu_seconds)
        # Over; or its last figures are written this very moment and read the next time.
        cpu_seconds = record.cpu_seconds()
        return None if cpu_seconds is None else Usage(cpu_seconds, 0, gpu_seconds)

    def _gpu_seconds(self, replica_id: str, record: Record, source: _Source | None) -> float:
        if source is None or not source.gpus:
            return record.gpu_seconds()
        total = source.gpu_seconds + self._gpus.seconds(replica_id)
        # A full disk, or a record that was deleted, keeps nobody else from being measured.
        with contextlib.suppress(OSError):
            record.write_gpu_seconds(total)
        return total


class ProcessTable:
    """All processes at one moment: who is whose child, CPU time and memory of each."""

    def __init__(self) -> None:
        self._children: dict[int, list[int]] = {}
        self._found: dict[int, tuple[int, int, int, int]] = {}
        # In order of pids parents mostly come first. So one that ends meanwhile is missed for
        # once, and not counted twice, as itself and among its parent's children.
        for pid, fields in _stats():
            parent, started = int(fields[1]), int(fields[19])
            own = int(fields[11]) + int(fields[12])
            ended = int(fields[13]) + int(fields[14])
            self._children.setdefault(parent, []).append(pid)
            self._found[pid] = started, own, ended, int(fields[21])

    def tree(self, root: Process) -> Collection[int]:
        """Return the descendants of a process; none if it is gone."""
        if root.pid not in self._found or self._found[root.pid][0] != root.start_time:
            return ()
        found: list[int] = []
        pending = [root.pid]
        while pending:
            children = self._children.get(pending.pop(), ())
            found += children
            pending += children
        return found

    def usage(self, supervisor: Process) -> Usage | None:
        """Return what the descendants of a process used, None if it is gone."""
        tree = self.tree(supervisor)
        if supervisor.pid not in self._found or not tree:
            return None
        below = [self._found[pid] for pid in tree]
        ticks = self._found[supervisor.pid][2] + sum(own + ended for _, own, ended, _ in below)
        pages = sum(resident for *_, resident in below)
        return Usage(ticks / _TICKS_PER_SECOND, pages * _PAGE_BYTES)


def _stats() -> Iterator[tuple[int, list[bytes]]]:
    """Yield the fields of /proc/PID/stat of every process, from the state on."""
    # os and not pathlib: this is read for every process there is, every few seconds.
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            text = _content(f"/proc/{name}/stat")
            if text:
                yield int(name), text[text.rindex(b")") + 2 :].split()


def _content(path: str) -> bytes:
    """Return a file of the kernel, nothing if it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _live(source: _Source, table: ProcessTable | None) -> Usage | None:
    """Return what a replica used so far; None if it is over."""
    if source.cpu is None:
        return None if table is None else table.usage(source.supervisor)
    text = _content(str(source.cpu))
    if not text:
        return None
    memory = _content(str(source.memory)) if source.memory else b""
    return Usage(_cpu_seconds(text), int(memory or b"0"))


def _cpu_seconds(text: bytes) -> float:
    """Read cpuacct.usage (version 1, nanoseconds) or cpu.stat (version 2, microseconds)."""
    if text.startswith(_VERSION_TWO):
        return int(text.split()[1]) / 1e6
    return int(text) / 1e9


def _cpu_counter(groups: Sequence[Path]) -> Path | None:
    found = _first(groups, "cpu.stat")
    # Version 1 has a file of that name too, which counts something else.
    if found and _content(str(found)).startswith(_VERSION_TWO):
        return found
    return _first(groups, "cpuacct.usage")


def _first(groups: Sequence[Path], name: str) -> Path | None:
    return next((group / name for group in groups if (group / name).exists()), None)


def _never_less(used: Usage, last: Usage | None) -> Usage:
    if last is None:
        return used
    return Usage(
        max(used.cpu_seconds, last.cpu_seconds),
        used.memory_bytes,
        max(used.gpu_seconds, last.gpu_seconds),
    )
