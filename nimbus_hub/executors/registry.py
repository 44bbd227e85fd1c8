"""Which executor runs what: the name a host gives, and the executor behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.base import Executor
from nimbus_hub.model.host import Host

__all__ = ["Executors"]


class Executors:
    """The executors of this service by name."""

    def __init__(self, executors: Mapping[str, Executor]) -> None:
        """Take what `app` has made."""
        self._executors = dict(executors)

    def __iter__(self) -> Iterator[Executor]:
        """Go through the executors."""
        return iter(self._executors.values())

    def named(self, name: str) -> Executor:
        """Return an executor; raise InvalidRequest for a name that is not configured."""
        if name not in self._executors:
            known = ", ".join(sorted(self._executors)) or "none"
            raise InvalidRequest(f"there is no executor {name!r}; configured: {known}")
        return self._executors[name]

    def for_host(self, host: Host) -> Executor:
        """Return the executor that reaches a host."""
        return self.named(host.executor)
