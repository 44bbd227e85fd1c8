"""The routes in the real server application, called without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from jupyter_server.auth.identity import IdentityProvider, User
from jupyter_server.serverapp import ServerApp
from nimbus_labextension import (
    _jupyter_labextension_paths,
    _jupyter_server_extension_points,
)
from nimbus_labextension.routes import Session, add_routes, status_of
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)

from nimbus_hub.client import ActivityTerms, Lease, encode
from nimbus_hub.errors import (
    Ended,
    Forbidden,
    Impossible,
    NimbusError,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

TOKEN = "a-token-of-the-server"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LEASE = Lease(
    id="l-1",
    kind="session",
    owner="ada",
    name="",
    parent=None,
    size="",
    cpu_seconds=0.0,
    gpu_seconds=0.0,
    opened=(),
    state="active",
    reason="",
    reason_code="",
    note="",
    queue="default",
    priority=0,
    is_preemptible=False,
    datacenter=None,
    inputs=(),
    outputs=(),
    expected_seconds=None,
    step_bytes=None,
    placement="",
    environment="default",
    groups=(),
    slots=(),
    length_seconds=7200.0,
    position=None,
    starts_by=None,
    created_at=NOON,
    granted_at=NOON,
    active_at=NOON,
    expires_at=NOON,
    latest_end=None,
    ended_at=None,
    renewals=0,
    is_ended=False,
    can_renew=True,
    renewal_seconds=7200.0,
    warnings_seconds=(900.0, 300.0, 60.0),
    renewable_until=None,
    renewals_left=99,
    idle_seconds=None,
    idle_ends=True,
    idle_since=None,
    idle_warns_at=None,
    idle_ends_at=None,
    idle_reason="",
    now=NOON,
    version=3,
)


@dataclass
class FakeClient:
    """Records calls and answers with LEASE, or raises ``error``."""

    error: NimbusError | None = None
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def lease(self, lease_id: str, /) -> Lease:
        return self._answer("lease", lease_id)

    def renew(self, lease_id: str, /, duration: str | int | None = None) -> Lease:
        return self._answer("renew", lease_id, duration)

    def saved(self, lease_id: str, /, opened: Sequence[str] = ()) -> Lease:
        return self._answer("saved", lease_id, *opened)

    def keep(self, lease_id: str, /) -> Lease:
        return self._answer("keep", lease_id)

    def release(self, lease_id: str, /, reason: str = "") -> Lease:
        return self._answer("release", lease_id, reason)

    def report_activity(self, lease_id: str, /, activity: Mapping[str, object]) -> ActivityTerms:
        raise NotImplementedError  # The agent has tests of its own.

    def _answer(self, *call: object) -> Lease:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        return LEASE


class Recorder(HTTPConnection):
    """The server's end of a connection; keeps the answer."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.is_finished = asyncio.Event()

    def set_close_callback(self, callback: object) -> None:
        """Never closes early."""

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> asyncio.Future[None]:
        assert isinstance(start_line, ResponseStartLine)
        self.status = start_line.code
        return self.write(chunk or b"")

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        self.body += chunk
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def finish(self) -> None:
        self.is_finished.set()


@dataclass
class Site:
    """A Jupyter server with the routes; `client` is what they ask."""

    server: ServerApp
    client: FakeClient

    async def call(
        self, method: str, verb: str, body: bytes = b"", token: str = TOKEN, room: str = "lease"
    ) -> tuple[int, dict[str, object]]:
        """Send a request and return status and JSON."""
        recorder = Recorder()
        request = HTTPServerRequest(
            start_line=RequestStartLine(method, f"/user/ada/nimbus/{room}{verb}", "HTTP/1.1"),
            headers=HTTPHeaders({"Authorization": f"token {token}", "Host": "localhost"}),
            body=body,
            connection=recorder,
        )
        request.remote_ip = "127.0.0.1"
        self.server.web_app(request)
        async with asyncio.timeout(10):
            await recorder.is_finished.wait()
        return recorder.status, json.loads(recorder.body)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerApp]:
    root: Path = tmp_path_factory.mktemp("server")
    app = ServerApp(
        allow_remote_access=True,
        allow_root=True,
        base_url="/user/ada/",
        config_dir=str(root / "config"),
        data_dir=str(root / "data"),
        ip="127.0.0.1",
        open_browser=False,
        root_dir=str(root),
        runtime_dir=str(root / "runtime"),
    )
    arguments = [f"--IdentityProvider.token={TOKEN}"]
    app.initialize(arguments, find_extensions=False, new_httpserver=False)
    yield app
    ServerApp.clear_instance()


@pytest.fixture
def site(server: ServerApp) -> Site:
    client = FakeClient()
    add_routes(server.web_app, Session("l-1", client))
    return Site(server, client)


async def test_the_lease_is_the_services_json(site: Site) -> None:
    status, lease = await site.call("GET", "")
    assert status == 200
    assert lease["expires_at"] == "2026-11-23T12:00:00+00:00"
    assert lease["warnings_seconds"] == [900.0, 300.0, 60.0]
    assert lease["latest_end"] is None
    assert set(lease) == set(Lease.__slots__)
    assert site.client.calls == [("lease", "l-1")]


async def test_each_verb_calls_the_service_for_the_servers_own_lease(site: Site) -> None:
    for verb, body in (
        ("/renew", b""),
        ("/renew", b'{"duration": "90m"}'),
        ("/keep", b"{}"),
        ("/saved", b'{"opened": ["a.ipynb"]}'),
        ("/release", b"{}"),
    ):
        status, lease = await site.call("POST", verb, body)
        assert (status, lease["id"]) == (200, "l-1")
    assert site.client.calls == [
        ("renew", "l-1", None),
        ("renew", "l-1", "90m"),
        ("keep", "l-1"),
        ("saved", "l-1", "a.ipynb"),
        ("release", "l-1", "given back in JupyterLab"),
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Impossible("it would last 13 h, at most are 12 h"), 400),
        (TooLarge("too large"), 413),
        (Unauthenticated("the token is unknown"), 401),
        (Forbidden("the token may only read"), 403),
        (NotFound("there is no lease l-1"), 404),
        (Ended("the lease l-1 ended at 14:32"), 409),
        (Unavailable("the service does not answer"), 503),
        (NimbusError("something else"), 500),
    ],
)
async def test_an_error_is_passed_on_with_status_code_and_sentence(
    site: Site, error: NimbusError, status: int
) -> None:
    site.client.error = error
    answer = {"code": error.code, "message": error.message}
    assert await site.call("POST", "/renew") == (status, answer)
    assert status_of(error) == status


@pytest.mark.parametrize("body", [b"[1]", b'{"duration": []}', b'"90m"'])
async def test_a_body_of_the_wrong_kind_is_refused(site: Site, body: bytes) -> None:
    status, answer = await site.call("POST", "/renew", body)
    assert (status, answer["code"]) == (400, "invalid_request")
    assert site.client.calls == []


async def test_without_a_lease_the_answer_is_not_found(server: ServerApp) -> None:
    add_routes(server.web_app, None)
    status, answer = await Site(server, FakeClient()).call("GET", "")
    assert status == 404
    assert answer == {
        "code": "not_found",
        "message": "this server runs without a Nimbus lease",
    }


async def test_a_gang_is_kept_or_given_back_by_its_own_lease(site: Site) -> None:
    for verb in ("/l-7/keep", "/l-7/release"):
        status, _ = await site.call("POST", verb, b"{}", room="gangs")
        assert status == 200
    assert site.client.calls == [
        ("keep", "l-7"),
        ("release", "l-7", "given back in JupyterLab"),
    ]


class HeardAgent:
    """Keeps what pages say."""

    idle_gangs = (LEASE,)

    def __init__(self) -> None:
        self.heard: list[tuple[float, list[str]]] = []

    def see(self, input_seconds: float, documents: list[str]) -> None:
        self.heard.append((input_seconds, documents))


async def test_a_page_tells_of_its_user_and_hears_of_idle_gangs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = HeardAgent()
    monkeypatch.setitem(site.server.web_app.settings, "nimbus_agent", agent)
    body = b'{"input_seconds": 2.5, "opened": ["a.ipynb", "b.py"]}'
    status, answer = await site.call("POST", "", body, room="activity")
    assert (status, answer) == (200, {"idle_gangs": [encode(LEASE)]})
    assert agent.heard == [(2.5, ["a.ipynb", "b.py"])]


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"input_seconds": -1}', b'{"input_seconds": 1, "opened": [2]}']
)
async def test_a_page_that_says_nonsense_is_refused(site: Site, body: bytes) -> None:
    status, answer = await site.call("POST", "", body, room="activity")
    assert (status, answer["code"]) == (400, "invalid_request")


async def test_without_a_session_nothing_is_idle(server: ServerApp) -> None:
    add_routes(server.web_app, None)
    site = Site(server, FakeClient())
    answer = await site.call("POST", "", b'{"input_seconds": 0}', room="activity")
    assert answer == (200, {"idle_gangs": []})


@pytest.mark.parametrize("verb", ["", "/renew", "/keep", "/saved", "/release"])
async def test_a_stranger_is_refused(site: Site, verb: str) -> None:
    method = "POST" if verb else "GET"
    status, _ = await site.call(method, verb, token="a-guess")
    assert status == 403
    assert site.client.calls == []


@pytest.mark.parametrize("verb", ["/renew", "/keep", "/saved", "/release"])
async def test_a_foreign_page_cannot_act_with_the_browsers_cookie(
    site: Site, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(IdentityProvider, "get_user", lambda provider, handler: User("ada"))
    status, answer = await site.call("POST", verb, b"{}", token="")
    assert status == 403
    assert "_xsrf" in str(answer["message"])
    assert site.client.calls == []


async def test_asking_for_the_lease_is_no_activity(site: Site) -> None:
    settings = site.server.web_app.settings
    before = settings.get("api_last_activity")
    await site.call("GET", "")
    await site.call("POST", "/saved")
    await site.call("POST", "", b'{"input_seconds": 0}', room="activity")
    assert settings.get("api_last_activity") == before


def test_the_server_and_the_lab_find_the_extension() -> None:
    assert _jupyter_server_extension_points() == [{"module": "nimbus_labextension"}]
    assert _jupyter_labextension_paths() == [{"src": "labextension", "dest": "nimbus-labextension"}]
