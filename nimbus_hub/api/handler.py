"""The base of all API handlers: who, whether, what; in that order, closed by default.

Each handler class has a table of operations by HTTP verb. A verb without an entry is
refused; an operation without a scope is open only if it says so.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ValidationError
from tornado.web import HTTPError, RequestHandler

from nimbus_hub.api.identity import Caller, Scope
from nimbus_hub.api.schemas import Error, Response
from nimbus_hub.api.services import Services
from nimbus_hub.errors import (
    Conflict,
    Deleted,
    Forbidden,
    InvalidRequest,
    NimbusError,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from nimbus_hub.model.quantities import format_memory

__all__ = ["STATUS", "ApiHandler", "Operation", "Query", "status_of"]

log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=BaseModel)

STATUS: dict[type[NimbusError], int] = {
    TooLarge: 413,
    InvalidRequest: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    Deleted: 410,
    NotFound: 404,
    Conflict: 409,
    Unavailable: 503,
    NimbusError: 500,
}
"""The HTTP status of each class of error; a subclass without its own has its base's."""


class Query(BaseModel, extra="forbid"):
    """Base of all query strings."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One verb of one path: what it needs, what it takes and what it answers."""

    summary: str
    scope: Scope | None
    response: type[Response] | None = None
    status: int = 200
    body: type[BaseModel] | None = None
    query: type[Query] = Query
    media: str = "application/json"
    also_media: tuple[str, ...] = ()
    takes: str = "application/json"
    also: dict[int, type[Response]] = field(default_factory=dict)
    for_jobs: bool = False
    most_bytes: int = 2**20


class ApiHandler(RequestHandler):
    """Authenticates, authorises, parses; turns errors into JSON."""

    operations: ClassVar[dict[str, Operation]] = {}
    caller: Caller

    def initialize(self, services: Services) -> None:
        """Take what handlers work with."""
        self.services = services

    def check_xsrf_cookie(self) -> None:
        """Accept: tokens come in a header that no foreign page can send."""

    def set_default_headers(self) -> None:
        """Keep answers out of caches and other sites' frames."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")

    async def prepare(self) -> None:
        """Refuse what is not in the table, who is not known, and what is not allowed."""
        method = self.request.method or ""
        self.operation = self.operations.get(method.lower()) or self._no_operation(method)
        if self.operation.scope is None:
            return
        self.caller = await self.authorized(self.operation.scope)

    async def authorized(self, scope: Scope) -> Caller:
        """Return who calls; raise Unauthenticated, or Forbidden for who may not do this."""
        caller = await self._authenticate()
        if scope not in caller.scopes:
            raise Forbidden(f"{caller.name} may not do this: it needs the scope {scope.hub_scope}")
        if caller.job_id and not self.operation.for_jobs:
            raise Forbidden(f"the token of job {caller.job_id} is for that job alone")
        return caller

    def parse_query(self, model: type[Model]) -> Model:
        """Return the query string as a model; raise InvalidRequest."""
        values = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        return parse(model, values)

    def parse_body(self, model: type[Model]) -> Model:
        """Return the body as a model, an empty body as an empty object.

        Raises InvalidRequest, and TooLarge for more than the operation takes: what is kept of
        it is read again with every pass of the reconciler.
        """
        size, most = len(self.request.body), self.operation.most_bytes
        if size > most:
            raise TooLarge(f"the body must be at most {format_memory(most)}, got {size} bytes")
        try:
            values = json.loads(self.request.body or b"{}")
        except (ValueError, RecursionError):
            raise InvalidRequest("the body must be JSON") from None
        return parse(model, values)

    def reply(self, model: Response, status: int | None = None) -> None:
        """Answer with a model."""
        self.set_status(status or self.operation.status)
        self.set_header("Content-Type", "application/json")
        self.finish(model.model_dump_json())

    @property
    def owner(self) -> str | None:
        """Return whose objects the caller may reach; None for everybody's."""
        return None if self.caller.is_admin else self.caller.name

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the error's sentence; never with a traceback."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, NimbusError):
            answer = Error(code=error.code, message=error.message)
            status_code = status_of(error)
        elif isinstance(error, HTTPError) and status_code < 500:
            answer = Error(code="invalid_request", message=error.log_message or self._reason)
        else:
            answer = Error(code="error", message="the service failed; its log says why")
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(sorted(verb.upper() for verb in self.operations)))
        self.reply(answer, status_code)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what is not for the caller alone."""
        if isinstance(value, NimbusError):
            log.info("%s %s: %s", self.request.method, self.request.path, value)
        else:
            super().log_exception(typ, value, tb)

    async def _authenticate(self) -> Caller:
        kind, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if kind.lower() not in ("token", "bearer") or not token.strip():
            raise Unauthenticated("send the header 'Authorization: token ...'")
        for identity in self.services.identities:
            caller = await identity.caller(token.strip())
            if caller is not None:
                return caller
        raise Unauthenticated("this token is not known; get a new one from the hub")

    def _no_operation(self, method: str) -> Operation:
        allowed = ", ".join(sorted(verb.upper() for verb in self.operations))
        raise HTTPError(405, f"{method} is not possible here; {allowed} is")


def parse(model: type[Model], values: object) -> Model:
    """Return values as a model; raise InvalidRequest with a sentence about the first fault."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidRequest(_sentence(model, error)) from None


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    # Parts of a union ("str", "constrained-int") are not the caller's words.
    where = ".".join(str(part) for part in first["loc"] if part not in ("str", "int", "float"))
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(model.model_fields)) or "none"
        return f"{where} is not known; known are {known}"
    if first["type"] == "missing":
        return f"{where} is missing"
    return f"{where or 'the body'}: {first['msg']}, got {str(first['input'])[:100]!r}"


def status_of(error: NimbusError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)
