"""What a user chose for a session, checked: from the form, from a query or from the API.

``user_options`` may come from anywhere and hold anything, so they are read field by field;
an unknown field is refused with the names that are known. No option at all is a session of
the first size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.quantities import parse_cpus, parse_duration, parse_gpus, parse_memory

__all__ = ["CUSTOM", "SessionOptions", "options_from_form"]

CUSTOM = "custom"
"""The form's choice of own numbers instead of a size."""

_AMOUNTS = ("cpus", "memory", "gpus")
_COMMON = ("environment", "duration", "wait", "queue", "datacenter")
_FIELDS = ("size", *_AMOUNTS, *_COMMON)


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """A checked choice. Without a size, cpus, memory and gpus are all given.

    ``wait`` is as it was given: its bound is the spawner's, so the request checks it.
    No queue is the usual one, no datacenter leaves the choice to the scheduler.
    """

    size: str | None = None
    cpus: str | None = None
    memory: str | None = None
    gpus: str | None = None
    environment: str = "default"
    duration: str | None = None
    wait: str | None = None
    queue: str | None = None
    datacenter: str | None = None

    @classmethod
    def parse(cls, user_options: Mapping[str, object]) -> SessionOptions:
        """Read options; raise InvalidRequest with a sentence for the first that is wrong."""
        given = {name: _text(name, value) for name, value in user_options.items()}
        unknown = sorted(set(given) - set(_FIELDS))
        if unknown:
            raise InvalidRequest(
                f"there is no session option {unknown[0]!r}; there are: {', '.join(_FIELDS)}"
            )
        given = {name: text for name, text in given.items() if text}
        size = given.get("size")
        amounts = {name: given[name] for name in _AMOUNTS if name in given}
        if size not in (None, CUSTOM):
            if amounts:
                raise InvalidRequest(
                    f"give a size or {'/'.join(amounts)}, not both: got size {size!r}"
                )
            return cls(size=size, **_common(given))
        if size is None and not amounts:
            return cls(**_common(given))
        return cls(
            **_checked({"cpus": "1", "memory": "2G", "gpus": "0", **amounts}), **_common(given)
        )


def options_from_form(form: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the options that a submitted form chooses: what is empty or not meant is left out."""
    chosen = {name: str(values[-1]).strip() for name, values in form.items() if values}
    chosen.pop("_xsrf", None)
    if chosen.get("size") != CUSTOM:
        chosen = {name: value for name, value in chosen.items() if name not in _AMOUNTS}
    return {name: value for name, value in chosen.items() if value}


def _text(name: str, value: object) -> str:
    """Return a scalar as text; forms and queries give lists of one."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidRequest(f"session option {name} must be text or a number, got {value!r}")
    return str(value).strip()


def _common(given: Mapping[str, str]) -> dict[str, str]:
    if "duration" in given:
        parse_duration(given["duration"])
    return {name: given[name] for name in _COMMON if name in given}


def _checked(amounts: dict[str, str]) -> dict[str, str]:
    parse_cpus(amounts["cpus"])
    parse_memory(amounts["memory"])
    parse_gpus(amounts["gpus"])
    return amounts
