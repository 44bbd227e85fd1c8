"""The API's description (OpenAPI 3.1), made from the handlers' tables.

``python -m nimbus_hub.api.describe`` prints it; docs/openapi.json is that, and a test
holds it against the server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from nimbus_hub import __version__
from nimbus_hub.api import schemas
from nimbus_hub.api.handler import ApiHandler, Operation

__all__ = ["OpenApiHandler", "describe"]

_REFERENCE = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"{(\w+)}")


class OpenApiHandler(ApiHandler):
    """The description itself, open to all: it is public with the source."""

    operations = {"get": Operation("Describe the API", None)}

    async def get(self) -> None:
        """Answer with the description."""
        self.set_header("Content-Type", "application/json")
        self.finish(self.application.settings["openapi"])


def describe(routes: Mapping[str, type[ApiHandler]]) -> dict[str, Any]:
    """Return the OpenAPI document of a table of routes."""
    operations = [op for handler in routes.values() for op in handler.operations.values()]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Nimbus Hub",
            "version": __version__,
            "description": "Leases, jobs and hosts of Nimbus Hub. Errors are JSON with a "
            "stable code and a sentence for people.",
        },
        "servers": [{"url": "/services/nimbus"}],
        "security": [{"token": []}],
        "paths": {
            path: {
                verb: _operation(path, verb, operation)
                for verb, operation in handler.operations.items()
            }
            for path, handler in routes.items()
        },
        "components": {
            "schemas": _schemas(operations),
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`token T`, with a token of JupyterHub or of a job",
                }
            },
        },
    }


def _schemas(operations: list[Operation]) -> dict[str, Any]:
    """Return every class the operations name, requests as sent and responses as received."""
    wanted: dict[type[BaseModel], str] = {schemas.Error: "serialization"}
    for operation in operations:
        for response in (operation.response, *operation.also.values()):
            if response is not None:
                wanted[response] = "serialization"
        if operation.body is not None:
            wanted[operation.body] = "validation"
    wanted[schemas.LeaseWarning] = "serialization"
    pairs: Any = list(wanted.items())
    _, document = models_json_schema(pairs, ref_template=_REFERENCE)
    found: dict[str, Any] = document["$defs"]
    return dict(sorted(found.items()))


def _operation(path: str, verb: str, operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _operation_id(path, verb),
        "parameters": [*_path_parameters(path), *_query_parameters(operation)],
        "responses": _responses(operation),
    }
    if operation.scope is None:
        described["security"] = []
    else:
        described["description"] = f"Needs the scope `{operation.scope.hub_scope}`."
    if operation.body is not None:
        described["requestBody"] = {
            "required": any(f.is_required() for f in operation.body.model_fields.values()),
            "content": {operation.takes: {"schema": _reference(operation.body)}},
        }
    elif operation.takes != "application/json":
        described["requestBody"] = {"required": True, "content": {operation.takes: {}}}
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    errors: list[int] = [405]
    if operation.scope is not None:
        errors += [400, 401, 403, 404, 409, 410, 413, 503]
    answers = {operation.status: operation.response, **operation.also}
    return {
        **{
            str(status): {
                "description": "Done",
                **({"content": _content(operation, model)} if status != 204 else {}),
            }
            for status, model in sorted(answers.items())
        },
        **{
            str(status): {
                "description": "Refused",
                "content": {"application/json": {"schema": _reference(schemas.Error)}},
            }
            for status in sorted(errors)
        },
    }


def _content(operation: Operation, model: type[BaseModel] | None) -> dict[str, Any]:
    if operation.media != "application/json" or model is None:
        return {operation.media: {}}
    others: dict[str, Any] = {media: {} for media in operation.also_media}
    return {operation.media: {"schema": _reference(model)}, **others}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    schema = operation.query.model_json_schema()
    definitions = schema.get("$defs", {})
    return [
        {"name": name, "in": "query", "required": False, "schema": _inlined(value, definitions)}
        for name, value in schema.get("properties", {}).items()
    ]


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return a schema without references to its own definitions."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}


def _operation_id(path: str, verb: str) -> str:
    words = [word for word in path.split("/") if word not in ("", "api", "v1")]
    named = [f"by_{word[1:-1]}" if word.startswith("{") else word for word in words]
    return "_".join([verb, *named]).replace(".", "_")


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
