"""Limits: the control group that a replica has of its own, where the system allows one.

Memory is limited to what the slot has. CPUs get shares, not a quota: under contention
each replica has what its slot says, and an idle CPU is nobody's loss. The group also counts
the CPU time used. Without writable
control groups (they want root) nothing is limited and the sizes are only accounted.

Version 1: the group is made below the service's own. Version 2: beside it, since a group
there has either processes or groups; so a replica stays within what the administrator
has set for the slice, and does not end with the service.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Limits", "NoLimits", "ReplicaLimits", "find_limits"]

log = logging.getLogger(__name__)

SHARES_PER_CPU = 1024
WEIGHT_PER_CPU = 100


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """The groups a replica is put into, and where the kernel counts its memory kills."""

    groups: tuple[Path, ...] = ()
    memory_events: Path | None = None


class Limits(Protocol):
    """What replicas are limited by on this machine."""

    def create(self, replica_id: str, cpus_milli: int, memory_bytes: int) -> ReplicaLimits:
        """Make the control groups of a replica; what is there already stays."""
        ...


class NoLimits:
    """Sets nothing; what slots hold is only accounted."""

    def create(self, replica_id: str, cpus_milli: int, memory_bytes: int) -> ReplicaLimits:
        """Return no groups."""
        return ReplicaLimits()


@dataclass(frozen=True, slots=True)
class _VersionOne:
    memory: Path
    cpu: Path | None
    accounting: Path | None

    def create(self, replica_id: str, cpus_milli: int, memory_bytes: int) -> ReplicaLimits:
        """Make a group in each hierarchy; what cannot be set is left out and logged."""
        groups = []
        memory = _make(self.memory / f"nimbus-{replica_id}", "memory.limit_in_bytes", memory_bytes)
        if memory is not None:
            groups.append(memory)
        if self.cpu is not None:
            shares = max(2, cpus_milli * SHARES_PER_CPU // 1000)
            cpu = _make(self.cpu / f"nimbus-{replica_id}", "cpu.shares", shares)
            if cpu is not None:
                groups.append(cpu)
        if self.accounting is not None:
            # It limits nothing, and counts from 0.
            accounting = _make(self.accounting / f"nimbus-{replica_id}", "cpuacct.usage", 0)
            if accounting is not None:
                groups.append(accounting)
        return ReplicaLimits(tuple(groups), memory / "memory.oom_control" if memory else None)


@dataclass(frozen=True, slots=True)
class _VersionTwo:
    parent: Path

    def create(self, replica_id: str, cpus_milli: int, memory_bytes: int) -> ReplicaLimits:
        """Make one group; what cannot be set is left out and logged."""
        group = _make(self.parent / f"nimbus-{replica_id}", "memory.max", memory_bytes)
        if group is None:
            return ReplicaLimits()
        weight = min(10_000, max(1, cpus_milli * WEIGHT_PER_CPU // 1000))
        with contextlib.suppress(OSError):
            (group / "cpu.weight").write_text(str(weight))
        return ReplicaLimits((group,), group / "memory.events")


def find_limits(
    mount: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
    *,
    is_root: bool | None = None,
) -> Limits:
    """Return what can be limited here: by control groups of either version, or nothing."""
    if not (os.geteuid() == 0 if is_root is None else is_root):
        return NoLimits()
    try:
        own = _own_groups(membership.read_text())
    except OSError:
        return NoLimits()
    if (mount / "cgroup.controllers").exists():
        return _version_two(mount / own.get("", "/").lstrip("/"), mount)
    memory = mount / "memory" / own.get("memory", "/").lstrip("/")
    cpu = mount / "cpu" / own.get("cpu", "/").lstrip("/")
    if not _is_writable(memory):
        return NoLimits()
    accounting = mount / "cpuacct" / own.get("cpuacct", "/").lstrip("/")
    # Mostly it is the same hierarchy under another name.
    is_apart = _is_writable(accounting) and not (cpu.exists() and cpu.samefile(accounting))
    return _VersionOne(memory, cpu if _is_writable(cpu) else None, accounting if is_apart else None)


def _version_two(own: Path, mount: Path) -> Limits:
    parent = own if own == mount else own.parent
    if not _is_writable(parent):
        return NoLimits()
    control = parent / "cgroup.subtree_control"
    for controller in ("memory", "cpu"):
        try:
            if controller not in control.read_text().split():
                control.write_text(f"+{controller}")
        except OSError as error:
            log.info("control group %s has no %s controller: %s", parent, controller, error)
            if controller == "memory":
                return NoLimits()
    return _VersionTwo(parent)


def _own_groups(text: str) -> dict[str, str]:
    """Read /proc/self/cgroup: the path by controller, version 2 under the empty name."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _is_writable(directory: Path) -> bool:
    return directory.is_dir() and os.access(directory, os.W_OK)


def _make(group: Path, name: str, value: int) -> Path | None:
    """Make a group with one value set, or none at all."""
    try:
        group.mkdir(exist_ok=True)
    except OSError as error:
        log.warning("cannot make the control group %s: %s", group, error)
        return None
    try:
        (group / name).write_text(str(value))
    except OSError as error:
        log.warning("cannot limit %s to %s: %s", group / name, value, error)
        with contextlib.suppress(OSError):
            group.rmdir()
        return None
    return group
