"""What a user chose for a session, checked: from the form, from a query or from the API.

``user_options`` may come from anywhere and hold anything, so they are read field by field;
an unknown field is refused with the names that are known. No option at all is a session of
the first size.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.quantities import parse_cpus, parse_duration, parse_gpus, parse_memory

__all__ = ["CUSTOM", "GangOptions", "SessionOptions", "options_from_form"]

CUSTOM = "custom"
"""The form's choice of own numbers instead of a size."""

_AMOUNTS = ("cpus", "memory", "gpus")
_COMMON = ("environment", "duration", "wait", "queue", "datacenter")
_GANG = ("debug_framework", "debug_ps", "debug_workers", "debug_gpus")
_FIELDS = ("size", *_AMOUNTS, *_COMMON, *_GANG)
_MOST_REPLICAS = 1000


@dataclass(frozen=True, slots=True)
class GangOptions:
    """A checked choice of a debug gang: ``gpus`` for each worker."""

    framework: str = "script"
    ps: int = 0
    workers: int = 1
    gpus: str = "0"

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> GangOptions | None:
        """Read what begins with ``debug_``; None where nothing does."""
        if not any(name in given for name in _GANG):
            return None
        gpus = given.get("debug_gpus", "0")
        parse_gpus(gpus)
        return cls(
            framework=given.get("debug_framework", "script"),
            ps=_count("debug_ps", given.get("debug_ps", "0"), 0),
            workers=_count("debug_workers", given.get("debug_workers", "1"), 1),
            gpus=gpus,
        )


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """A checked choice. Without a size, cpus, memory and gpus are all given.

    ``wait`` is as it was given: its bound is the spawner's, so the request checks it.
    No queue is the usual one, no datacenter leaves the choice to the scheduler. ``gang`` is
    what the session holds besides its own slot.
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
    gang: GangOptions | None = None

    @classmethod
    def parse(
        cls, user_options: Mapping[str, object], others: Collection[str] = ()
    ) -> SessionOptions:
        """Read options; raise InvalidRequest with a sentence for the first that is wrong.

        Those named in ``others`` are left to whom they are for.
        """
        chosen = {name: value for name, value in user_options.items() if name not in others}
        given = {name: _text(name, value) for name, value in chosen.items()}
        unknown = sorted(set(given) - set(_FIELDS))
        if unknown:
            raise InvalidRequest(
                f"there is no session option {unknown[0]!r}; there are: {', '.join(_FIELDS)}"
            )
        given = {name: text for name, text in given.items() if text}
        size, gang = given.get("size"), GangOptions.parse(given)
        amounts = {name: given[name] for name in _AMOUNTS if name in given}
        if size not in (None, CUSTOM):
            if amounts:
                raise InvalidRequest(
                    f"give a size or {'/'.join(amounts)}, not both: got size {size!r}"
                )
            return cls(size=size, gang=gang, **_common(given))
        if size is None and not amounts:
            return cls(gang=gang, **_common(given))
        checked = _checked({"cpus": "1", "memory": "2G", "gpus": "0", **amounts})
        return cls(gang=gang, **checked, **_common(given))


def options_from_form(form: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the options that a submitted form chooses: what is empty or not meant is left out."""
    chosen = {name: str(values[-1]).strip() for name, values in form.items() if values}
    chosen.pop("_xsrf", None)
    if chosen.get("size") != CUSTOM:
        chosen = {name: value for name, value in chosen.items() if name not in _AMOUNTS}
    # Its framework is always chosen in the form; how many there are says whether one is meant.
    if not any(chosen.get(name) for name in _GANG if name != "debug_framework"):
        chosen.pop("debug_framework", None)
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


def _count(name: str, text: str, least: int) -> int:
    """Read how many there are of a role."""
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= _MOST_REPLICAS:
        raise InvalidRequest(
            f"{name} must be a whole number from {least} to {_MOST_REPLICAS}, got {text!r}"
        )
    return int(text)


def _common(given: Mapping[str, str]) -> dict[str, str]:
    if "duration" in given:
        parse_duration(given["duration"])
    return {name: given[name] for name in _COMMON if name in given}


def _checked(amounts: dict[str, str]) -> dict[str, str]:
    parse_cpus(amounts["cpus"])
    parse_memory(amounts["memory"])
    parse_gpus(amounts["gpus"])
    return amounts
