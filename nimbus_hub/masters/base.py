"""Application masters: how the processes of a framework find each other.

A master is pure: a job and its placement in; per replica what to run, and the rules of
success, failure and replacement, out. All slots, addresses and ports are known before
anything starts. Each is found by the entry point group ``nimbus_hub.masters``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = [
    "Master",
    "Outcome",
    "ReplicaCommand",
    "Verdict",
    "endpoint",
    "judge_gang",
    "only_roles",
    "runner_argv",
    "service_group",
]

_SAID = {"ps": "--ps", "chief": "--chief", "evaluator": "--evaluator"}


class Outcome(StrEnum):
    """How a job stands by its replicas."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a job stands; for a failure, which replica caused it.

    While it runs ``replace`` names those that ended and are to be started again alone, in
    the same slots and with the same ports.
    """

    outcome: Outcome
    culprit: Replica | None = None
    replace: tuple[Replica, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplicaCommand:
    """What a master says of one replica: its command and the framework's own variables.

    ``argv[0]`` is ``python`` or another program of the environment. ``needs`` are the
    endpoints, by the name of their replica, that must answer before user code begins: it gets
    them as NIMBUS_WAIT_FOR, and `nimbus_hub.replica.runners` wait for them.
    ``interfaces`` are variables that get the name of the network interface which has the
    slot's address: only the host knows it.
    """

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    interfaces: tuple[str, ...] = ()


class Master(ABC):
    """The application master of one framework.

    ``imports``: a script that imports one of these modules is for this framework.
    ``modules``: the warm replicas of a debug gang import them, so that runs begin with them.
    ``defaults``: variables of every replica, warm ones too, that a user may replace.
    ``options``: what ``--option NAME=VALUE`` may say, by name, each with its help.
    """

    name: ClassVar[str]
    imports: ClassVar[tuple[str, ...]] = ()
    modules: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, str]] = {}
    options: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def groups(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Return the slots a job takes: those asked for, and those of the roles it needs besides.

        Roles that serve others come last. Raises InvalidRequest, saying what would be right,
        for what it cannot run. What it returned once it returns unchanged.
        """

    @abstractmethod
    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return what the replica of this rank runs; slots are in order of rank."""

    def services(self, roles: Collection[str]) -> frozenset[str]:
        """Return which roles of a job serve the others: they are ended when those are done."""
        return frozenset(roles) & {"ps", "evaluator"}

    def judge(self, job: Job, replicas: Sequence[Replica]) -> Verdict:
        """Return how the job stands by the last replica of each rank, of this attempt."""
        return judge_gang(replicas, self.services({replica.role for replica in replicas}))

    def accept(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Return the slots a job takes; raise InvalidRequest for what it cannot run.

        Its options are known then; what they say is for `groups` to check.
        """
        for name in launch.options:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise InvalidRequest(f"{self.name} has no option {name!r}; it has {known}")
        return self.groups(launch, groups)


def judge_gang(replicas: Sequence[Replica], services: Collection[str] = ()) -> Verdict:
    """Judge by the common rule: all that do no service must exit with 0.

    The first that ends in another way is to blame, a service too while the others need it.
    """
    if all(r.state.is_end and not r.has_failed for r in replicas if r.role not in services):
        return Verdict(Outcome.SUCCEEDED)
    failed = [replica for replica in replicas if replica.has_failed]
    if failed:
        # Those that die because a peer died end later than the peer.
        first = min(failed, key=lambda replica: (replica.ended_at is None, replica.ended_at))
        return Verdict(Outcome.FAILED, first)
    return Verdict(Outcome.RUNNING)


def only_roles(groups: Sequence[SlotGroup], roles: Collection[str], what_runs: str) -> None:
    """Raise InvalidRequest for a role that is none of these; ``what_runs`` says what would do."""
    for group in groups:
        if group.role not in roles:
            said = _SAID.get(group.role, f"role {group.role!r}")
            raise InvalidRequest(f"{what_runs}; leave out {said}")


def runner_argv(runner: str, argv: Sequence[str]) -> tuple[str, ...]:
    """Return the command that has a runner run a python command in its own process.

    Raises InvalidRequest for a command that is not python's: no runner could get into it.
    """
    first, *words = argv or ("python",)
    while words and words[0] == "-u":
        words = words[1:]
    if not first.rpartition("/")[2].startswith("python") or (words and words[0] == "-c"):
        raise InvalidRequest(
            f"{runner} over several processes needs a Python script or module, got {first!r}"
        )
    return (first, "-u", "-m", "nimbus_hub.replica", runner, *words)


def service_group(role: str, memory_bytes: int = 512 * 2**20, count: int = 1) -> SlotGroup:
    """Return the slots of a role that serves others and has little to do."""
    return SlotGroup(role, count, cpus_milli=100, memory_bytes=memory_bytes)


def endpoint(job: Job, slot: Slot) -> str:
    """Return where the process of a slot listens in this attempt, ``10.0.0.1:4000``."""
    return f"{slot.address}:{slot.port(job.turn)}"
