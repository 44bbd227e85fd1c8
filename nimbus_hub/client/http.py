"""HTTP/1.1 by the standard library: connections that are kept, each with one request at a time.

No library of its own: the start of a command is mostly imports, and this is a sixth of them.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterable, Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

__all__ = ["Broken", "Connections", "Http", "Response", "Unreachable"]

_CONNECT_SECONDS = 5.0
_CHUNK_BYTES = 2**16
# Whatever people put into an id is a path; what is encoded already stays as it is.
_PATH_SAFE = "/%:=&?@+,;~"

Body = bytes | Iterable[bytes] | None


class Unreachable(Exception):
    """No connection was made: nothing was sent."""


class Broken(Exception):
    """The connection was lost or silent, or what came is no HTTP."""


class Response(Protocol):
    """An answer whose body is still to be read."""

    @property
    def status(self) -> int:
        """Return the status code."""
        ...

    @property
    def reason(self) -> str:
        """Return the server's word for the status."""
        ...

    @property
    def content_type(self) -> str:
        """Return the media type of the body, or nothing."""
        ...

    def read(self) -> bytes:
        """Return the whole body; raise Broken."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes; raise Broken."""
        ...


class Http(Protocol):
    """A way to send requests to one server, from any thread."""

    def send(
        self, method: str, path: str, body: Body, headers: Mapping[str, str], seconds: float
    ) -> contextlib.AbstractContextManager[Response]:
        """Send a request and give the answer; the server may be silent for ``seconds``.

        Raises Unreachable where nothing was sent, else Broken.
        """
        ...

    def close(self) -> None:
        """End all connections, also those that somebody waits for."""
        ...


class Connections:
    """Connections to the server of a URL; ValueError for what is no address."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"it must start with http:// or https://, got {url!r}")
        self._is_https = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/")
        self._idle: list[HTTPConnection] = []
        self._busy: set[HTTPConnection] = set()
        self._is_closed = False

    @contextlib.contextmanager
    def send(
        self, method: str, path: str, body: Body, headers: Mapping[str, str], seconds: float
    ) -> Iterator[Response]:
        """Send a request and give the answer."""
        connection = self._take(seconds)
        self._busy.add(connection)
        answer = None
        try:
            if self._is_closed:
                raise Broken("the client is closed")
            with _broken():
                target = quote(self._path + path, safe=_PATH_SAFE)
                connection.request(method, target, body, dict(headers))
                answer = connection.getresponse()
            yield _Answer(answer)
        finally:
            self._busy.discard(connection)
            is_whole = answer is not None and answer.isclosed() and connection.sock is not None
            if is_whole and not self._is_closed:
                self._idle.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        """End all connections; there are no new ones."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()
        for connection in tuple(self._busy):
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)  # wakes up who reads

    def _take(self, seconds: float) -> HTTPConnection:
        """Return a connection that is kept, or a new one."""
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was quicker
                connection = self._idle.pop()
                if _is_open(connection):
                    connection.sock.settimeout(seconds)
                    return connection
                connection.close()
        connection = self._new()
        try:
            connection.connect()
        except (OSError, HTTPException) as error:
            connection.close()
            raise Unreachable(str(error) or type(error).__name__) from error
        connection.sock.settimeout(seconds)
        return connection

    def _new(self) -> HTTPConnection:
        if not self._is_https:
            return _Plain(self._host, self._port, timeout=_CONNECT_SECONDS)
        # Proxies are for hubs out in the world; one next door has no use for these imports.
        from base64 import b64encode
        from urllib.request import getproxies, proxy_bypass

        named = "" if proxy_bypass(self._host) else getproxies().get("https", "")
        proxy = urlsplit(named if "://" in named else f"http://{named}")
        if not proxy.hostname:
            return HTTPSConnection(self._host, self._port, timeout=_CONNECT_SECONDS)
        connection = HTTPSConnection(proxy.hostname, proxy.port or 80, timeout=_CONNECT_SECONDS)
        headers = {}
        if proxy.username is not None:
            login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
            headers["Proxy-Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
        connection.set_tunnel(self._host, self._port, headers)
        return connection


class _Plain(HTTPConnection):
    def connect(self) -> None:
        """Connect as the base does, but look the name up as bytes.

        As text Python would first load the tables of IDNA, for every name.
        """
        host = self.host.encode() if self.host.isascii() else self.host
        address = (host, self.port)
        self.sock = socket.create_connection(address, self.timeout)  # type: ignore[arg-type]
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Answer:
    def __init__(self, answer: HTTPResponse) -> None:
        self._answer = answer

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def reason(self) -> str:
        return self._answer.reason

    @property
    def content_type(self) -> str:
        return self._answer.getheader("Content-Type", "")

    def read(self) -> bytes:
        with _broken():
            return self._answer.read()

    def chunks(self) -> Iterator[bytes]:
        while True:
            with _broken():
                chunk = self._answer.read1(_CHUNK_BYTES)
            if not chunk:
                return
            yield chunk


@contextlib.contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except (OSError, HTTPException) as error:
        raise Broken(str(error) or type(error).__name__) from error


def _is_open(connection: HTTPConnection) -> bool:
    """Tell whether the server has kept its side open: else its end can be read."""
    poll = select.poll()
    try:
        poll.register(connection.sock, select.POLLIN)
        return not poll.poll(0)
    except (OSError, ValueError, TypeError):
        return False
