"""For training code: which part of the work is mine, and where do I put what.

It works in every job of Nimbus Hub, whatever its framework and environment, and without
Nimbus Hub too: below ``torchrun`` and ``mpiexec`` by what these say, else as a world of one. Its
files are then below ``./nimbus``.

Python 3.6 and later, standard library only.
"""

# ruff: noqa: PTH118

import os
from pathlib import Path

from nimbus_hub.replica.progress import report

__all__ = [
    "attempt",
    "checkpoint_path",
    "is_first",
    "log_dir",
    "output_path",
    "rank",
    "report",
    "role",
    "run_id",
    "shard",
    "world_size",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeVar

    Item = TypeVar("Item")

# Those of Nimbus Hub, torchrun, MPICH and Open MPI.
_RANKS = ("NIMBUS_RANK", "RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK")
_SIZES = ("NIMBUS_WORLD_SIZE", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE")


def rank() -> int:
    """Return this process's number among those that share the work, from 0."""
    return _number(_RANKS, 0)


def world_size() -> int:
    """Return how many processes share the work; those that only serve them are not counted."""
    return _number(_SIZES, 1)


def is_first() -> bool:
    """Tell whether this process is the one that writes what is needed once."""
    return rank() == 0


def role() -> str:
    """Return what this process is: ``worker``, ``chief``, ``ps`` ..."""
    return os.environ.get("NIMBUS_ROLE", "worker")


def attempt() -> int:
    """Return which attempt of the job this is, from 1."""
    return int(os.environ.get("NIMBUS_ATTEMPT", "1"))


def run_id() -> str:
    """Return a name that no other job has, nor another attempt of this one."""
    return os.environ.get("NIMBUS_RUN_ID", "alone-%d" % os.getpid())


def shard(items: "Iterable[Item]") -> "list[Item]":
    """Return this process's part of a list of files, say: each item is in exactly one part.

    All processes must give the same items in the same order; sets and directory listings need
    sorting first.
    """
    return list(items)[rank() :: world_size()]


def output_path(name: str = "") -> Path:
    """Return where a result is kept, a file of this name; its directory is there."""
    return _path("NIMBUS_OUTPUT_DIR", "output", name)


def checkpoint_path(name: str = "") -> Path:
    """Return where a checkpoint is kept, for later attempts of the job too.

    Write it under another name and ``os.replace`` it, so that it is always whole.
    """
    return _path("NIMBUS_CHECKPOINT_DIR", "checkpoints", name)


def log_dir(name: str = "") -> Path:
    """Return the directory for TensorBoard's event files."""
    path = _path("NIMBUS_LOG_DIR", "logs", name)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _number(names: "tuple[str, ...]", usual: int) -> int:
    return int(next((os.environ[name] for name in names if name in os.environ), usual))


def _path(variable: str, usual: str, name: str) -> Path:
    path = Path(os.environ.get(variable, os.path.join("nimbus", usual)), name)
    (path.parent if name else path).mkdir(parents=True, exist_ok=True)
    return path
