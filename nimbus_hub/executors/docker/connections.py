"""Connections to engines: with certificates, and so that one that is dead is known soon.

A host that is cut off answers nothing, not even that it is gone. So the kernel asks it while
nothing comes; one whose engine only takes long answers that by itself.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import requests
import urllib3
from docker.tls import TLSConfig
from docker.types import CancellableStream

from nimbus_hub.model.engine import Engine

__all__ = ["BROKEN", "connect", "cut", "framed", "why"]

BROKEN = (OSError, urllib3.exceptions.HTTPError, struct.error, ValueError, AttributeError)
"""What reading from a connection may raise that another thread has closed."""

# Three seconds of silence, then a question every two: a host that is cut off is known in 7 s.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
)
_CONNECT_SECONDS = 10
_HEADER_BYTES = 8
"""Which of the two outputs it is, and in the last four the size of what follows."""


def cut(stream: CancellableStream) -> None:
    """End a stream, from any thread."""
    with suppress(*BROKEN):
        try:
            stream.close()
        except UnboundLocalError:
            # The SDK does not know how to over ssh: its program is to end.
            stream._response.raw._fp.fp.channel.close()


def framed(client: docker.APIClient, stream: CancellableStream) -> CancellableStream:
    """Return a stream that gives the content of each frame as soon as it has come.

    The SDK asks the system whether more has come before it reads: with TLS it holds back what
    has, and is only not read yet, until more does.
    """
    response = stream._response
    client._disable_socket_timeout(client._get_raw_response_socket(response))
    file = response.raw._fp.fp

    def contents() -> Iterator[bytes]:
        while len(header := file.read(_HEADER_BYTES)) == _HEADER_BYTES:
            yield file.read(int.from_bytes(header[4:], "big"))

    return CancellableStream(contents(), response)


def connect(engine: Engine, seconds: int) -> docker.APIClient:
    """Return the SDK's client, of the engine's version; it raises the SDK's own errors."""
    first = _client(engine, seconds, docker.constants.DEFAULT_DOCKER_API_VERSION)
    try:
        return _client(engine, seconds, first.version(api_version=False)["ApiVersion"])
    finally:
        first.close()


def _client(engine: Engine, seconds: int, version: str) -> docker.APIClient:
    tls: TLSConfig | bool = False
    if engine.tls:
        folder = Path(engine.tls)
        pair = str(folder / "cert.pem"), str(folder / "key.pem")
        tls = TLSConfig(client_cert=pair, ca_cert=str(folder / "ca.pem"), verify=True)
    client = docker.APIClient(
        engine.endpoint, version=version, timeout=seconds, tls=tls, use_ssh_client=True
    )
    # Else REQUESTS_CA_BUNDLE in the environment would win over the engine's own authority.
    client.trust_env = False
    _keep_alive(client)
    return client


def _keep_alive(client: docker.APIClient) -> None:
    """Have dead connections over TCP end."""
    pools: Any = getattr(client.get_adapter(client.base_url), "poolmanager", None)
    if pools is not None and client.base_url.startswith(("http://", "https://")):
        pools.clear()
        options = [*urllib3.connection.HTTPConnection.default_socket_options, *_KEEPALIVE]
        pools.connection_pool_kw["socket_options"] = options
        client.timeout = min(_CONNECT_SECONDS, client.timeout), client.timeout


def why(error: BaseException) -> str:
    """Return what the system said of a fault, without all that libraries wrapped around it."""
    words, is_cut = str(error), False
    found: BaseException | None = error
    while found is not None:
        is_cut = is_cut or isinstance(found, urllib3.exceptions.ProtocolError)
        if isinstance(found, OSError) and not isinstance(found, requests.RequestException):
            words, is_cut = found.strerror or str(found), False
        found = found.__cause__ or found.__context__
    return "its connection ended" if is_cut else words
