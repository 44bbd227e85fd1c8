"""Plain scripts: one process, or N that know each other by NIMBUS_* alone."""

from __future__ import annotations

from collections.abc import Sequence

from nimbus_hub.masters.base import Master, ReplicaCommand
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = ["ScriptMaster"]


class ScriptMaster(Master):
    """Runs the user's command in every slot; roles may be any."""

    name = "script"

    def groups(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Accept any roles."""
        return tuple(groups)

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return the user's command as it is."""
        return ReplicaCommand(job.launch.argv)
