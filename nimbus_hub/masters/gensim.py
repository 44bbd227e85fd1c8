"""Gensim: a name server, a dispatcher and N workers that serve the job of one process.

LDA and LSI can be distributed; word2vec, doc2vec and the like use threads of one process. The
processes talk by pickle, which runs what it is sent: every message is signed with a key of the
job, and all listen at their own address only. The runner is `nimbus_hub.replica.runners.gensim`.

Name server, dispatcher and workers never end by themselves; the job's result is the chief's.
Gensim waits for ever for one that stands still, so the chief watches them all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

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

__all__ = ["GensimMaster"]

_CHIEF, _WORKER, _NAMES, _DISPATCHER = "chief", "worker", "nameserver", "dispatcher"
_TIMEOUT = "timeout"


class GensimMaster(Master):
    """Runs the user's command in one process, which several workers may serve."""

    name = "gensim"
    imports = ("gensim",)
    modules = ("gensim",)
    options = {
        _TIMEOUT: "seconds in which a process must come and must answer "
        "(default: 120 to answer, as long as a start may take to come)"
    }

    def groups(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Add to several workers the chief that runs the script, name server and dispatcher."""
        only_roles(
            groups,
            (_CHIEF, _WORKER, _NAMES, _DISPATCHER),
            "Gensim runs one process, or a chief with N workers that serve it (--workers N)",
        )
        _timeout(launch)
        by_role = {group.role: group for group in groups}
        worker = by_role.get(_WORKER)
        if worker is None or (worker.count == 1 and _CHIEF not in by_role):
            return tuple(groups)
        runner_argv(self.name, launch.argv)
        chief = by_role.get(_CHIEF, replace(worker, role=_CHIEF, count=1))
        names = by_role.get(_NAMES, service_group(_NAMES))
        # Documents and models go through it.
        dispatcher = by_role.get(_DISPATCHER, service_group(_DISPATCHER, 2 * 2**30))
        return (chief, worker, names, dispatcher)

    def services(self, roles: Collection[str]) -> frozenset[str]:
        """Return all but the chief."""
        return frozenset({_WORKER, _NAMES, _DISPATCHER}) if _CHIEF in roles else frozenset()

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return the user's command for the chief, and for the others our runner."""
        names = next((slot for slot in slots if slot.role == _NAMES), None)
        if names is None:
            return ReplicaCommand(job.launch.argv)
        argv = runner_argv(self.name, job.launch.argv)
        workers = sum(slot.role == _WORKER for slot in slots)
        env = {
            "PYRO_NS_HOST": names.address,
            "PYRO_NS_PORT": str(names.port(job.turn)),
            "PYRO_HOST": slots[rank].address,
            "PYRO_SERIALIZER": "pickle",
            "PYRO_SERIALIZERS_ACCEPTED": "pickle",
            # Each worker keeps some connections to the dispatcher, and each takes a thread.
            "PYRO_THREADPOOL_SIZE": str(64 + 4 * workers),
            "GENSIM_WORKERS": str(workers),
            **_timeout(job.launch),
        }
        needs = {} if slots[rank].role == _NAMES else {names.name: endpoint(job, names)}
        return ReplicaCommand(argv, env, needs)


def _timeout(launch: Launch) -> dict[str, str]:
    text = launch.options.get(_TIMEOUT)
    if text is None:
        return {}
    if not text.isdecimal() or int(text) < 1:
        raise InvalidRequest(f"option timeout must be whole seconds of at least 1, got {text!r}")
    return {"GENSIM_TIMEOUT": text}
