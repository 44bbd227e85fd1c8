"""The client's HTTP against a server that keeps, closes, breaks and delays connections.

It starts a real server: what is tested is how sockets are used.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nimbus_hub.client import Client
from nimbus_hub.client.http import Broken, Connections, Unreachable
from nimbus_hub.errors import Unavailable

SECONDS = 5.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        if self.path == "/hub/silent":
            self.server.is_over.wait(SECONDS)
        elif self.path == "/hub/cut":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
        elif self.path == "/hub/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in (b"4\r\nabcd\r\n", b"1\r\ne\r\n", b"0\r\n\r\n"):
                self.wfile.write(chunk)
        else:
            self._reply(self.path.encode())

    def do_POST(self) -> None:
        self._reply(self.rfile.read(int(self.headers["Content-Length"])))

    def do_PUT(self) -> None:
        self.do_POST()

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.path.endswith("last")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.connections = 0
        self.is_over = threading.Event()
        self.has_closed = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/hub"

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        super().shutdown_request(request)
        self.has_closed.set()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.is_over.set()
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def http(server: Server) -> Iterator[Connections]:
    made = Connections(server.url)
    yield made
    made.close()


def get(http: Connections, path: str, seconds: float = SECONDS) -> bytes:
    with http.send("GET", path, None, {}, seconds) as answer:
        return answer.read()


def test_a_connection_is_used_again(server: Server, http: Connections) -> None:
    assert get(http, "/a") == b"/hub/a"
    with http.send("POST", "/b", b"body", {}, SECONDS) as answer:
        assert (answer.status, answer.reason, answer.read()) == (200, "OK", b"body")
    assert server.connections == 1


def test_two_requests_at_once_have_a_connection_each(server: Server, http: Connections) -> None:
    with http.send("GET", "/a", None, {}, SECONDS) as first:
        assert get(http, "/b") == b"/hub/b"
        assert first.read() == b"/hub/a"
    assert get(http, "/c") == b"/hub/c"
    assert server.connections == 2


def test_a_connection_that_the_server_closed_is_not_used_again(
    server: Server, http: Connections
) -> None:
    assert get(http, "/last") == b"/hub/last"
    assert server.has_closed.wait(SECONDS)
    assert get(http, "/a") == b"/hub/a"
    assert server.connections == 2


def test_a_body_may_be_made_as_it_is_sent(http: Connections) -> None:
    chunks = (bytes([letter]) * 3 for letter in b"xyz")
    with http.send("PUT", "/f", chunks, {"Content-Length": "9"}, SECONDS) as answer:
        assert answer.read() == b"xxxyyyzzz"


def test_a_stream_is_read_as_it_comes_and_leaves_a_good_connection(
    server: Server, http: Connections
) -> None:
    with http.send("GET", "/stream", None, {}, SECONDS) as answer:
        assert b"".join(answer.chunks()) == b"abcde"
    assert get(http, "/a") == b"/hub/a"
    assert server.connections == 1


def test_an_answer_that_is_not_read_costs_its_connection(server: Server, http: Connections) -> None:
    with http.send("GET", "/a", None, {}, SECONDS):
        pass
    assert get(http, "/b") == b"/hub/b"
    assert server.connections == 2


def test_an_id_that_is_no_path_is_sent_as_one(http: Connections) -> None:
    assert get(http, "/jobs/a b\u00fc%20?x=1") == b"/hub/jobs/a%20b%C3%BC%20?x=1"


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable, match="refused"):
            get(Connections(url), "/a")


def test_a_server_that_stops_in_the_middle_is_broken(http: Connections) -> None:
    with pytest.raises(Broken):
        get(http, "/cut")
    assert get(http, "/a") == b"/hub/a"


def test_a_server_that_is_silent_is_broken(http: Connections) -> None:
    with pytest.raises(Broken, match="timed out"):
        get(http, "/silent", seconds=0.1)


def test_closing_wakes_who_waits(server: Server) -> None:
    client = Client(server.url, "t", wait=lambda _: True)
    failed: list[Unavailable] = []

    def wait() -> None:
        try:
            client.transport.request("GET", "/silent")
        except Unavailable as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not server.connections:
        pass
    client.close()
    thread.join(SECONDS)
    assert len(failed) == 1
