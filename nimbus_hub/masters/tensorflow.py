"""TensorFlow: workers that all-reduce, or a chief over workers and parameter servers.

Every task but an evaluator listens, and TF_CONFIG tells each where all of them do. Without
parameter servers all run the user's command (`MultiWorkerMirroredStrategy`); a lost worker
cannot come back into such a world, so all start again. With parameter servers only the chief
runs it: the others serve what it has them do, never end by themselves, and a worker that is
lost is replaced alone. An evaluator runs the user's command beside either, and is not part
of the cluster.

Keras 3 does not fit over several processes. `tf.keras` is therefore legacy Keras, tf_keras,
unless the user's environment says otherwise; the runner
(`nimbus_hub.replica.runners.tensorflow`) says so where that fails.

The threads of an imported TensorFlow do no work yet: forks of it train, alone and together.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.masters.base import (
    Master,
    Outcome,
    ReplicaCommand,
    Verdict,
    endpoint,
    judge_gang,
    only_roles,
    runner_argv,
)
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica
from nimbus_hub.model.slot import Slot, SlotGroup

__all__ = ["TensorFlowMaster"]

_CHIEF, _WORKER, _PS, _EVALUATOR = "chief", "worker", "ps", "evaluator"
_ROLES = (_CHIEF, _WORKER, _PS, _EVALUATOR)
"""In the order of the ranks."""

_TIMEOUT, _RESTARTS = "timeout", "restarts"
_USUAL_TIMEOUT_SECONDS, _USUAL_RESTARTS = 300, 3
_RUNNER_WORDS = 5
"""Of a runner's command, those before the user's."""


class TensorFlowMaster(Master):
    """Runs the user's command in every worker, or in a chief that the others serve."""

    name = "tensorflow"
    imports = ("tensorflow", "tf_keras", "keras")
    modules = ("tensorflow",)
    defaults = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "1"}
    options = {
        _TIMEOUT: "seconds one that is ready waits for the others to be "
        f"(default {_USUAL_TIMEOUT_SECONDS})",
        _RESTARTS: "how often each worker of parameter servers is replaced within an attempt "
        f"(default {_USUAL_RESTARTS})",
    }

    def groups(self, launch: Launch, groups: Sequence[SlotGroup]) -> tuple[SlotGroup, ...]:
        """Add a chief to parameter servers; refuse what is no cluster of TensorFlow."""
        only_roles(
            groups,
            _ROLES,
            "TensorFlow runs N workers that all-reduce (--workers N), or a chief over workers and "
            "parameter servers (--workers N --ps M), and evaluators beside either",
        )
        counts = Counter[str]()
        for group in groups:
            counts[group.role] += group.count
        _check(launch, counts)
        if counts.total() - counts[_EVALUATOR] > 1:
            runner_argv(self.name, launch.argv)
        asked = list(groups)
        if counts[_PS] and not counts[_CHIEF]:
            worker = next(group for group in groups if group.role == _WORKER)
            # It hands out the work: a GPU would have nothing to do.
            asked.append(
                replace(worker, role=_CHIEF, count=1, gpus=0, gpu_milli=1000, gpu_models=())
            )
        return tuple(sorted(asked, key=lambda group: _ROLES.index(group.role)))

    def services(self, roles: Collection[str]) -> frozenset[str]:
        """Return evaluators, and all but the chief where there are parameter servers."""
        serving = {_WORKER, _PS, _EVALUATOR} if _PS in roles else {_EVALUATOR}
        return frozenset(serving)

    def command(self, job: Job, slots: Sequence[Slot], rank: int) -> ReplicaCommand:
        """Return the user's command, or our server's, with where all tasks are.

        Who leads needs all others, and those need who leads: each all-reducing one while it
        makes its strategy, and not before user code.
        """
        argv, own = job.launch.argv, slots[rank]
        tasks = [slot for slot in slots if slot.role != _EVALUATOR]
        env = {"TF_CONFIG": _config(job, tasks, own)}
        if own.role == _EVALUATOR:
            return ReplicaCommand(argv, env)
        if len(tasks) == 1:
            return ReplicaCommand(argv)
        env["TENSORFLOW_TIMEOUT"] = str(_timeout(job.launch))
        run = runner_argv(self.name, argv)
        has_servers = any(slot.role == _PS for slot in tasks)
        if has_servers and own.role != _CHIEF:
            return ReplicaCommand(run[:_RUNNER_WORDS], env)
        needed = tasks[1:] if own is tasks[0] else tasks[:1]
        return ReplicaCommand(run, env, {slot.name: endpoint(job, slot) for slot in needed})

    def judge(self, job: Job, replicas: Sequence[Replica]) -> Verdict:
        """Return how the job stands; a lost worker of parameter servers is replaced alone."""
        roles = {replica.role for replica in replicas}
        lost = [each for each in replicas if each.role == _WORKER and each.has_failed]
        if _PS not in roles or not lost:
            return judge_gang(replicas, self.services(roles))
        most = _restarts(job.launch)
        again = [worker for worker in lost if worker.restarts < most]
        others = [replica for replica in replicas if replica not in again]
        verdict = judge_gang(others, self.services(roles))
        if verdict.outcome is Outcome.RUNNING:
            return Verdict(Outcome.RUNNING, replace=tuple(again))
        return verdict


def _config(job: Job, tasks: Sequence[Slot], own: Slot) -> str:
    """Return TF_CONFIG: where each task listens, and which one this is."""
    cluster: dict[str, list[str]] = {}
    for slot in tasks:
        cluster.setdefault(slot.role, []).append(endpoint(job, slot))
    return json.dumps({"cluster": cluster, "task": {"type": own.role, "index": own.index}})


def _check(launch: Launch, counts: Counter[str]) -> None:
    """Raise InvalidRequest for numbers of tasks, and options, that make no sense together."""
    if not counts[_WORKER]:
        raise InvalidRequest(
            "TensorFlow needs workers to compute, got only "
            f"{' and '.join(role for role in _ROLES if counts[role])}; add --workers N"
        )
    if counts[_CHIEF] > 1:
        raise InvalidRequest(f"TensorFlow has one chief, got {counts[_CHIEF]}; use --workers N")
    _timeout(launch)
    if _RESTARTS in launch.options and not counts[_PS]:
        raise InvalidRequest(
            f"option restarts={_restarts(launch)} is for workers of parameter servers, since one "
            "that all-reduces cannot come back alone; add --ps M, or use --retries N"
        )
    _restarts(launch)


def _timeout(launch: Launch) -> int:
    return _number(launch, _TIMEOUT, _USUAL_TIMEOUT_SECONDS, 1)


def _restarts(launch: Launch) -> int:
    return _number(launch, _RESTARTS, _USUAL_RESTARTS, 0)


def _number(launch: Launch, name: str, usual: int, least: int) -> int:
    text = launch.options.get(name, str(usual))
    if not text.isdecimal() or int(text) < least:
        raise InvalidRequest(f"option {name} must be a number of at least {least}, got {text!r}")
    return int(text)
