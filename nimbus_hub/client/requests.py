"""What is asked of the service. Amounts are as people write them: ``90m``, ``4G``, ``A100:2``.

``check`` refuses what could never be right, in the service's own words, before anything
is sent or uploaded.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.quantities import parse_duration
from nimbus_hub.model.request import read_group, read_stall, read_wishes

__all__ = ["GangRequest", "GroupRequest", "JobRequest", "WishesRequest"]

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_RETRIES = 100


@dataclass(frozen=True, slots=True)
class GroupRequest:
    """A wish for ``count`` equal slots of one role; sizes are per slot."""

    role: str = "worker"
    count: int = 1
    cpus: str | float = 1
    memory: str | int = "2G"
    gpus: str | float = 0
    topology: str | None = None

    def check(self) -> None:
        """Raise InvalidRequest for amounts that make no sense."""
        read_group(
            role=self.role,
            count=self.count,
            cpus=self.cpus,
            memory=self.memory,
            gpus=self.gpus,
            topology=self.topology,
        )

    def body(self) -> dict[str, object]:
        """Return the JSON to send."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class WishesRequest:
    """What a request says beside its slots: where, how soon, and at what price.

    ``inputs`` and ``outputs`` are URLs, or ``URL=SIZE``. ``expected`` is how long it will
    likely take, ``step_bytes`` what a worker sends the others in each step.
    """

    datacenter: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    queue: str = "default"
    priority: int = 0
    preemptible: bool = False
    expected: str | int | None = None
    step_bytes: str | int | None = None

    def check(self) -> None:
        """Raise InvalidRequest for what makes no sense."""
        read_wishes(
            datacenter=self.datacenter,
            inputs=self.inputs,
            outputs=self.outputs,
            queue=self.queue,
            priority=self.priority,
            preemptible=self.preemptible,
            expected=self.expected,
            step_bytes=self.step_bytes,
        )

    def body(self) -> dict[str, object]:
        """Return the JSON to send, as a part of a request."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A wish to run a command as a job. ``snapshot`` is what ``Client.upload`` returned.

    ``gang`` is the lease of a debug gang to run on: framework, environment and groups are the
    gang's where they are not given. Without one the framework is ``script``, the environment
    ``default``, and one worker runs. ``pdb``: a replica that fails waits in its debugger.
    ``options`` are the framework's own, ``imports`` what the script imports: without a
    framework the service takes the one that this says. An attempt without a sign of life for
    the time ``stall`` fails; ``off``: none does.
    """

    argv: tuple[str, ...]
    name: str = ""
    framework: str | None = None
    imports: tuple[str, ...] = ()
    groups: tuple[GroupRequest, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    snapshot: str | None = None
    environment: str | None = None
    duration: str | int | None = None
    retries: int = 0
    stall: str | int | None = None
    gang: str | None = None
    pdb: bool = False
    options: dict[str, str] = field(default_factory=dict)
    wishes: WishesRequest = WishesRequest()

    def check(self) -> None:
        """Raise InvalidRequest for what the service would refuse."""
        if not self.argv:
            raise InvalidRequest("argv must name a program, got nothing")
        for group in self.groups:
            group.check()
        self.wishes.check()
        for name in self.env:
            if not _ENV_NAME.fullmatch(name):
                raise InvalidRequest(
                    f"env must be NAME=VALUE with a name of letters, digits and _, got {name!r}"
                )
        if self.duration is not None:
            parse_duration(self.duration)
        if self.stall is not None:
            read_stall(self.stall)
        if not 0 <= self.retries <= _MOST_RETRIES:
            raise InvalidRequest(
                f"retries must be at least 0 and at most {_MOST_RETRIES}, got {self.retries}"
            )

    def body(self) -> dict[str, object]:
        """Return the JSON to send."""
        body: dict[str, object] = asdict(self)
        del body["wishes"]
        body["groups"] = [group.body() for group in self.groups] or None
        return body | self.wishes.body()


@dataclass(frozen=True, slots=True)
class GangRequest:
    """A wish to hold a debug gang; ``session`` is the session's lease that it belongs to."""

    framework: str = "script"
    groups: tuple[GroupRequest, ...] = (GroupRequest(),)
    environment: str = "default"
    name: str = ""
    duration: str | int | None = None
    wait: str | int | None = None
    session: str | None = None

    def check(self) -> None:
        """Raise InvalidRequest for what the service would refuse."""
        for group in self.groups:
            group.check()
        for length in (self.duration, self.wait):
            if length is not None:
                parse_duration(length)

    def body(self) -> dict[str, object]:
        """Return the JSON to send."""
        return asdict(self)
