"""The environment every replica gets, whatever its framework; the executor adds directories.

User code runs unchanged as one process or as many: it reads these names or none of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nimbus_hub.model.job import Job
from nimbus_hub.model.slot import Slot

__all__ = ["contract_environment"]

_NONE: Mapping[str, str] = {}


def contract_environment(
    job: Job,
    slots: Sequence[Slot],
    rank: int,
    services: Collection[str],
    api_url: str,
    token: str,
    defaults: Mapping[str, str] = _NONE,
) -> dict[str, str]:
    """Return the variables of the replica of this rank; slots are in order of rank.

    The world is those that share the work: replicas of the roles in ``services`` are not
    counted, and their ranks come after all others.
    The user's variables may replace defaults (OMP_NUM_THREADS), never the contract;
    ``defaults`` are those of the framework.
    """
    slot = slots[rank]
    usual = {"OMP_NUM_THREADS": str(max(1, slot.cpus_milli // 1000)), "PYTHONUNBUFFERED": "1"}
    contract = {
        "NIMBUS_JOB_ID": job.id,
        "NIMBUS_JOB_NAME": job.name,
        "NIMBUS_ROLE": slot.role,
        "NIMBUS_RANK": str(rank),
        "NIMBUS_WORLD_SIZE": str(sum(slot.role not in services for slot in slots)),
        "NIMBUS_ROLE_RANK": str(slot.index),
        "NIMBUS_ATTEMPT": str(job.attempt),
        "NIMBUS_RUN_ID": f"{job.id}-{job.attempt}",
        "NIMBUS_ADDRESS": slot.address,
        "NIMBUS_API_URL": api_url,
        "NIMBUS_TOKEN": token,
        **_devices(slot),
    }
    if job.launch.pdb:
        contract["NIMBUS_PDB"] = "1"
    return {**usual, **defaults, **job.launch.env, **contract}


def _devices(slot: Slot) -> dict[str, str]:
    """Return the variables that let a process see its own GPUs only."""
    devices = ",".join(map(str, slot.gpus))
    # To the NVIDIA runtime an empty list means "not set"; void is its word for none.
    return {"CUDA_VISIBLE_DEVICES": devices, "NVIDIA_VISIBLE_DEVICES": devices or "void"}
