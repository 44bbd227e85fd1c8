"""Who calls, and what they may do.

A caller is a user, a user's server or a service of JupyterHub (by its token), or a job (by
the token its replicas were given). Scopes are closed by default: what no scope grants is
refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from jupyterhub.services.auth import HubOAuth
from tornado.web import HTTPError

from nimbus_hub.control.tokens import job_of_token
from nimbus_hub.errors import NotFound, Unauthenticated, Unavailable
from nimbus_hub.model.job import Job

__all__ = ["Caller", "HubIdentity", "Identity", "JobIdentity", "Scope"]


class Scope(StrEnum):
    """What a caller may do; each includes nothing of the others."""

    READ = "read"
    USE = "use"
    ADMIN = "admin"

    @property
    def hub_scope(self) -> str:
        """Return the scope's name in JupyterHub."""
        return f"custom:nimbus:{self}"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. ``job_id`` is set when it is a job, which may only see to itself."""

    name: str
    scopes: frozenset[Scope]
    job_id: str | None = None

    @property
    def is_admin(self) -> bool:
        """Tell whether the caller may act on everybody's objects."""
        return Scope.ADMIN in self.scopes


class Identity(Protocol):
    """Finds out who calls."""

    async def caller(self, token: str) -> Caller | None:
        """Return who a token belongs to, or None if it is not known here."""
        ...


class HubIdentity:
    """Asks JupyterHub; its answers are kept for a minute."""

    def __init__(self, hub: HubOAuth) -> None:
        self._hub = hub

    async def caller(self, token: str) -> Caller | None:
        """Return the user or service of a JupyterHub token."""
        try:
            model = await self._hub.user_for_token(token, sync=False)
        except HTTPError as error:
            raise Unavailable("JupyterHub does not answer; try again in a moment") from error
        return None if model is None else caller_of_model(model)


class JobIdentity:
    """Knows the tokens of live jobs."""

    def __init__(self, secret: bytes, job: Callable[[str], Awaitable[Job]]) -> None:
        self._secret = secret
        self._job = job

    async def caller(self, token: str) -> Caller | None:
        """Return the owner of a live job as that job."""
        job_id = job_of_token(self._secret, token)
        if job_id is None:
            return None
        try:
            job = await self._job(job_id)
        except NotFound:
            return None
        if job.state.is_end:
            raise Unauthenticated(f"the token of job {job_id} ended with it")
        return Caller(job.owner, frozenset({Scope.READ, Scope.USE}), job_id)


def caller_of_model(model: dict[str, object]) -> Caller:
    """Return the caller of JupyterHub's user model.

    A scope may be bound to the user itself (``!user=alice``); a wider filter, as groups
    have, gives no right over everybody and so none here. Admin must be unfiltered.
    """
    name = str(model["name"])
    held = model.get("scopes")
    granted = {str(scope) for scope in held} if isinstance(held, list) else set()
    scopes = {
        scope
        for scope in (Scope.READ, Scope.USE)
        if granted & {scope.hub_scope, f"{scope.hub_scope}!user={name}"}
    }
    if Scope.ADMIN.hub_scope in granted:
        scopes = set(Scope)
    return Caller(name, frozenset(scopes))
