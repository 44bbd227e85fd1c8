"""What comes over HTTP with a token leaves no token behind in the service's log."""

from __future__ import annotations

import logging

import pytest

from nimbus_hub.client import GroupRequest, JobRequest
from nimbus_hub.control.tokens import job_token
from tests.service.conftest import Service


def test_neither_good_nor_bad_tokens_are_logged(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    job = service.client("ada-token").submit(
        JobRequest(argv=("python", "a.py"), groups=(GroupRequest(),))
    )
    tokens = ("ada-token", "made-up-token", "nobody-token", job_token(b"wrong secret", job.id))
    statuses = []
    for token in tokens:
        with service.raw(token) as http:
            statuses.append(http.get(f"/api/v1/jobs/{job.id}").status_code)
    assert statuses == [200, 401, 403, 401]
    assert f"job {job.id} queued" in caplog.text
    assert [token for token in tokens if token in caplog.text] == []
