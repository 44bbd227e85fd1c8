"""The errors of Nimbus Hub: one tree, each class with a stable code.

NimbusError
├── InvalidRequest        the request itself is wrong; nothing was changed
│   ├── Impossible        no host could ever satisfy it
│   └── TooLarge          over a size limit
├── Unauthenticated       no or an unknown token
├── Forbidden             known, but not allowed to do this
├── NotFound              no such object, or another user's
│   └── Deleted           it was there, and was deleted
├── Conflict              the object is not in a state that allows it
│   └── Ended             the lease or job is over
└── Unavailable           a part that is needed does not answer; try again

The text is one sentence for people: what, the value given, what would be right.
The same classes are raised by the service and, decoded from JSON, by the client.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "Conflict",
    "Deleted",
    "Ended",
    "Forbidden",
    "Impossible",
    "InvalidRequest",
    "NimbusError",
    "NotFound",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "error_classes",
]


class NimbusError(Exception):
    """Base of all errors that are meant for people."""

    code: ClassVar[str] = "error"

    @property
    def message(self) -> str:
        """Return the sentence for people."""
        return str(self.args[0]) if self.args else self.code


class InvalidRequest(NimbusError):
    """The request is wrong; nothing was changed."""

    code = "invalid_request"


class Impossible(InvalidRequest):
    """No host could ever satisfy the request."""

    code = "impossible"


class TooLarge(InvalidRequest):
    """Something is over its size limit."""

    code = "too_large"


class Unauthenticated(NimbusError):
    """The caller gave no token, or one nobody knows."""

    code = "unauthenticated"


class Forbidden(NimbusError):
    """The caller is known but may not do this."""

    code = "forbidden"


class NotFound(NimbusError):
    """There is no such object, or it belongs to somebody else."""

    code = "not_found"


class Deleted(NotFound):
    """What is asked for was there, and was deleted."""

    code = "deleted"


class Conflict(NimbusError):
    """The object is in a state that does not allow this."""

    code = "conflict"


class Ended(Conflict):
    """The lease or job is over."""

    code = "ended"


class Unavailable(NimbusError):
    """A part that is needed does not answer; the same call may work later."""

    code = "unavailable"


def error_classes() -> dict[str, type[NimbusError]]:
    """Return every error class by its code."""
    found: dict[str, type[NimbusError]] = {}
    pending: list[type[NimbusError]] = [NimbusError]
    while pending:
        cls = pending.pop()
        found[cls.code] = cls
        pending.extend(cls.__subclasses__())
    return found
