"""PyTorch all-reduce (DistributedDataParallel): what torchrun would set, without torchrun.

Rank 0 listens at MASTER_ADDR:MASTER_PORT, all other ports are ephemeral. Every attempt has
another MASTER_PORT, so that a late process of the last one cannot join this one.

LOCAL_RANK is the number of the GPU that a process is to use, as `torch.cuda.set_device` is
commonly given it. A replica with GPUs sees its own only (CUDA_VISIBLE_DEVICES), and the
first of them is device 0: its LOCAL_RANK is 0 and it is the only one in its local world.
Replicas without GPUs count within their host, as under torchrun.
"""

from __future__ import annotations

from collections.abc import Sequence

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import Master, ReplicaCommand
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = ["PyTorchMaster"]

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
"""Without them gloo advertises what the host's own name resolves to, 127.0.1.1 on many."""


class PyTorchMaster(Master):
    """Runs the user's command once per worker, with the variables of `env://`."""

    name = "pytorch"
    imports = ("torch",)
    modules = ("torch",)

    def groups(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Refuse every role but ``worker``."""
        for role in (group.role for group in groups):
            if role == "ps":
                raise InvalidRequest("PyTorch has no parameter-server mode here; use --workers")
            if role != "worker":
                raise InvalidRequest(f"PyTorch runs workers only, got role {role!r}; use --workers")
        return tuple(groups)

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return the user's command with the place of this rank in the world."""
        first = slots[0]
        return ReplicaCommand(
            job.launch.argv,
            {
                "RANK": str(rank),
                "WORLD_SIZE": str(len(slots)),
                "MASTER_ADDR": first.address,
                "MASTER_PORT": str(first.port(job.turn)),
                **_local_ranks(slots, rank),
            },
            interfaces=INTERFACES,
        )


def _local_ranks(slots: Sequence[Slot], rank: int) -> dict[str, str]:
    """Return the rank within what the process sees of its host."""
    own = slots[rank]
    peers = [rank] if own.gpus else [at for at, slot in enumerate(slots) if slot.host == own.host]
    return {"LOCAL_RANK": str(peers.index(rank)), "LOCAL_WORLD_SIZE": str(len(peers))}
