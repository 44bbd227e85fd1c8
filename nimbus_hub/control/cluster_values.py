"""Readers of single values of the cluster file: what is written there, and how it is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Any, TypeVar

from nimbus_hub.control.yaml_nodes import Item
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.network import read_network
from nimbus_hub.model.quantities import parse_memory

__all__ = [
    "address",
    "bound",
    "by",
    "choice",
    "labels",
    "location",
    "milli",
    "network",
    "number",
    "parse_bandwidth",
    "policy",
    "size",
    "text",
    "truth",
]

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_BANDWIDTH = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(bit|B)(?:/s)?")
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_LOCATION = re.compile(r"[a-z][a-z0-9+.-]*:/\S*", re.IGNORECASE)
_NO_BOUND = "none"


def parse_bandwidth(value: str | int | float) -> int:
    """Read ``10Gbit`` or ``1.25GB``, each per second; return bytes per second.

    Both count by thousands, as networks do. Raises InvalidRequest for anything else: a bare
    ``10G`` could be either.
    """
    match = _BANDWIDTH.fullmatch(str(value))
    if match is None:
        raise InvalidRequest(
            f"bandwidth must be bits or bytes a second like 10Gbit or 1.25GB, got {value!r}"
        )
    amount = float(match[1]) * _FACTORS[match[2]]
    found = amount / 8 if match[3] == "bit" else amount
    if not 1 <= found < 2**60:
        raise InvalidRequest(f"bandwidth must be at least 1B, got {value!r}")
    return int(found)


def text(item: Item) -> str:
    """Return a text that is not empty."""
    return item.text


def by(read: Callable[[Any], T]) -> Callable[[Item], T]:
    """Return a reader that has another read what is written."""
    return lambda item: item.by(read)


def number(least: float, most: float, *, is_whole: bool) -> Callable[[Item], Any]:
    """Return a reader of numbers from ``least`` to ``most``."""
    noun = "a whole number" if is_whole else "a number"
    bounds = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"

    def read(item: Item) -> Any:
        value = item.scalar
        if not isinstance(value, int if is_whole else int | float) or not least <= value <= most:
            raise item.fault(f"must be {noun} {bounds}, got {item.quote}")
        return value

    return read


def choice(kind: type[E]) -> Callable[[Item], E]:
    """Return a reader of one of a kind's words."""

    def read(item: Item) -> E:
        value = str(item.scalar)
        if value not in list(kind):
            raise item.fault(f"must be one of {', '.join(kind)}, got {item.quote}")
        return kind(value)

    return read


def truth(item: Item) -> bool:
    """Return true or false."""
    value = str(item.scalar)
    if value not in ("true", "false"):
        raise item.fault(f"must be true or false, got {item.quote}")
    return value == "true"


def address(item: Item) -> str:
    """Return an IPv4 address."""
    try:
        return str(IPv4Address(item.text))
    except ValueError:
        raise item.fault(f"must be an IPv4 address, got {item.quote}") from None


def network(item: Item) -> str:
    """Return an IPv4 network that is large enough for slots."""
    return str(item.by(read_network))


def location(item: Item) -> str:
    """Return the start of a URL."""
    if not _LOCATION.fullmatch(item.text):
        raise item.fault(f"must be the start of a URL like s3://bucket/, got {item.quote}")
    return item.text


def milli(item: Item) -> int:
    """Return an amount in thousandths."""
    found: float = number(0, 10**6, is_whole=False)(item)
    return round(found * 1000)


def size(item: Item) -> int:
    """Return bytes; unlike others nothing is an amount here."""
    return 0 if item.scalar in (0, "0") else item.by(parse_memory)


def bound(read: Callable[[Item], int]) -> Callable[[Item], int | None]:
    """Return a reader that knows the word for no bound."""
    return lambda item: None if item.scalar == _NO_BOUND else read(item)


def policy(find: Callable[[str], object]) -> Callable[[Item], str]:
    """Return a reader of the name of a policy, which must be installed and can be loaded."""

    def read(item: Item) -> str:
        name = item.text
        try:
            find(name)
        except InvalidRequest as error:
            raise item.fault(f"is wrong: {error.message}") from None
        except Exception as error:
            # Whatever a plug-in of somebody else's raises when it is imported.
            raise item.fault(f"names a policy that cannot be loaded: {error}") from error
        return name

    return read


def labels(item: Item) -> dict[str, str]:
    """Return names and values."""
    return {name: str(value.scalar) for name, value in item.entries().items()}
