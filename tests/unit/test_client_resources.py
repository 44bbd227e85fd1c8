"""What the client knows of an answer is what the API says of it: all fields, no other."""

import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from nimbus_hub.client import choices, hosts, resources

DESCRIPTION = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())
SCHEMAS = DESCRIPTION["components"]["schemas"]
KNOWN = {
    name: value
    for module in (resources, hosts, choices)
    for name, value in vars(module).items()
    if is_dataclass(value) and value.__module__ == module.__name__
}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_resource_has_the_fields_of_its_schema(name: str) -> None:
    known = {field.name for field in fields(KNOWN[name])}
    assert known == set(SCHEMAS[name]["properties"])


def test_there_are_resources() -> None:
    assert {"Lease", "Job", "Replica", "Host", "Options", "LogText"} <= set(KNOWN)
