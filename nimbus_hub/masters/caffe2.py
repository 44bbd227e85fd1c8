"""Caffe2 all-reduce: N shards over Gloo, which meet by files in a directory they share.

The directory is below the job's checkpoints, so all hosts of a job must have these in common
(`storage` of c.NimbusHub.containers). A store that was used before crashes who comes next: every
attempt has its own.
The runner (`nimbus_hub.replica.runners.caffe2`) gives `data_parallel_model.Parallelize` its
rendezvous, so the script of one process is that of many. All ports are ephemeral.

Caffe2 came to its end with Python 3.9: it runs in a container of its own (images/caffe2).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import Master, ReplicaCommand, only_roles, runner_argv
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = ["Caffe2Master"]

_TIMEOUT = "timeout"
_USUAL_TIMEOUT_SECONDS = 120


class Caffe2Master(Master):
    """Runs the user's command once per worker, each of which is a shard."""

    name = "caffe2"
    imports = ("caffe2",)
    options = {
        _TIMEOUT: "seconds a shard waits for the others, when they meet and in a collective call "
        f"(default {_USUAL_TIMEOUT_SECONDS})"
    }

    def groups(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Refuse every role but ``worker``, and several of what is not python."""
        only_roles(
            groups, ("worker",), "Caffe2 runs one worker, or N that all-reduce (--workers N)"
        )
        _timeout(launch)
        if sum(group.count for group in groups) > 1:
            runner_argv(self.name, launch.argv)
        return tuple(groups)

    def services(self, roles: Collection[str]) -> frozenset[str]:
        """Return no role: all share the work."""
        return frozenset()

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return the user's command, run by our runner where there are several workers."""
        if len(slots) == 1:
            return ReplicaCommand(job.launch.argv)
        return ReplicaCommand(
            runner_argv(self.name, job.launch.argv),
            {"CAFFE2_TIMEOUT": str(_timeout(job.launch))},
            interfaces=("CAFFE2_INTERFACE",),
        )


def _timeout(launch: Launch) -> int:
    text = launch.options.get(_TIMEOUT, str(_USUAL_TIMEOUT_SECONDS))
    if not text.isdecimal() or int(text) < 1:
        raise InvalidRequest(f"option timeout must be whole seconds of at least 1, got {text!r}")
    return int(text)
