"""JAX on Nimbus Hub: one process per worker, the first of which coordinates them."""

from __future__ import annotations

from collections.abc import Sequence

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import Master, ReplicaCommand
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.slot import Slot, SlotGroup


class JaxMaster(Master):
    """Gives each process what `jax.distributed.initialize` asks for."""

    name = "jax"
    imports = ("jax", "flax")

    def groups(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Refuse every role but ``worker``."""
        for group in groups:
            if group.role != "worker":
                raise InvalidRequest(f"JAX runs workers only, got {group.role!r}; use --workers")
        return tuple(groups)

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return the user's command, told its place if it is one of many."""
        first = slots[0]
        many = {
            "JAX_COORDINATOR_ADDRESS": f"{first.address}:{first.port(job.turn)}",
            "JAX_NUM_PROCESSES": str(len(slots)),
            "JAX_PROCESS_ID": str(rank),
        }
        return ReplicaCommand(job.launch.argv, many if len(slots) > 1 else {})
