"""What an engine answers, as errors of this side."""

from __future__ import annotations

from typing import Any

import pytest
from docker.errors import APIError
from requests import Response

from nimbus_hub.errors import Conflict, InvalidRequest, NotFound, Unavailable
from nimbus_hub.executors.docker.engine import EngineClient
from nimbus_hub.model.engine import Engine


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> EngineClient:
    monkeypatch.setattr("nimbus_hub.executors.docker.engine.connect", lambda *_: object())
    return EngineClient(Engine("gpu-1", "unix:///var/run/docker.sock"))


def refuse(status: int, words: str) -> Any:
    def ask(sdk: object) -> None:
        response = Response()
        response.status_code = status
        raise APIError(words, response, words)

    return ask


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (404, "No such container", NotFound),
        (409, "is not running", Conflict),
        (400, "invalid reference format", InvalidRequest),
        (500, "no space left on device", InvalidRequest),
        # An engine that was killed is back, and its Swarm still keeps its last session.
        (500, "attaching to network failed: context deadline exceeded", Unavailable),
        # A Swarm has no manager.
        (500, "Could not attach to network nimbus: context deadline exceeded", Unavailable),
        (500, "The swarm does not have a leader", Unavailable),
    ],
)
def test_an_engines_refusal_is_of_the_kind_that_says_whether_to_ask_again(
    client: EngineClient, status: int, words: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=f"the Docker engine of host gpu-1 says: {words}"):
        client.use(refuse(status, words))


async def test_an_engine_that_refuses_for_now_is_asked_again_at_once(client: EngineClient) -> None:
    with pytest.raises(Unavailable):
        await client.call(client.use, refuse(500, "attaching to network failed"))
    assert await client.call(client.use, lambda _: "hello") == "hello"


async def test_an_engine_that_does_not_answer_is_not_waited_for_again(client: EngineClient) -> None:
    def hang(sdk: object) -> None:
        raise ConnectionResetError("reset")

    with pytest.raises(Unavailable, match="does not answer: reset"):
        await client.call(client.use, hang)
    with pytest.raises(Unavailable, match="does not answer: reset"):
        await client.call(client.use, lambda _: "hello")
