"""Wishes: what a request says beside its slots: where, how soon, and at what price."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.quantities import format_duration, parse_memory

__all__ = ["HIGHEST_PRIORITY", "DataUse", "Wishes"]

HIGHEST_PRIORITY = 1000
"""Priorities are whole numbers from minus this to this; 0 is the usual one."""

_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S{1,2000}", re.IGNORECASE)
_MOST_URLS = 100


@dataclass(frozen=True, slots=True)
class DataUse:
    """Data that is read or written, by its URL; ``size_bytes`` is None where nobody said."""

    url: str
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no URL."""
        if not _URL.fullmatch(self.url):
            raise InvalidRequest(f"data must be a URL like s3://bucket/path, got {self.url!r}")
        if self.size_bytes is not None and self.size_bytes < 0:
            raise InvalidRequest(
                f"the size of {self.url} must be at least 0, got {self.size_bytes}"
            )

    @classmethod
    def parse(cls, text: str) -> DataUse:
        """Read ``s3://bucket/path`` or, with its size, ``s3://bucket/path=120G``."""
        url, equals, size = text.strip().rpartition("=")
        # An = may be of the URL's own: in a query, or in a directory like day=3/part.
        if not equals or "?" in url or "/" in size:
            return cls(text.strip())
        try:
            return cls(url, parse_memory(size))
        except InvalidRequest:
            raise InvalidRequest(
                f"data must be URL or URL=SIZE with a size like 120G, got {text!r}"
            ) from None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request says beside its slots.

    ``expected`` is how long it will likely take, at most its lease's length; only estimates
    use it. ``step_bytes`` is what a worker exchanges with the others in each step (the size
    of the gradients); it makes the plan's figures absolute.
    """

    datacenter: str | None = None
    inputs: tuple[DataUse, ...] = ()
    outputs: tuple[DataUse, ...] = ()
    queue: str = "default"
    priority: int = 0
    is_preemptible: bool = False
    expected: timedelta | None = None
    step_bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse amounts that make no sense."""
        if not -HIGHEST_PRIORITY <= self.priority <= HIGHEST_PRIORITY:
            raise InvalidRequest(
                f"priority must be from -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}, "
                f"got {self.priority}"
            )
        if len(self.inputs) > _MOST_URLS or len(self.outputs) > _MOST_URLS:
            raise InvalidRequest(
                f"inputs and outputs must be at most {_MOST_URLS} each, "
                f"got {len(self.inputs)} and {len(self.outputs)}"
            )
        if self.expected is not None and self.expected <= timedelta(0):
            raise InvalidRequest(
                f"the expected length must be more than 0, got {format_duration(self.expected)}"
            )
        if self.step_bytes is not None and self.step_bytes < 0:
            raise InvalidRequest(f"step bytes must be at least 0, got {self.step_bytes}")
