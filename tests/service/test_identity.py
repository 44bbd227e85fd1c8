"""Every route, every kind of caller: what each may do, in one table."""

import re

import pytest

from nimbus_hub.api.identity import Scope, caller_of_model
from nimbus_hub.api.routes import ROUTES
from tests.service.conftest import Service

OPEN = {("get", "/health"), ("get", "/openapi.json")}
ADMIN = {
    ("get", "/metrics"),
    ("post", "/api/v1/leases/{lease_id}/activate"),
}
OPERATIONS = [(verb, path) for path, handler in ROUTES.items() for verb in handler.operations]


def filled(path: str) -> str:
    return re.sub(r"{\w+}", "x-unknown", path)


@pytest.mark.parametrize(("verb", "path"), OPERATIONS)
def test_every_route_is_closed_to_strangers(service: Service, verb: str, path: str) -> None:
    with service.raw(None) as http:
        status = http.request(verb, filled(path)).status_code
    with service.raw("no-such-token") as http:
        unknown = http.request(verb, filled(path)).status_code
    expected = 200 if (verb, path) in OPEN else 401
    assert (status, unknown) == (expected, expected)


@pytest.mark.parametrize(("verb", "path"), [op for op in OPERATIONS if op not in OPEN])
def test_every_route_needs_its_scope(service: Service, verb: str, path: str) -> None:
    with service.raw("nobody-token") as http:
        assert http.request(verb, filled(path)).status_code == 403
    if verb != "get":
        with service.raw("reader-token") as http:
            assert http.request(verb, filled(path)).status_code == 403
    if (verb, path) in ADMIN:
        with service.raw("ada-token") as http:
            assert http.request(verb, filled(path)).status_code == 403


def test_a_verb_without_an_entry_is_refused(service: Service) -> None:
    with service.raw("admin-token") as http:
        answer = http.delete("/api/v1/leases")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")


def test_what_is_not_there_is_json(service: Service) -> None:
    with service.raw("ada-token") as http:
        answer = http.get("/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["message"].startswith("there is nothing at")


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        ([], set()),
        (["custom:nimbus:read!user=ada"], {Scope.READ}),
        (["custom:nimbus:read!user=bob"], set()),
        (["custom:nimbus:use"], {Scope.USE}),
        (["custom:nimbus:admin!user=ada"], set()),
        (["custom:nimbus:admin!group=staff"], set()),
        (["custom:nimbus:admin"], {Scope.READ, Scope.USE, Scope.ADMIN}),
    ],
)
def test_scopes_are_closed_by_default(scopes: list[str], expected: set[Scope]) -> None:
    assert caller_of_model({"name": "ada", "scopes": scopes}).scopes == expected


def test_metrics_tell_how_things_stand(service: Service) -> None:
    with service.raw("admin-token") as http:
        text = http.get("/metrics").text
    assert 'nimbus_gpus{model="A100"} 4.0' in text or "nimbus_grants_total 0.0" in text
