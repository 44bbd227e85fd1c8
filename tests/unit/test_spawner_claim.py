"""What makes a waiting process the server of a session is read strictly."""

from __future__ import annotations

import re

import pytest
from nimbus_spawner.claim import Claim

_GOOD: dict[str, object] = {"args": ["--debug"], "env": {"A": "b=c"}, "cwd": "/"}


def test_a_claim_is_read() -> None:
    assert Claim.parse(_GOOD) == Claim(("--debug",), {"A": "b=c"}, "/")
    assert Claim.parse(_GOOD | {"inherit": True}).is_inheriting


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"argv": []}, "there is no 'argv' in a claim"),
        ({"args": "--debug"}, "args must be a list of texts"),
        ({"args": [1]}, "args must be a list of texts"),
        ({"args": ["a\0b"]}, "args must be a list of texts"),
        ({"args": ["\ud800"]}, "args must be a list of texts"),
        ({"env": None}, "env must be an object of texts"),
        ({"env": {"A": 1}}, "env must be an object of texts"),
        ({"env": {"A=B": "c"}}, "a variable's name is empty or has a '='"),
        ({"env": {"": "c"}}, "a variable's name is empty or has a '='"),
        ({"cwd": "home"}, "cwd must be the absolute path of a directory"),
        ({"cwd": "/none/such"}, "cwd must be the absolute path of a directory"),
        ({"inherit": 1}, "inherit must be true or false"),
    ],
)
def test_anything_else_is_refused_with_the_reason(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        Claim.parse(_GOOD | change)


def test_a_claim_is_an_object() -> None:
    with pytest.raises(ValueError, match="a claim is an object"):
        Claim.parse([])
