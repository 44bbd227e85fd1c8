"""HTTP to the service: one request function, one stream function, errors by their code.

What may be repeated is repeated for a while when the service does not answer, so that its
restart is not noticed: reads always, the rest only if no connection was made. Whatever is
not said by the service itself (a proxy's page, a refused connection) is Unavailable.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from nimbus_hub import __version__
from nimbus_hub.client.http import Broken, Connections, Http, Response, Unreachable
from nimbus_hub.client.sse import Message, messages
from nimbus_hub.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NimbusError,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    error_classes,
)

__all__ = ["Params", "Patience", "Transport", "Wait"]

Params = Mapping[str, str | int | float | None]

Wait = Callable[[float], bool]
"""Waits that many seconds; True says that waiting is over for good."""

_ANSWER_SECONDS = 30.0
# The service sends a ping every 4 s; a proxy keeps a connection whose service died.
_SILENCE_SECONDS = 12.0
_BY_STATUS: dict[int, type[NimbusError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    503: Unavailable,
}


class Patience:
    """Waits between attempts, longer each time, until ``seconds`` are used up."""

    def __init__(self, seconds: float, wait: Wait) -> None:
        self._left = seconds
        self._wait = wait
        self._step = 0.1

    def wait(self, error: Unavailable) -> None:
        """Wait before the next attempt; raise ``error`` when patience is over."""
        if self._left <= 0 or self._wait(min(self._step, self._left)):
            raise error
        self._left -= self._step
        self._step = min(2 * self._step, 1.0)


class Transport:
    """Sends requests to one service with one token."""

    def __init__(
        self,
        url: str,
        token: str,
        http: Http | None = None,
        wait: Wait | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._headers = {
            "Authorization": f"token {token}",
            "User-Agent": f"nimbus-hub/{__version__}",
        }
        try:
            self._http: Http = http or Connections(self.url)
        except ValueError as error:
            raise InvalidRequest(f"{url!r} is no address of a service: {error}") from error

    def close(self) -> None:
        """Close the connections and end every wait."""
        self._closed.set()
        self._http.close()

    def patience(self, seconds: float) -> Patience:
        """Return a way to wait for the service that ``close`` cuts short."""
        return Patience(seconds, self._wait)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: object = None,
        patience_seconds: float = 15.0,
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> Any:
        """Send a request and return the JSON of the answer."""
        patience = self.patience(patience_seconds)
        target = path + _query(params)
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        while True:
            try:
                with (
                    self._answers(),
                    self._http.send(method, target, content, headers, answer_seconds) as answer,
                ):
                    return self._content(answer)
            except Unavailable as error:
                if method != "GET" and not _is_unsent(error):
                    raise
                patience.wait(error)

    def upload(self, path: str, content: Iterable[bytes], size: int, content_type: str) -> None:
        """Send a body of a known size as it is made."""
        headers = self._headers | {"Content-Length": str(size), "Content-Type": content_type}
        with (
            self._answers(),
            self._http.send("PUT", path, content, headers, 10 * _ANSWER_SECONDS) as answer,
        ):
            self._content(answer)

    def stream(
        self, path: str, params: Params | None = None, last_id: str = ""
    ) -> Iterator[Message]:
        """Yield server-sent events until the service closes the stream.

        A lost connection is Unavailable; the caller knows how to go on from where it was.
        """
        headers = self._headers | {"Accept": "text/event-stream"}
        headers |= {"Last-Event-ID": last_id} if last_id else {}
        target = path + _query(params)
        with (
            self._answers(),
            self._http.send("GET", target, None, headers, _SILENCE_SECONDS) as answer,
        ):
            if not _is_success(answer):
                self._content(answer)
            yield from messages(answer.chunks())

    @contextlib.contextmanager
    def _answers(self) -> Iterator[None]:
        """Say where the service should be when it does not answer."""
        try:
            yield
        except (Unreachable, Broken) as error:
            raise Unavailable(
                f"the Nimbus service at {self.url} does not answer: {error}"
            ) from error

    def _content(self, answer: Response) -> Any:
        """Return the answer's JSON, its text if it is CSV, or its bytes; raise its error."""
        body = answer.read()
        if _is_success(answer) and answer.content_type == "application/octet-stream":
            return body
        if _is_success(answer) and answer.content_type.startswith("text/csv"):
            return body.decode()
        with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
            content = json.loads(body) if body else None
            if _is_success(answer):
                return content
            if isinstance(content, dict) and isinstance(content.get("message"), str):
                raise _error(answer.status, content)
        raise Unavailable(
            f"the Nimbus service at {self.url} does not answer: "
            f"HTTP {answer.status} {answer.reason} from something else there"
        )


def _is_unsent(error: Unavailable) -> bool:
    """Tell whether no connection was made, so that even a write may be repeated."""
    return isinstance(error.__cause__, Unreachable)


def _is_success(answer: Response) -> bool:
    return 200 <= answer.status < 300


def _error(status: int, content: dict[str, Any]) -> NimbusError:
    by_code = error_classes().get(str(content.get("code")))
    cls = by_code or _BY_STATUS.get(status, NimbusError)
    return cls(content["message"])


def _query(params: Params | None) -> str:
    """Return what follows the path, without what is None."""
    given = {key: value for key, value in (params or {}).items() if value is not None}
    return f"?{urlencode(given)}" if given else ""
