"""Plain scripts: one process, or N that know each other by NIMBUS_* alone."""

from __future__ import annotations

from collections.abc import Sequence

from nimbus_hub.masters.base import ReplicaCommand, Verdict, judge_gang
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = ["ScriptMaster"]


class ScriptMaster:
    """Runs the user's command in every slot; roles may be any."""

    name = "script"

    def check(self, launch: Launch, groups: Sequence[SlotGroup]) -> None:
        """Accept any roles."""

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return the user's command as it is."""
        return ReplicaCommand(job.launch.argv)

    def judge(self, replicas: Sequence[Replica]) -> Verdict:
        """Return success when all exit with 0, failure when one does not."""
        return judge_gang(replicas)
