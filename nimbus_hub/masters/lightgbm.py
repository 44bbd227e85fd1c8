"""LightGBM: N workers over sockets, each of which knows the addresses of all.

The runner (`nimbus_hub.replica.runners.lightgbm`) gives the network's parameters to every
training of the script. A worker whose peer died never ends and keeps a core busy: the first
one that ends otherwise than with 0 ends the gang.
"""

from __future__ import annotations

from collections.abc import Sequence

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import Master, ReplicaCommand, endpoint, only_roles, runner_argv
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = ["LightGBMMaster"]

_LEARNERS = ("data", "feature", "voting")
_USUAL_TIMEOUT_SECONDS = 120


class LightGBMMaster(Master):
    """Runs the user's command once per worker."""

    name = "lightgbm"
    imports = ("lightgbm",)
    modules = ("lightgbm",)
    options = {
        "tree_learner": f"{', '.join(_LEARNERS)} (default {_LEARNERS[0]}): what the workers share",
        "timeout": "seconds a worker waits for another one, within a training up to the next "
        f"whole minute (default {_USUAL_TIMEOUT_SECONDS})",
    }

    def groups(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Refuse every role but ``worker``."""
        only_roles(
            groups, ("worker",), "LightGBM runs one worker, or N that all-reduce (--workers N)"
        )
        _network(launch)
        if sum(group.count for group in groups) > 1:
            runner_argv(self.name, launch.argv)
        return tuple(groups)

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return the user's command, run by our runner where there are several workers."""
        if len(slots) == 1:
            return ReplicaCommand(job.launch.argv)
        env = {
            "LIGHTGBM_MACHINES": ",".join(endpoint(job, slot) for slot in slots),
            "LIGHTGBM_PORT": str(slots[rank].port(job.turn)),
            **_network(job.launch),
        }
        return ReplicaCommand(runner_argv(self.name, job.launch.argv), env)


def _network(launch: Launch) -> dict[str, str]:
    learner = launch.options.get("tree_learner", _LEARNERS[0])
    if learner not in _LEARNERS:
        raise InvalidRequest(
            f"option tree_learner must be one of {', '.join(_LEARNERS)}, got {learner!r}"
        )
    seconds = launch.options.get("timeout", str(_USUAL_TIMEOUT_SECONDS))
    if not seconds.isdecimal() or int(seconds) < 1:
        raise InvalidRequest(f"option timeout must be whole seconds of at least 1, got {seconds!r}")
    return {"LIGHTGBM_TREE_LEARNER": learner, "LIGHTGBM_TIMEOUT": seconds}
