"""JSON as resources, and back.

Fields this client does not know are ignored, so an older client reads a newer service; one
that is missing is an error that says so.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from datetime import datetime

from nimbus_hub.errors import Unavailable

__all__ = ["decode", "decode_items", "encode"]

Resource = typing.TypeVar("Resource")


def decode(cls: type[Resource], data: object) -> Resource:
    """Read JSON as ``cls``; raise Unavailable where the service speaks another language."""
    try:
        return typing.cast(Resource, _value(cls, data))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise Unavailable(
            f"the service's answer is no {cls.__name__} ({error}); "
            "its version and this client's do not fit, upgrade the older one"
        ) from error


def decode_items(cls: type[Resource], data: typing.Any) -> tuple[Resource, ...]:
    """Read a list of ``cls``, which the service wraps in an object."""
    if not isinstance(data, dict) or not isinstance(data.get("items"), list):
        raise Unavailable(f"the service's answer is no list of {cls.__name__}")
    return tuple(decode(cls, item) for item in data["items"])


def encode(value: object) -> typing.Any:
    """Write a resource as JSON; the opposite of ``decode``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    return value.isoformat() if isinstance(value, datetime) else value


@functools.cache
def _fields(cls: type) -> dict[str, typing.Any]:
    return typing.get_type_hints(cls)


def _value(hint: typing.Any, data: typing.Any) -> object:
    """Read one value by its type hint; only the kinds of hints used above are known."""
    if isinstance(hint, types.UnionType):
        return None if data is None else _value(typing.get_args(hint)[0], data)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return tuple(_value(item, each) for each in data)
    if typing.get_origin(hint) is dict:
        item = typing.get_args(hint)[1]
        return {str(key): _value(item, each) for key, each in data.items()}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        made = {name: _value(each, data[name]) for name, each in _fields(hint).items()}
        return hint(**made)
    if hint is datetime:
        return datetime.fromisoformat(data)
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, hint) or (hint is int and isinstance(data, bool)):
        raise TypeError(f"{data!r} is no {hint.__name__}")
    return data
