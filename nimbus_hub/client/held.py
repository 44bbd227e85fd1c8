"""Runs on slots that are held: on which gang, and what may be said of it.

A run takes the slots as they are. What was asked for besides is refused with what is held
and the remedy, ``--submit``, which sends the same command as a job of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nimbus_hub.client.client import Client
from nimbus_hub.client.gangs import own_gang, roles_text, session_gang
from nimbus_hub.client.requests import JobRequest, WishesRequest
from nimbus_hub.client.resources import Gang, Group, Job
from nimbus_hub.client.run_options import RunOptions, slot_groups
from nimbus_hub.errors import Conflict, InvalidRequest
from nimbus_hub.model.quantities import format_cpus, format_gpus
from nimbus_hub.model.request import read_group
from nimbus_hub.model.slot import SlotGroup

__all__ = [
    "failed_code",
    "gang_to_run_on",
    "like_gang",
    "on_gang",
    "refuse_before_upload",
    "start_on_gang",
]

_SHAPE = (
    "workers", "gpus", "cpus", "memory", "chief", "evaluator", "ps", "ps_cpus", "ps_memory",
    "topology",
)  # fmt: skip
_QUEUE = (
    "duration", "retries", "expected", "datacenter", "inputs", "outputs", "queue", "priority",
    "preemptible", "step_bytes",
)  # fmt: skip
_NOTHING_SAID = RunOptions()


def gang_to_run_on(client: Client, options: RunOptions) -> Gang | None:
    """Return the gang that a run is for; None: it is to be a job of its own.

    Nobody is asked outside of a session, unless held slots are wanted. Raises InvalidRequest
    for options that contradict each other, NotFound if slots should be held and are not.
    """
    if options.submit and options.on == "held":
        raise InvalidRequest("--submit sends a job of its own, so --on held cannot be meant")
    if options.pdb and (options.submit or options.on == "queue"):
        raise InvalidRequest("--pdb is for runs on held slots; leave it out, or --on and --submit")
    if options.pdb and options.follow is False:
        raise InvalidRequest("--pdb talks to the run, so it cannot be detached")
    if options.submit or options.on == "queue":
        return None
    return own_gang(client) if options.on == "held" or options.pdb else session_gang(client)


def like_gang(options: RunOptions, gang: Gang | None) -> RunOptions:
    """Return options with what they leave open of slots as in a gang, if there is one."""
    if gang is None:
        return options
    held = _options_of(gang)
    open_names = [name for name in held if getattr(options, name) in (None, False)]
    return replace(
        options,
        topology=(*_topologies(gang.lease.groups), *options.topology),
        **{name: held[name] for name in open_names},  # type: ignore[arg-type]
    )


def on_gang(request: JobRequest, options: RunOptions, gang: Gang) -> JobRequest:
    """Return the request for a run on a gang.

    Raises InvalidRequest for other slots than are held and for what only a job that waits can
    have, Conflict for a gang that is busy or ending.
    """
    _refuse_other_slots(options, gang)
    _refuse_what_is_for_the_queue(options, gang)
    if gang.state == "busy" and gang.run is not None:
        raise Conflict(
            f"{gang.run.name} ({gang.run.id}) runs on gang {gang.lease.id}, one run at a time: "
            f"wait for it, stop it with nimbus stop {gang.run.id} (%nimbus_stop {gang.run.id}), "
            "or add --submit"
        )
    if gang.state in ("ending", "ended"):
        raise Conflict(
            f"gang {gang.lease.id} is over or ending ({gang.reason}): ask for another one, or "
            "add --submit"
        )
    return replace(
        request,
        framework=options.framework,
        groups=(),
        environment=options.environment,
        gang=gang.lease.id,
        pdb=options.pdb,
        wishes=WishesRequest(),
    )


def refuse_before_upload(client: Client, request: JobRequest) -> None:
    """Raise what the service has against a run that is not just as its gang is.

    Another run starts without this question, which takes time.
    """
    if request.framework is not None or request.environment is not None or request.options:
        client.plan(request)


def start_on_gang(client: Client, request: JobRequest) -> Job:
    """Start a run; an interrupt before the answer stops what may have been started."""
    try:
        return client.submit(request)
    except KeyboardInterrupt:
        gang = client.gang(request.gang or "")
        if gang.run is not None:
            client.stop(gang.run.id, reason="interrupted")
        raise


def failed_code(job: Job) -> int:
    """Return the exit code of the replica that failed first, as a shell has it; 1 if unknown."""
    failed = [each for each in job.replicas if each.exit_code and each.ended_at is not None]
    first = min(failed, key=lambda each: (each.ended_at, each.rank), default=None)
    if first is None or first.exit_code is None:
        return 1
    return 128 - first.exit_code if first.exit_code < 0 else first.exit_code


def _options_of(gang: Gang) -> dict[str, object]:
    """Return the slots of a gang as options say them."""
    groups = {group.role: group for group in gang.lease.groups}
    found: dict[str, object] = {"framework": gang.framework}
    found["environment"] = gang.lease.environment
    found |= {role: role in groups for role in ("chief", "evaluator")}
    for name, role in (("workers", "worker"), ("ps", "ps")):
        found[name] = groups[role].count if role in groups else 0
    if worker := groups.get("worker"):
        found |= {"gpus": _gpus(worker), "cpus": format_cpus(worker.cpus_milli)}
        found["memory"] = str(worker.memory_bytes)
    if ps := groups.get("ps"):
        found |= {"ps_cpus": format_cpus(ps.cpus_milli), "ps_memory": str(ps.memory_bytes)}
    return found


def _topologies(groups: Iterable[Group]) -> tuple[str, ...]:
    return tuple(f"{group.role}={group.topology}" for group in groups)


def _gpus(group: Group) -> str:
    return format_gpus(group.gpus, group.gpu_milli, group.gpu_models)


def _refuse_other_slots(options: RunOptions, gang: Gang) -> None:
    is_said = any(getattr(options, name) not in (None, False, ()) for name in _SHAPE)
    if not is_said or _slots(like_gang(options, gang)) == _slots(like_gang(_NOTHING_SAID, gang)):
        return
    raise InvalidRequest(
        f"gang {gang.lease.id} holds {roles_text(gang.lease.groups)}, and a run takes them as "
        "they are: leave out what says otherwise, or add --submit for a job of its own"
    )


def _slots(options: RunOptions) -> list[SlotGroup]:
    return [read_group(**group.body()) for group in slot_groups(options)]  # type: ignore[arg-type]


def _refuse_what_is_for_the_queue(options: RunOptions, gang: Gang) -> None:
    for name in _QUEUE:
        if getattr(options, name) != getattr(_NOTHING_SAID, name):
            option = name.removesuffix("s") if name in ("inputs", "outputs") else name
            raise InvalidRequest(
                f"--{option.replace('_', '-')} is for a job that waits for slots, and gang "
                f"{gang.lease.id} holds some: leave it out, or add --submit"
            )
