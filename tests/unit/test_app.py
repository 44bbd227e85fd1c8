"""The service as an application: what its settings come to."""

from __future__ import annotations

import logging
import time

import pytest
from jupyterhub.services.auth import HubOAuth

from nimbus_hub.app import NimbusHub, OneLine


@pytest.mark.parametrize(("is_trusted", "seconds"), [(True, 60), (False, 1)])
def test_no_answer_about_a_token_is_kept_for_ever(
    monkeypatch: pytest.MonkeyPatch, is_trusted: bool, seconds: int
) -> None:
    app = NimbusHub(trust_token_cache=is_trusted)
    cache = HubOAuth(
        api_token="t", oauth_client_id="c", cache_max_age=app.token_cache_seconds
    ).cache
    cache["token"] = {"name": "ada"}
    assert "token" in cache
    later = time.monotonic() + seconds + 0.1
    monkeypatch.setattr("jupyterhub.services.auth.time.monotonic", lambda: later)
    assert "token" not in cache


def test_a_reason_cannot_forge_a_line_of_the_log() -> None:
    reason = "gone\n2026-01-01 INFO lease l-1 granted\x1b[2J"
    record = logging.LogRecord(
        "nimbus", logging.INFO, "", 0, "job %s stopping: %s", ("j", reason), None
    )
    line = OneLine("%(levelname)s %(message)s").format(record)
    assert line == "INFO job j stopping: gone 2026-01-01 INFO lease l-1 granted"
