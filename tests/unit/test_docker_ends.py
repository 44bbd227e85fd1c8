"""What became of a container, from what its engine tells."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from nimbus_hub.executors.docker.ends import End, belongs_to, end_of, moment
from nimbus_hub.model.replica import ReplicaState

ENDED = "2026-03-01T12:00:00.123456789Z"
ENDED_AT = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)


def told(code: int = 0, status: str = "exited", **more: Any) -> dict[str, Any]:
    state = {"Status": status, "ExitCode": code, "OOMKilled": False, "FinishedAt": ENDED}
    return {"State": {**state, **more}}


def end(
    found: dict[str, Any] | None,
    *actions: str,
    was_stopped: bool = False,
    output: bytes = b"",
) -> End:
    events = [{"Action": each, "timeNano": ENDED_AT.timestamp() * 1e9} for each in actions]
    return end_of(found, events, was_stopped=was_stopped, memory_bytes=64 * 2**20, output=output)


@pytest.mark.parametrize(
    ("code", "expected", "reason"),
    [
        (0, 0, ""),
        (3, 3, ""),
        (128, 128, ""),
        (137, -9, "killed by SIGKILL from outside, perhaps because the host had no memory left"),
        (139, -11, "ended by SIGSEGV"),
        (128 + 40, -40, "ended by signal 40"),
        (255, 255, ""),
    ],
)
def test_exit_codes_are_as_subprocess_has_them(code: int, expected: int, reason: str) -> None:
    assert end(told(code)) == End(ReplicaState.EXITED, expected, reason, ENDED_AT)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, "stopped"),
        (143, "stopped"),
        (137, "stopped; killed because it had not ended after the grace"),
    ],
)
def test_who_was_stopped_is_said_to_be(code: int, reason: str) -> None:
    assert end(told(code), was_stopped=True).reason == reason


def test_the_memory_limit_is_said_if_it_did_any_harm() -> None:
    reason = "ended by its memory limit of 64 MiB; ask for more memory"
    assert end(told(137, OOMKilled=True)).reason == reason
    assert end(told(1, OOMKilled=True)).reason == reason
    assert end(told(0, OOMKilled=True)).reason == ""


@pytest.mark.parametrize("found", [None, told(137, "removing"), told(137, "dead")])
def test_a_container_that_others_remove_is_lost(found: dict[str, Any] | None) -> None:
    assert end(found) == End(ReplicaState.LOST, None, "its container was removed", None)


def test_who_is_ended_by_an_engine_that_was_started_again_is_said_to_be() -> None:
    reason = "its Docker engine sent SIGTERM: it was started again, or asked to do so"
    assert end(told(143), "kill", "die").reason == reason
    assert end(told(143), "die").reason == "ended by SIGTERM"
    assert end(told(143), "kill", "die", was_stopped=True).reason == "stopped"


def test_a_removed_container_ended_before_those_that_end_for_it() -> None:
    assert end(None, "kill", "die", "destroy").ended_at == ENDED_AT


@pytest.mark.parametrize(
    ("code", "output", "reason"),
    [
        (127, b"sh: 1: exec: pithon: not found\n", "the program 'pithon' was not found"),
        (127, b"sh: line 1: exec: pithon: not found\n", "the program 'pithon' was not found"),
        (127, b"sh: exec: line 0: pithon: not found\n", "the program 'pithon' was not found"),
        (
            126,
            b"sh: 1: exec: ./a: Permission denied\n",
            "the program './a' cannot be run: Permission denied",
        ),
        (1, b"sh: 1: exec: pithon: not found\n", ""),
        (127, b"step 1\nsh: 1: exec: pithon: not found\n", ""),
        (127, b"", ""),
    ],
)
def test_a_program_that_is_not_there_is_said(code: int, output: bytes, reason: str) -> None:
    assert end(told(code), output=output).reason == reason


def test_moments_are_read_with_all_their_digits() -> None:
    assert moment(ENDED) == ENDED_AT
    assert moment("2026-03-01T13:00:00+01:00") == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert moment("2026-03-01T12:00:00.5Z") == datetime(2026, 3, 1, 12, 0, 0, 500000, UTC)
    assert moment("0001-01-01T00:00:00Z") is None
    assert moment("never") is None


def test_a_container_is_known_by_its_label_and_not_by_its_name() -> None:
    assert belongs_to({"Config": {"Labels": {"nimbus.replica": "r1"}}}, "r1")
    assert not belongs_to({"Config": {"Labels": {"nimbus.replica": "r2"}}}, "r1")
    assert not belongs_to({"Config": {"Labels": None}}, "r1")
