"""The lease of this session, for the browser: ``{base_url}nimbus/lease``.

The user's own server asks the Nimbus service with its token, so that no such token ever
is in a browser. Requests are authenticated by the server as all of its own are, and do not
count as activity: a page that polls must not keep an idle session alive. Errors of the
service are passed on as they are: status, code and message.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Protocol

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado.web import Application, authenticated

from nimbus_hub.client import ActivityTerms, Client, Lease, encode, session_lease_id
from nimbus_hub.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NimbusError,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from nimbus_labextension.agent import Agent
from nimbus_labextension.reclaim import Reclaim

__all__ = ["LeaseClient", "Session", "add_routes", "session_of_environment", "start_agent"]

log = logging.getLogger(__name__)

SETTING = "nimbus_session"
AGENT = "nimbus_agent"
THREADS = 4
RELEASE_REASON = "given back in JupyterLab"
_LONGEST_SECONDS = 10**9
_MOST_DOCUMENTS = 200

STATUSES: Mapping[type[NimbusError], HTTPStatus] = {
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    InvalidRequest: HTTPStatus.BAD_REQUEST,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


class LeaseClient(Protocol):
    """What the routes need of ``nimbus_hub.client.Client``; it blocks, in a thread."""

    def lease(self, lease_id: str, /) -> Lease:
        """Return the lease."""

    def renew(self, lease_id: str, /, duration: str | int | None = None) -> Lease:
        """Move the end of the lease to ``duration`` from now."""

    def saved(self, lease_id: str, /, opened: Sequence[str] = ()) -> Lease:
        """Tell that all documents are saved, and which were open."""

    def report_activity(self, lease_id: str, /, activity: Mapping[str, object]) -> ActivityTerms:
        """Send a report of what happens in the session."""

    def keep(self, lease_id: str, /) -> Lease:
        """Tell that the lease is wanted though nothing happens on it."""

    def release(self, lease_id: str, /, reason: str = "") -> Lease:
        """End the lease."""


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """The lease that this server runs under, and the way to ask about it."""

    lease_id: str
    client: LeaseClient
    reclaim: Reclaim | None = None
    pool: ThreadPoolExecutor = dataclasses.field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, thread_name_prefix="nimbus")
    )


def session_of_environment() -> Session | None:
    """Return the session of this server; None where it runs without a lease."""
    lease_id = session_lease_id()
    if lease_id is None:
        return None
    try:
        client = Client.from_environment()
    except NimbusError as error:
        log.warning("lease %s is not shown: %s", lease_id, error.message)
        return None
    return Session(lease_id, client, Reclaim(lease_id, client))


def add_routes(application: Application, session: Session | None) -> None:
    """Add the routes to a server; ``session`` is what they answer about."""
    application.settings[SETTING] = session
    base_url: str = application.settings["base_url"]
    routes: dict[str, type[_Handler]] = {
        "": LeaseHandler,
        "keep": KeepHandler,
        "renew": RenewHandler,
        "saved": SavedHandler,
        "release": ReleaseHandler,
    }
    handlers = [
        (url_path_join(base_url, "nimbus", "lease", verb), handler)
        for verb, handler in routes.items()
    ]
    handlers += [
        (url_path_join(base_url, "nimbus", "activity"), ActivityHandler),
        (url_path_join(base_url, "nimbus", "gangs", "([^/]+)", "(keep|release)"), GangHandler),
    ]
    application.add_handlers(".*$", handlers)


def start_agent(settings: dict[str, Any]) -> None:
    """Have the activity of the session, if there is one, told from now on; needs a running loop."""
    session: Session | None = settings[SETTING]
    if session is not None:
        agent = settings[AGENT] = Agent(session.lease_id, session.client, settings)
        agent.start()


def status_of(error: NimbusError) -> HTTPStatus:
    """Return the HTTP status for an error, as the service itself uses it."""
    for cls in type(error).__mro__:
        if cls in STATUSES:
            return STATUSES[cls]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _duration(body: object) -> str | int | None:
    if not isinstance(body, dict):
        raise InvalidRequest(f"the body must be a JSON object, got {body!r}")
    duration: object = body.get("duration")
    if duration is not None and not isinstance(duration, str | int):
        raise InvalidRequest(f"duration must be a text such as '90m' or seconds, got {duration!r}")
    return duration


def _opened(body: object) -> Sequence[str]:
    """Return the paths of the documents that are open in the page."""
    opened: object = body.get("opened", []) if isinstance(body, dict) else None
    if not isinstance(opened, list) or not all(isinstance(path, str) for path in opened):
        raise InvalidRequest(f"opened must be a list of paths, got {opened!r}")
    return opened


def _presence(body: object) -> tuple[float, Sequence[str]]:
    """Return how long ago a page had input, and the documents that are open in it."""
    opened = _opened(body)
    seconds: object = body.get("input_seconds") if isinstance(body, dict) else None
    if not isinstance(seconds, int | float) or not 0 <= seconds < _LONGEST_SECONDS:
        raise InvalidRequest(f"input_seconds must be a number of at least 0, got {seconds!r}")
    return seconds, opened[:_MOST_DOCUMENTS]


def _saved(session: Session, opened: Sequence[str]) -> Lease:
    if session.reclaim is not None:
        session.reclaim.announce()
    return session.client.saved(session.lease_id, opened)


class _Handler(APIHandler):
    """Base: runs a call of the client in a thread and answers with the lease."""

    _track_activity = False

    async def answer(self, call: Callable[[Session], Lease]) -> None:
        """Answer with what the call returns, or with its error."""
        try:
            session = self._session()
            loop = asyncio.get_running_loop()
            lease = await loop.run_in_executor(session.pool, functools.partial(call, session))
        except NimbusError as error:
            self.refuse(error)
        else:
            self.finish(json.dumps(encode(lease)))

    def refuse(self, error: NimbusError) -> None:
        """Answer with an error as the service words it."""
        self.set_status(status_of(error))
        self.finish(json.dumps({"code": error.code, "message": error.message}))

    def _session(self) -> Session:
        session: Session | None = self.settings[SETTING]
        if session is None:
            raise NotFound("this server runs without a Nimbus lease")
        return session


class LeaseHandler(_Handler):
    """The lease as it is."""

    @authenticated
    async def get(self) -> None:
        """Return the lease."""
        await self.answer(lambda session: session.client.lease(session.lease_id))


class RenewHandler(_Handler):
    """The end of the lease."""

    @authenticated
    async def post(self) -> None:
        """Move the end: by the policy's step, or to ``duration`` from now."""
        body: object = self.get_json_body() or {}
        await self.answer(lambda session: session.client.renew(session.lease_id, _duration(body)))


class SavedHandler(_Handler):
    """The page's word that its documents are saved."""

    @authenticated
    async def post(self) -> None:
        """Let the service go on with the reclaim, but for a script that is to run."""
        body: object = self.get_json_body() or {}
        await self.answer(lambda session: _saved(session, _opened(body)[:_MOST_DOCUMENTS]))


class KeepHandler(_Handler):
    """A lease on which nothing happens."""

    @authenticated
    async def post(self) -> None:
        """Keep it: its idleness begins anew."""
        await self.answer(lambda session: session.client.keep(session.lease_id))


class GangHandler(_Handler):
    """The user's answer about a debug gang on which nothing happens."""

    @authenticated
    async def post(self, lease_id: str, verb: str) -> None:
        """Keep it, or give it back."""
        if verb == "keep":
            await self.answer(lambda session: session.client.keep(lease_id))
        else:
            await self.answer(lambda session: session.client.release(lease_id, RELEASE_REASON))


class ActivityHandler(_Handler):
    """What a page says of its user."""

    @authenticated
    async def post(self) -> None:
        """Take how long ago there was input and what is open; answer with what does nothing."""
        agent: Agent | None = self.settings.get(AGENT)
        try:
            seconds, documents = _presence(self.get_json_body() or {})
        except InvalidRequest as error:
            self.refuse(error)
            return
        if agent is not None:
            agent.see(seconds, documents)
        gangs = agent.idle_gangs if agent is not None else ()
        self.finish(json.dumps({"idle_gangs": encode(tuple(gangs))}))


class ReleaseHandler(_Handler):
    """Giving the lease back before its end."""

    @authenticated
    async def post(self) -> None:
        """End the lease; the service then stops this server."""
        await self.answer(
            lambda session: session.client.release(session.lease_id, reason=RELEASE_REASON)
        )
