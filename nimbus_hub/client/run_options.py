"""The options of ``nimbus run``, shared with the magics: one reading of one table.

Options come first. The first word that is none is the script (or a program), and whatever
follows it, or follows ``--``, is the script's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from nimbus_hub.client import environment
from nimbus_hub.client.requests import GroupRequest, JobRequest, WishesRequest
from nimbus_hub.client.run_parameters import run_parameters
from nimbus_hub.client.snapshot import Manifest
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.request import read_topology

__all__ = [
    "RunCommand",
    "RunOptions",
    "Script",
    "framework_option",
    "job_request",
    "parse_run",
    "run_values",
    "slot_groups",
]

Value = TypeVar("Value")

_INTERPRETERS = {".py": ("python", "-u"), ".sh": ("bash",)}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What stood on the line; ``argv`` is the script or program with its own arguments.

    None of what says which slots are wanted means that nothing was said of it.
    """

    name: str = ""
    framework: str | None = None
    workers: int | None = None
    gpus: str | None = None
    cpus: str | None = None
    memory: str | None = None
    chief: bool = False
    evaluator: bool = False
    ps: int | None = None
    ps_cpus: str | None = None
    ps_memory: str | None = None
    topology: tuple[str, ...] = ()
    datacenter: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    queue: str = "default"
    priority: int = 0
    preemptible: bool = False
    expected: str | None = None
    step_bytes: str | None = None
    option: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    workdir: str = "."
    environment: str | None = None
    duration: str | None = None
    retries: int = 0
    stall: str | None = None
    on: str | None = None
    submit: bool = False
    pdb: bool = False
    follow: bool | None = None
    dry_run: bool = False
    argv: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Script:
    """The command to run in the working directory; ``path`` is the script's, if it is one."""

    argv: tuple[str, ...]
    path: str | None = None

    @classmethod
    def find(cls, argv: Sequence[str], workdir: Path) -> Script:
        """Return the command for what stood on the line.

        Raises InvalidRequest for a script that is not there or lies outside of ``workdir``.
        """
        if not workdir.is_dir():
            raise InvalidRequest(f"workdir must be a directory, and {str(workdir)!r} is none")
        if not argv:
            raise InvalidRequest("name a script to run, like train.py, after the options")
        first, rest = argv[0], tuple(argv[1:])
        suffix = Path(first).suffix
        if suffix in _INTERPRETERS:
            path = _inside(first, workdir)
            return cls((*_INTERPRETERS[suffix], path, *rest), path)
        # The .11 of python3.11 is no file extension.
        is_file = "/" in first or suffix[1:2].isalpha()
        if not is_file or Path(first).is_absolute():
            return cls((first, *rest))
        path = _inside(first, workdir)
        return cls((f"./{path}", *rest), path)

    def check_in(self, manifest: Manifest) -> None:
        """Raise InvalidRequest if the ignore file leaves the script out."""
        if self.path is not None and not manifest.has(self.path):
            raise InvalidRequest(
                f"script {self.path!r} is left out of the job's files by the ignore file of "
                f"{manifest.root}; add the line !{self.path} to its .nimbusignore"
            )


def _inside(script: str, workdir: Path) -> str:
    """Return a script's path relative to the working directory."""
    root = workdir.resolve()
    path = Path(root, script)
    if not path.is_file():
        raise InvalidRequest(
            f"script {script!r} does not exist in {root}; "
            "give its path from there, or another directory with --workdir"
        )
    # The name as it was given comes first: a link keeps its own.
    if ".." in path.parts or not path.is_relative_to(root):
        path = path.resolve()
    if not path.is_relative_to(root):
        raise InvalidRequest(
            f"script {script!r} is outside of the working directory {root}; "
            "move it there, or choose a directory around it with --workdir"
        )
    return path.relative_to(root).as_posix()


def job_request(
    options: RunOptions, argv: Sequence[str], snapshot: str | None = None
) -> JobRequest:
    """Return the request for ``argv`` (see ``Script.find``); its amounts are checked."""
    request = JobRequest(
        argv=tuple(argv),
        name=options.name or _name(argv),
        framework=options.framework,
        groups=slot_groups(options),
        env=dict(map(_variable, options.env)),
        snapshot=snapshot,
        environment=options.environment or environment.session_environment(),
        duration=options.duration,
        retries=options.retries,
        stall=options.stall,
        options=dict(map(framework_option, options.option)),
        wishes=WishesRequest(
            datacenter=options.datacenter,
            inputs=options.inputs,
            outputs=options.outputs,
            queue=options.queue,
            priority=options.priority,
            preemptible=options.preemptible,
            expected=options.expected,
            step_bytes=options.step_bytes,
        ),
    )
    request.check()
    return request


def slot_groups(options: RunOptions) -> tuple[GroupRequest, ...]:
    """Return what each role asks for, in the order of the ranks: a chief has rank 0.

    Raises InvalidRequest for a count below 0 and a topology of a role that there is not.
    """
    if options.ps is not None and options.ps < 0:
        raise InvalidRequest(f"ps must be at least 0, got {options.ps}")
    size = _said(options.cpus, "1"), _said(options.memory, "2G"), _said(options.gpus, "0")
    ps_size = _said(options.ps_cpus, "1"), _said(options.ps_memory, "2G")
    asked = (
        GroupRequest("chief", int(options.chief), *size),
        GroupRequest("worker", _said(options.workers, 1), *size),
        GroupRequest("ps", options.ps or 0, *ps_size),
        GroupRequest("evaluator", int(options.evaluator), *size),
    )
    groups = [group for group in asked if group.count or group.role == "worker"]
    wanted = _topologies(options.topology, [group.role for group in groups])
    return tuple(replace(group, topology=wanted.get(group.role)) for group in groups)


def _said(given: Value | None, usual: Value) -> Value:
    return usual if given is None else given


def _topologies(texts: Sequence[str], roles: Sequence[str]) -> dict[str, str]:
    """Read ``ROLE=WISH``, or ``WISH`` for workers; raise InvalidRequest for another role."""
    found: dict[str, str] = {}
    for text in texts:
        role, equals, wish = text.rpartition("=")
        role = role if equals else "worker"
        if role not in roles:
            raise InvalidRequest(
                f"topology {text!r} is for {role!r}, which this job does not have; "
                f"it has {', '.join(roles)}"
            )
        found[role] = read_topology(wish)
    return found


def _name(argv: Sequence[str]) -> str:
    """Return a job's name: its script's without the ending, or the program's."""
    scripts = (word for word in argv if Path(word).suffix in _INTERPRETERS)
    return Path(next(scripts, argv[0] if argv else "")).stem[:100]


def framework_option(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``; raise InvalidRequest for anything else."""
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise InvalidRequest(f"option must be NAME=VALUE, got {text!r}")
    return name, value


def _variable(text: str) -> tuple[str, str]:
    """Read ``K=V``, or ``K`` for the value it has here."""
    name, equals, value = text.partition("=")
    if equals:
        return name, value
    here = environment.variable(name)
    if here is None:
        raise InvalidRequest(f"env {name!r} is not set here; give it a value, {name}=VALUE")
    return name, here


class RunCommand(click.Command):
    """A command with these options; its callback gets them as fields of ``RunOptions``."""

    allow_interspersed_args = False

    def __init__(self, name: str | None, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.params = [*run_parameters(), *self.params]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the line; a wrong option names the right one."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(self._unknown(error), ctx) from error

    def _unknown(self, error: click.NoSuchOption) -> str:
        if error.possibilities:
            return f"no option {error.option_name}, did you mean {error.possibilities[0]}?"
        options = [each for each in self.params if isinstance(each, click.Option)]
        known = [opt for each in options for opt in (*each.opts, *each.secondary_opts)]
        return (
            f"no option {error.option_name}; there are {' '.join(known)}, "
            "a script's own come after it"
        )


def parse_run(words: Sequence[str], prog_name: str) -> RunOptions:
    """Read a line that is already split into words.

    Raises InvalidRequest that names the right option where one is wrong.
    """
    command = RunCommand(prog_name, add_help_option=False)
    try:
        with command.make_context(prog_name, list(words)) as context:
            return run_values(context.params)
    except click.UsageError as error:
        raise InvalidRequest(error.format_message()) from error


def run_values(params: Mapping[str, Any]) -> RunOptions:
    """Return what click read; other options of the command are left alone."""
    names = {field.name for field in fields(RunOptions)}
    return RunOptions(**{name: value for name, value in params.items() if name in names})
