"""What a site says of all containers: read, and refused where it is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.docker.containers import Mount
from nimbus_hub.executors.docker.images import Credentials
from nimbus_hub.executors.docker.policy import read_policy


def test_what_is_not_said_is_as_for_nobody_in_particular() -> None:
    policy = read_policy({})
    assert policy.users("ada") == (1000, 1000)
    assert policy.mounts("ada") == ()
    assert (policy.read_only, policy.ulimits, policy.credentials) == (frozenset(), {}, {})


def test_all_of_it_is_read() -> None:
    policy = read_policy(
        {
            "user": "1001:100",
            "mounts": [
                {"source": "/srv/data", "target": "/data"},
                {"source": "home-{owner}", "target": "/home/{owner}", "read_only": False},
            ],
            "read_only": ["torch"],
            "ulimits": {"memlock": -1},
            "registries": {"registry.example.org": {"username": "nimbus", "password": "s"}},
        }
    )
    assert policy.users("ada") == (1001, 100)
    assert policy.mounts("ada") == (
        Mount("/srv/data", "/data"),
        Mount("home-ada", "/home/ada", is_read_only=False),
    )
    assert policy.read_only == {"torch"}
    assert policy.ulimits == {"memlock": -1}
    assert policy.credentials == {"registry.example.org": Credentials("nimbus", "s")}


@pytest.mark.parametrize(
    ("owner", "source"),
    [("..", "/srv/%2E."), ("../bob", "/srv/%2E.%2Fbob"), ("a b@c", "/srv/a b@c")],
)
def test_an_owner_gets_nobody_elses_directory(owner: str, source: str) -> None:
    policy = read_policy({"mounts": [{"source": "/srv/{owner}", "target": "/home"}]})
    assert policy.mounts(owner) == (Mount(source, "/home"),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"users": "1:1"}, "containers has no 'users'; it has user, storage"),
        ({"user": "ada"}, "containers.user must be UID:GID like 1000:100, got 'ada'"),
        ({"mounts": [{"source": "/x"}]}, "a mount of containers must be {'source': ...,"),
        ({"mounts": ["/x:/y"]}, "a mount of containers must be {'source': ...,"),
        (
            {"mounts": [{"source": "/var/run/docker.sock", "target": "/s"}]},
            "containers may not mount the engine's socket: who has it is root",
        ),
        ({"ulimits": {"nofile": "many"}}, "containers.ulimits must be numbers by name"),
        ({"registries": {"x": "y"}}, "containers.registries must be {registry: {'username'"),
    ],
)
def test_what_is_wrong_is_refused_with_what_would_be_right(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_policy(given)
    assert caught.value.message.startswith(message)
