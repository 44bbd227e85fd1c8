"""What is asked of the service. Amounts are as people write them: ``90m``, ``4G``, ``A100:2``.

``check`` refuses what could never be right, in the service's own words, before anything
is sent or uploaded.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.quantities import parse_cpus, parse_duration, parse_gpus, parse_memory
from nimbus_hub.model.slot import SlotGroup

__all__ = ["GroupRequest", "JobRequest"]

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_RETRIES = 100


@dataclass(frozen=True, slots=True)
class GroupRequest:
    """A wish for ``count`` equal slots of one role; sizes are per slot."""

    role: str = "worker"
    count: int = 1
    cpus: str | float = 1
    memory: str | int = "2G"
    gpus: str | int = 0

    def check(self) -> None:
        """Raise InvalidRequest for amounts that make no sense."""
        gpus, model = parse_gpus(self.gpus)
        SlotGroup(
            role=self.role,
            count=self.count,
            cpus_milli=parse_cpus(self.cpus),
            memory_bytes=parse_memory(self.memory),
            gpus=gpus,
            gpu_model=model,
        )

    def body(self) -> dict[str, object]:
        """Return the JSON to send."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A wish to run a command as a job. ``snapshot`` is what ``Client.upload`` returned."""

    argv: tuple[str, ...]
    name: str = ""
    framework: str = "script"
    groups: tuple[GroupRequest, ...] = (GroupRequest(),)
    env: dict[str, str] = field(default_factory=dict)
    snapshot: str | None = None
    environment: str = "default"
    duration: str | int | None = None
    retries: int = 0

    def check(self) -> None:
        """Raise InvalidRequest for what the service would refuse."""
        if not self.argv:
            raise InvalidRequest("argv must name a program, got nothing")
        for group in self.groups:
            group.check()
        for name in self.env:
            if not _ENV_NAME.fullmatch(name):
                raise InvalidRequest(
                    f"env must be NAME=VALUE with a name of letters, digits and _, got {name!r}"
                )
        if self.duration is not None:
            parse_duration(self.duration)
        if not 0 <= self.retries <= _MOST_RETRIES:
            raise InvalidRequest(
                f"retries must be at least 0 and at most {_MOST_RETRIES}, got {self.retries}"
            )

    def body(self) -> dict[str, object]:
        """Return the JSON to send."""
        return asdict(self)
