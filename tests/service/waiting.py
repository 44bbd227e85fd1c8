"""Waiting for conditions, with a bound."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], is_so: Callable[[T], bool], seconds: float = 10.0) -> T:
    """Return what is seen as soon as it is so; fail with what was seen last."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if is_so(seen):
            return seen
        assert time.monotonic() < deadline, f"after {seconds:g} s it was still {seen!r}"
        time.sleep(0.02)
