"""The description in docs/ is the server's, and the server keeps to it."""

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from nimbus_hub.api.describe import description
from nimbus_hub.api.routes import ROUTES
from tests.service.conftest import Service

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# Streams do not end by themselves; they have tests of their own.
STREAMS = {"/api/v1/events", "/api/v1/jobs/{job_id}/logs/stream"}
# A tar is nothing that can be made up out of a schema; test_jobs.py uploads.
TARS = {"/api/v1/snapshots/files"}


def test_the_file_in_docs_is_the_description() -> None:
    assert FILE.read_text() == description(), (
        "run: python -m nimbus_hub.api.describe > docs/openapi.json"
    )


def test_the_server_serves_the_description(service: Service) -> None:
    with service.raw(None) as http:
        assert http.get("/openapi.json").json() == json.loads(description())


@pytest.mark.parametrize("path", sorted(set(ROUTES) - STREAMS - TARS))
def test_the_server_keeps_to_the_description(service: Service, path: str) -> None:
    schema = schemathesis.openapi.from_dict(json.loads(description()))
    for verb in ROUTES[path].operations:
        _check(service, schema[path][verb.upper()])


def _check(service: Service, operation: Any) -> None:
    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def check(case: schemathesis.Case) -> None:
        # A long poll is as right as a short one, and takes longer.
        if case.query and "timeout" in case.query:
            case.query["timeout"] = 0
        case.headers = {**(case.headers or {}), "Authorization": "token admin-token"}
        case.call_and_validate(base_url=service.url, checks=CHECKS)

    check()
