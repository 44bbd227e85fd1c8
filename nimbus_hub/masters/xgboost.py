"""XGBoost: a tracker and N workers that all-reduce histograms.

The workers run the user's script within a collective of XGBoost's own, so plain `xgb.train`
is distributed. XGBoost 3 reads no DMLC_* variables, whatever its documentation says: the
runner (`nimbus_hub.replica.runners.xgboost`) passes them on.

The tracker ends by itself once all workers have left. One whose tracker died would train on to
its last round and fail there, so the tracker's death is the job's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import (
    Master,
    ReplicaCommand,
    endpoint,
    only_roles,
    runner_argv,
    service_group,
)
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = ["XGBoostMaster"]

_TRACKER = "tracker"
_TIMEOUT = "timeout"
_USUAL_TIMEOUT_SECONDS = 120


class XGBoostMaster(Master):
    """Runs the user's command once per worker, beside a tracker if there are several."""

    name = "xgboost"
    imports = ("xgboost",)
    modules = ("xgboost",)
    options = {
        _TIMEOUT: "seconds a worker waits for another one in a collective call "
        f"(default {_USUAL_TIMEOUT_SECONDS})"
    }

    def groups(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Add a tracker to several workers; refuse every other role."""
        only_roles(
            groups,
            ("worker", _TRACKER),
            "XGBoost runs one worker, or N that all-reduce (--workers N)",
        )
        _timeout(launch)
        if sum(group.count for group in groups if group.role == "worker") == 1:
            return tuple(groups)
        runner_argv(self.name, launch.argv)
        has_tracker = any(group.role == _TRACKER for group in groups)
        return tuple(groups) if has_tracker else (*groups, service_group(_TRACKER))

    def services(self, roles: Collection[str]) -> frozenset[str]:
        """Return the tracker."""
        return frozenset({_TRACKER})

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return the user's command, run by our runner where there are several workers."""
        tracker = slots[-1]
        if tracker.role != _TRACKER:
            return ReplicaCommand(job.launch.argv)
        where = endpoint(job, tracker)
        env = {
            "DMLC_TRACKER_URI": tracker.address,
            "DMLC_TRACKER_PORT": str(tracker.port(job.turn)),
            "DMLC_TASK_ID": str(rank),
            "DMLC_TIMEOUT": str(_timeout(job.launch)),
        }
        needs = {} if slots[rank].role == _TRACKER else {tracker.name: where}
        return ReplicaCommand(runner_argv(self.name, job.launch.argv), env, needs)


def _timeout(launch: Launch) -> int:
    text = launch.options.get(_TIMEOUT, str(_USUAL_TIMEOUT_SECONDS))
    if not text.isdecimal() or int(text) < 1:
        raise InvalidRequest(f"option timeout must be whole seconds of at least 1, got {text!r}")
    return int(text)
