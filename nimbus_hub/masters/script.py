"""Plain scripts: one process, or N that know each other by NIMBUS_* alone.

Roles are as the user names them. Parameter servers and evaluators serve the others: they may
run for ever, and are ended when the others are done.
"""

from __future__ import annotations

from collections.abc import Sequence

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import Master, ReplicaCommand
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = ["ScriptMaster"]


class ScriptMaster(Master):
    """Runs the user's command in every slot; roles may be any."""

    name = "script"

    def groups(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Accept any roles of which some do the work; those that serve come last."""
        services = self.services({group.role for group in groups})
        working = [group for group in groups if group.role not in services]
        if not working:
            raise InvalidRequest(
                f"{' and '.join(sorted(services))} serve others, and there is nobody to serve; "
                "add --workers N"
            )
        return (*working, *(group for group in groups if group.role in services))

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return the user's command as it is."""
        return ReplicaCommand(job.launch.argv)
