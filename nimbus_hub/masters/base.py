"""Application masters: how the processes of a framework find each other.

A master is pure: a job and its placement in; per replica what to run, and the rules of
success and failure, out. Each is found by the entry point group ``nimbus_hub.masters``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = ["Master", "Outcome", "ReplicaCommand", "Verdict", "judge_gang"]


class Outcome(StrEnum):
    """How a job stands by its replicas."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a job stands; for a failure, which replica caused it."""

    outcome: Outcome
    culprit: Replica | None = None


@dataclass(frozen=True, slots=True)
class ReplicaCommand:
    """What a master says of one replica: its command and the framework's own variables."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


class Master(Protocol):
    """The application master of one framework.

    One with an attribute ``modules``, a tuple of names, has them imported in the warm replicas
    of a debug gang, so that runs begin with them.
    """

    name: str

    def check(self, launch: Launch, groups: Sequence[SlotGroup]) -> None:
        """Raise InvalidRequest, saying what would be right, for roles it cannot run."""
        ...

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return what the replica of this rank runs; slots are in order of rank."""
        ...

    def judge(self, replicas: Sequence[Replica]) -> Verdict:
        """Return how the job stands by its replicas of this attempt."""
        ...


def judge_gang(replicas: Sequence[Replica]) -> Verdict:
    """Judge by the common rule: all must exit with 0, the first that does not is to blame."""
    failed = [replica for replica in replicas if replica.has_failed]
    if failed:
        # Those that die because a peer died end later than the peer.
        first = min(failed, key=lambda replica: (replica.ended_at is None, replica.ended_at))
        return Verdict(Outcome.FAILED, first)
    if all(replica.state.is_end for replica in replicas):
        return Verdict(Outcome.SUCCEEDED)
    return Verdict(Outcome.RUNNING)
