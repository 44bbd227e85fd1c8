"""Files into containers and out of them: whose they are, and what is not taken."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from nimbus_hub.executors.docker.files import Results, packed
from nimbus_hub.executors.files import find_own, read_own
from nimbus_hub.model.replica import ReplicaSpec
from tests.contract.snapshots import MemorySnapshots

SPEC = ReplicaSpec("r1", "j-1", "ada", "a", ("x",), snapshot="abc")
SNAPSHOTS = MemorySnapshots({"abc": {"code/train.py": "# train\n", "run": "#!/bin/sh\n"}})


def archive(*members: tarfile.TarInfo, content: bytes = b"content") -> list[bytes]:
    """Return an archive in small pieces; every plain file has the same content."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            file.addfile(member, io.BytesIO(content))
    data = made.getvalue()
    return [data[place : place + 100] for place in range(0, len(data), 100)]


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.mtime = kind, target, 1000
    return found


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


def kept(results: Results, host: str = "a") -> list[str]:
    return [file.path for file in find_own(str(results.directory("j-1", host)), "", 99).files]


def test_a_jobs_files_are_its_users_and_our_library_is_not(
    results: Results, tmp_path: Path
) -> None:
    with (
        packed(SPEC, (7, 8), SNAPSHOTS, results, tmp_path / "staging") as file,
        tarfile.open(fileobj=file) as found,
    ):
        members = {each.name: each for each in found}
    of_user = {name for name, each in members.items() if (each.uid, each.gid) == (7, 8)}
    assert of_user == {
        *("work", "home", "output", "logs", "checkpoints"),
        *("work/code", "work/code/train.py", "work/run"),
    }
    assert (members["work/run"].mode, members["work/code/train.py"].mode) == (0o755, 0o644)
    library = set(members) - of_user
    assert {"lib/nimbus_hub/distributed.py", "lib/nimbus_hub/replica/files.py"} < library
    assert all(name.startswith("lib/nimbus_hub/") for name in library)
    assert not any("on_path" in name or "__pycache__" in name for name in library)
    assert {(members[name].uid, members[name].mode) for name in library} == {(0, 0o644)}
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.parametrize("newest", ["a", "b", "c"])
def test_what_was_left_is_found_again_and_of_all_checkpoints_the_newest(
    results: Results, tmp_path: Path, newest: str
) -> None:
    """Whenever they were fetched: those of a host that was cut off come late, and are old."""
    for host in ("b", "c", "a"):
        names = (f"checkpoints/{host}", "checkpoints/last", f"output/{host}")
        results.keep("j-1", host, [archive(*map(member, names), content=host.encode())])
        changed = 2 if host == newest else 1
        os.utime(results.directory("j-1", host) / "checkpoints" / "last", (changed, changed))
        os.utime(results.directory("j-1", host) / "checkpoints" / host, (1, 1))
    with (
        packed(SPEC, (7, 8), SNAPSHOTS, results, tmp_path / "staging") as file,
        tarfile.open(fileobj=file) as found,
    ):
        names = [each.name for each in found if each.name.startswith(("output/", "check"))]
        found.extractall(tmp_path / "volume", filter="data")
    assert set(names) - {"checkpoints"} == {
        *("checkpoints/a", "checkpoints/b", "checkpoints/c"),
        *("checkpoints/last", "output/a"),
    }
    assert (tmp_path / "volume/checkpoints/last").read_text() == newest


def test_results_are_kept_in_place_of_earlier_ones(results: Results) -> None:
    results.keep("j-1", "a", [archive(member("output/old"))])
    results.keep("j-1", "a", [archive(member("output/new")), archive(member("logs/x"))])
    assert kept(results) == ["output/new", "logs/x"]
    part = read_own(str(results.directory("j-1", "a")), "output/new", 1, 3)
    assert (part.data, part.file.changed_at.timestamp()) == (b"ont", 1000)


def test_an_archive_that_breaks_off_changes_nothing(results: Results) -> None:
    results.keep("j-1", "a", [archive(member("output/old"))])
    with pytest.raises(tarfile.ReadError):
        results.keep("j-1", "a", [archive(member("output/new"))[:5]])
    assert kept(results) == ["output/old"]


@pytest.mark.parametrize(
    "bad",
    [
        member("../escaped"),
        member("output/../../escaped"),
        member("/etc/escaped"),
        member("elsewhere/file"),
        member("output/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("output/device", tarfile.CHRTYPE),
        member("output/pipe", tarfile.FIFOTYPE),
        member("output/hard", tarfile.LNKTYPE, "../../../etc/passwd"),
        member("output/hard", tarfile.LNKTYPE, "output/none"),
    ],
    ids=lambda bad: f"{bad.name}-{bad.linkname}",
)
def test_what_leads_elsewhere_or_is_no_file_is_left_out(
    results: Results, tmp_path: Path, bad: tarfile.TarInfo
) -> None:
    results.keep("j-1", "a", [archive(bad, member("output/good"))])
    assert kept(results) == ["output/good"]
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_file_with_two_names_is_kept_under_both(results: Results) -> None:
    second = member("output/second", tarfile.LNKTYPE, "output/first")
    results.keep("j-1", "a", [archive(member("output/first"), second)])
    assert kept(results) == ["output/first", "output/second"]
    assert (results.directory("j-1", "a") / "output/second").read_bytes() == b"content"
