"""The notifiers by name: mail, webhook, and those that other packages add."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.notice import NoticeKind
from nimbus_hub.notifiers.base import Notifier

__all__ = ["GROUP", "Route", "read_notifiers"]

GROUP = "nimbus_hub.notifiers"


@dataclass(frozen=True, slots=True)
class Route:
    """A notifier and the kinds of notices that go to it."""

    name: str
    notifier: Notifier
    kinds: frozenset[NoticeKind]


def read_notifiers(given: Mapping[str, object]) -> tuple[Route, ...]:
    """Make the notifiers that an operator named, with the settings of each.

    Raises InvalidRequest naming the notifier and what is wrong.
    """
    return tuple(_route(str(name), settings) for name, settings in given.items())


def _route(name: str, given: object) -> Route:
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"{name}: its settings must be a dict, got {type(given).__name__}")
    settings = {str(key): value for key, value in given.items()}
    try:
        kinds = _kinds(settings.pop("events", list(NoticeKind)))
        return Route(name, _made(name, settings), kinds)
    except InvalidRequest as error:
        raise InvalidRequest(f"{name}: {error.message}") from None


def _kinds(events: object) -> frozenset[NoticeKind]:
    known = ", ".join(NoticeKind)
    if not isinstance(events, Sequence) or isinstance(events, str) or not events:
        raise InvalidRequest(f"events must be a list of {known}, got {events!r}")
    for event in events:
        if event not in list(NoticeKind):
            raise InvalidRequest(f"there is no event {event!r}; there are {known}")
    return frozenset(map(NoticeKind, events))


def _made(name: str, settings: dict[str, object]) -> Notifier:
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise InvalidRequest(
            f"there is no such notifier; installed are {', '.join(sorted(points))}"
        )
    # A plug-in may fail in any way it likes.
    try:
        factory = points[name].load()
        wanted = inspect.signature(factory)
    except Exception as error:
        raise InvalidRequest(f"{points[name].value} cannot be loaded: {error}") from error
    try:
        wanted.bind(**settings)
    except TypeError as error:
        raise InvalidRequest(f"{error}; it takes {', '.join(wanted.parameters)}") from None
    try:
        made: Notifier = factory(**settings)
    except InvalidRequest:
        raise
    except Exception as error:
        # Its text may hold a setting's value, and that may be a secret.
        raise InvalidRequest(f"{points[name].value} failed: {type(error).__name__}") from error
    return made
