"""Notices: what reaches people away from the browser."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["Notice", "NoticeKind"]


class NoticeKind(StrEnum):
    """What a notice is about; operators choose by these which are sent."""

    LEASE_WARNING = "lease-warning"
    LEASE_ENDED = "lease-ended"
    IDLE_WARNING = "idle-warning"
    JOB_WARNING = "job-warning"
    JOB_ENDED = "job-ended"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that ``user`` is to hear of, in words for people.

    ``id`` is the same whenever the same notice is sent again: receivers may drop the second.
    ``title`` is one line, ``text`` sentences, ``url`` where to act on it, ``time`` when it
    happened (UTC).
    """

    id: str
    kind: NoticeKind
    user: str
    title: str
    text: str
    url: str
    time: datetime
