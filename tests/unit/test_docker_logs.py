"""Output as it is followed: the same bytes, however connections break."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbus_hub.errors import Unavailable
from nimbus_hub.executors.docker import logs
from nimbus_hub.executors.docker.logs import Follower, OutputFile

LIMIT = 2**20


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "RETRY_SECONDS", 0.0)


@dataclass
class Pieces:
    """A stream of pieces."""

    pieces: Sequence[bytes]

    def __post_init__(self) -> None:
        self.iterator = iter(self.pieces)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.iterator)

    def close(self) -> None:
        """Do nothing: a test ends its streams itself."""


@dataclass
class Engine:
    """A container that runs as long as ``steps`` says: at each, what the engine has kept.

    ``cut`` is after how many pieces a followed stream breaks.
    """

    steps: list[list[bytes]]
    cut: int = 10**6
    silences: int = 0
    asked: list[bool] = field(default_factory=list)

    def is_running(self) -> bool | None:
        if self.silences:
            self.silences -= 1
            raise Unavailable("silent")
        return len(self.steps) > 1

    def output(self, *, follow: bool) -> Pieces:
        self.asked.append(follow)
        if not follow:
            return Pieces(self.steps[0])
        # It follows what is written until the next step.
        if len(self.steps) > 1:
            self.steps.pop(0)
        return Pieces(self.steps[0][: self.cut])


def followed(path: Path, engine: Engine, attached: Sequence[bytes] | None = None) -> bytes:
    follower = Follower(engine, path, LIMIT, 2 * LIMIT)
    assert follower.run(None if attached is None else Pieces(attached))
    return path.read_bytes()


def test_an_attachment_has_all_and_nothing_is_taken_twice(tmp_path: Path) -> None:
    engine = Engine([[b"one\n", b"two\n", b"end"]])
    assert followed(tmp_path / "log", engine, [b"on", b"e\ntwo\nen", b"d"]) == b"one\ntwo\nend"
    assert engine.asked == [False]


def test_what_an_attachment_missed_is_read_from_the_engine(tmp_path: Path) -> None:
    engine = Engine([[b"one\n"], [b"one\n", b"two\n"]], silences=2)
    assert followed(tmp_path / "log", engine, [b"one\ntw"]) == b"one\ntwo\n"


def test_a_service_that_was_restarted_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\ntw")
    assert followed(tmp_path / "log", Engine([[b"one\n", b"two\n"]])) == b"one\ntwo\n"


def test_a_follower_that_is_closed_is_not_at_the_end(tmp_path: Path) -> None:
    follower = Follower(Engine([[b"one\n"]]), tmp_path / "log", LIMIT, LIMIT)
    follower.close()
    assert follower.run(None) is False
    engine = Engine([[]], silences=10**9)
    waiting = Follower(engine, tmp_path / "log", LIMIT, LIMIT)
    threading.Timer(0.05, waiting.close).start()
    assert waiting.run(None) is False


def test_a_container_that_is_gone_leaves_what_was_read(tmp_path: Path) -> None:
    class Gone(Engine):
        def is_running(self) -> None:
            return None

    assert followed(tmp_path / "log", Gone([[]]), [b"one"]) == b"one"


def test_of_long_output_the_end_is_kept_and_the_gap_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log"
    said = bytes(range(256)) * 1000
    file = OutputFile(path, 2**17)
    for place in range(0, len(said), 1000):
        file.write(said[place : place + 1000])
    assert path.read_bytes() == said[: 2**17]
    file.finish()
    file.close()
    left_out = len(said) - 2**17 - 2**16
    note = b"\n[nimbus] %d bytes of output are left out here, beyond 0 MiB\n" % left_out
    assert path.read_bytes() == said[: 2**17] + note + said[-(2**16) :]
    # Cut off before the end was recorded, it is written again.
    again = OutputFile(path, 2**17)
    again.close()
    assert again.position == 2**17
    assert path.read_bytes() == said[: 2**17]


def test_output_that_is_only_a_little_too_long_is_whole(tmp_path: Path) -> None:
    file = OutputFile(tmp_path / "log", 10)
    file.write(b"0123456789abc")
    file.finish()
    file.close()
    assert (tmp_path / "log").read_bytes() == b"0123456789abc"


def test_where_the_engines_copy_begins_later_the_last_bytes_tell_where_to_go_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(3000)))
    kept = [b"line %d\n" % number for number in range(2000, 4000)]
    follower = Follower(Engine([kept]), path, LIMIT, 1000)
    assert follower.run(None)
    assert path.read_bytes() == b"".join(b"line %d\n" % number for number in range(4000))


def test_where_it_cannot_be_told_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first\n")
    assert Follower(Engine([[b"later\n"] * 100]), path, LIMIT, 1000).run(None)
    note = b"\n[nimbus] output is missing here: more came while nobody read than the engine keeps\n"
    assert path.read_bytes() == b"first\n" + note + b"later\n" * 100


@settings(max_examples=200, deadline=None)
@given(
    said=st.binary(min_size=1, max_size=400),
    read=st.integers(0, 400),
    steps=st.lists(st.integers(0, 400), max_size=5).map(sorted),
    size=st.integers(1, 50),
    cut=st.integers(0, 8),
    silences=st.integers(0, 3),
)
def test_however_connections_break_the_bytes_are_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    said: bytes,
    read: int,
    steps: list[int],
    size: int,
    cut: int,
    silences: int,
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    ends = [*steps, len(said)]
    copies = [
        [said[place : min(end, place + size)] for place in range(0, min(end, len(said)), size)]
        for end in ends
    ]
    engine = Engine(copies, cut, silences)
    assert followed(path, engine, [said[:read]]) == said
