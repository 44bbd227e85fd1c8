"""Files that did not change are not read again, and those that did always are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nimbus_hub.client import digests
from nimbus_hub.client.snapshot import Manifest, scan

OLD_SECONDS = 1_000_000_000


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose files count as settled at once."""
    monkeypatch.setattr(digests, "_SETTLED_NANOSECONDS", -(10**12))
    work = tmp_path / "work"
    (work / "pkg").mkdir(parents=True)
    (work / "train.py").write_text("print(1)\n")
    (work / "pkg" / "model.py").write_text("x = 1\n")
    return work


def read(work: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Manifest, int]:
    """Return the manifest, and how many files were read for it."""
    count = 0
    whole = digests.Digests.add

    def add(self: digests.Digests, *given: object) -> None:
        nonlocal count
        count += 1
        whole(self, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(digests.Digests, "add", add)
        manifest = scan(work, cache=work.parent / "cache")
    return manifest, count


def test_what_did_not_change_is_not_read_again(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, all_of_them = read(work, monkeypatch)
    again, none_of_them = read(work, monkeypatch)
    assert (all_of_them, none_of_them) == (2, 0)
    assert again == first == scan(work)


def test_what_changed_is_read_again(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(work, monkeypatch)
    stats = (work / "train.py").stat()
    (work / "train.py").write_text("print(2)\n")
    # Of the same size, and with the time it had: only the inode's change tells.
    os.utime(work / "train.py", ns=(stats.st_atime_ns, stats.st_mtime_ns))
    found, count = read(work, monkeypatch)
    assert count == 1
    assert found == scan(work)


def test_a_file_that_just_changed_is_read_the_next_time_too(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_SETTLED_NANOSECONDS", 2 * 10**9)
    assert [read(work, monkeypatch)[1] for _ in range(2)] == [2, 2]


def test_other_patterns_decide_anew(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(work, monkeypatch)
    (work / ".nimbusignore").write_text("pkg/\n")
    found, _ = read(work, monkeypatch)
    assert [file.path for file in found.files] == [".nimbusignore", "train.py"]


def test_files_that_come_and_go_are_noticed(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(work, monkeypatch)
    (work / "pkg" / "model.py").unlink()
    (work / "new.py").write_text("y = 2\n")
    found, count = read(work, monkeypatch)
    assert [file.path for file in found.files] == ["new.py", "train.py"]
    assert count == 1


@pytest.mark.parametrize("kept", ["", "{}", '["x"]', '["x", {"train.py": 3}]', "[1, [2]]"])
def test_what_is_kept_may_be_broken(work: Path, monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
    read(work, monkeypatch)
    (path,) = (work.parent / "cache" / "digests").glob("*.json")
    path.write_text(kept)
    assert read(work, monkeypatch) == (scan(work), 2)


def test_a_directory_that_cannot_be_written_costs_only_time(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work.parent / "cache").write_text("no directory")
    assert [read(work, monkeypatch)[1] for _ in range(2)] == [2, 2]


def test_nothing_is_kept_of_a_scan_that_failed(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="the limit is"):
        scan(work, cache=work.parent / "cache", limit_bytes=1)
    assert list((work.parent / "cache" / "digests").iterdir()) == []


def test_only_the_directories_last_read_are_remembered(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_MOST_DIRECTORIES", 1)
    read(work, monkeypatch)
    kept = work.parent / "cache" / "digests"
    (first,) = kept.iterdir()
    os.utime(first, (OLD_SECONDS, OLD_SECONDS))
    scan(work / "pkg", cache=work.parent / "cache")
    assert first not in kept.iterdir()
