"""What users do with sessions in containers, and what they are told."""

from __future__ import annotations

from typing import Any

from tests.hub.conftest import User, wait_for

__all__ = ["answers", "ended", "failure", "started"]


def started(user: User, **options: object) -> dict[str, Any]:
    events = user.start(**options)
    assert events[-1].get("ready"), events
    (lease,) = user.leases("live")
    return lease


def failure(user: User, **options: object) -> str:
    """Start a session that must fail; return the sentence, told at once or by the progress."""
    answer = user.api("POST", f"/users/{user.name}/server", json={"user_options": options})
    if answer.status_code != 202:
        assert answer.status_code >= 400, answer.text
        return str(answer.json()["message"])
    last = user.progress()[-1]
    assert last["failed"], last
    return str(last["message"])


def ended(user: User, lease: dict[str, Any], seconds: float = 20) -> str:
    """Wait until a lease is over; return the reason."""

    def found() -> dict[str, Any] | None:
        return next(
            (each for each in user.leases() if each["id"] == lease["id"] and each["is_ended"]), None
        )

    return str(wait_for(found, seconds, "lease ended")["reason"])


def answers(user: User) -> bool:
    return user.http.get(f"/user/{user.name}/api").status_code == 200
