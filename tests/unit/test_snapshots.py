"""Snapshots: kept whole, for their owner alone, and unpacked nowhere but where asked."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbus_hub.errors import Conflict, InvalidRequest, NotFound, TooLarge
from nimbus_hub.model.snapshot import (
    SnapshotFile,
    check_snapshot,
    snapshot_digest,
    snapshot_from_json,
    snapshot_to_json,
)
from nimbus_hub.store.snapshots import SnapshotStore

CODE = b"print('hello')\n"
LIMIT = 1000


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_file(path: str = "train.py", content: bytes = CODE, **more: bool) -> SnapshotFile:
    return SnapshotFile(path, len(content), digest_of(content), **more)


def make_tar(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> io.BytesIO:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    found.seek(0)
    return found


def kept(root: Path) -> list[str]:
    """Return the names of all files below the store."""
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


@pytest.fixture
def store(root: Path) -> SnapshotStore:
    return SnapshotStore(root, size_limit_bytes=LIMIT)


def commit(store: SnapshotStore, owner: str, contents: dict[str, bytes]) -> str:
    """Keep a snapshot of these files; return its digest."""
    for content in contents.values():
        store.add(owner, digest_of(content), [content])
    digest, missing = store.commit(owner, [make_file(*item) for item in contents.items()])
    assert missing == ()
    return digest


# Manifests


@pytest.mark.parametrize(
    "path",
    [
        *("", "/etc/passwd", "../up", "a/../../up", "a//b", "a/", "./a", ".", "..", "a\0b"),
        *("\udcff", "x" * 256, "é" * 128, "/".join(["x" * 200] * 11)),
    ],
)
def test_a_path_that_is_not_inside_the_directory_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="a path in a snapshot must"):
        make_file(path)


@pytest.mark.parametrize("path", ["a", "a/b/c.py", "...", "..a", " ", "a\\b", "x" * 255, "日本/é"])
def test_an_unusual_path_is_fine(path: str) -> None:
    assert make_file(path).path == path


@pytest.mark.parametrize(
    "digest", ["", "A" * 64, "a" * 63, "a" * 65, "../" + "a" * 61, "a" * 64 + "\n"]
)
def test_a_digest_is_64_lower_case_hexadecimal_digits(store: SnapshotStore, digest: str) -> None:
    with pytest.raises(InvalidRequest, match="must be 64 hexadecimal digits"):
        SnapshotFile("a", 1, digest)
    with pytest.raises(InvalidRequest, match="must be named by its SHA-256 digest"):
        store.add("ann", digest, [b""])
    with pytest.raises(InvalidRequest, match="must be named by its SHA-256 digest"):
        store.missing("ann", [digest])
    with pytest.raises(NotFound):
        store.files("ann", digest)
    assert not store.has("ann", digest)


def test_a_size_is_not_negative() -> None:
    with pytest.raises(InvalidRequest, match="must be at least 0, got -1"):
        SnapshotFile("a", -1, "a" * 64)


TOGETHER: list[tuple[list[SnapshotFile], str]] = [
    ([make_file("a"), make_file("a", b"other")], "each file once, got 'a' twice"),
    ([make_file("a"), make_file("a/b")], "'a' cannot be a file and hold 'a/b'"),
    ([make_file("a/b/c"), make_file("a")], "'a' cannot be a file and hold 'a/b/c'"),
    ([make_file("a"), SnapshotFile("b", 3, digest_of(CODE))], "must have the same size"),
]


@pytest.mark.parametrize(("files", "words"), TOGETHER)
def test_files_that_cannot_be_together_are_refused(
    store: SnapshotStore, root: Path, files: list[SnapshotFile], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        store.commit("ann", files)
    assert kept(root) == []


def test_names_that_only_look_like_a_parent_can_be_together() -> None:
    check_snapshot([make_file("a"), make_file("a.b/c"), make_file("ab")], LIMIT)


def test_too_much_is_refused_with_the_five_largest_files(store: SnapshotStore) -> None:
    files = [make_file(f"data/{size}.bin", bytes(size)) for size in range(100, 800, 100)]
    with pytest.raises(TooLarge) as caught:
        store.commit("ann", files)
    assert caught.value.message == (
        "the working directory has 2.7K and may have 1000B; the largest files are "
        "data/700.bin (700B), data/600.bin (600B), data/500.bin (500B), data/400.bin (400B), "
        "data/300.bin (300B): name what is not needed in .nimbusignore"
    )


FILES = st.lists(
    st.builds(
        SnapshotFile,
        st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,2}", fullmatch=True),
        st.integers(0, 100),
        st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        st.booleans(),
    ),
    max_size=5,
)


@given(FILES)
def test_a_snapshot_is_named_by_its_files_in_any_order(files: list[SnapshotFile]) -> None:
    assert snapshot_digest(files) == snapshot_digest(files[::-1])
    assert snapshot_digest(files) != snapshot_digest([*files, make_file("new")])
    assert sorted(snapshot_from_json(snapshot_to_json(files)), key=repr) == sorted(files, key=repr)


def test_the_digest_of_a_snapshot_never_changes() -> None:
    files = [make_file("a"), make_file("b/é", b"", is_executable=True)]
    expected = (
        f'[["a",15,"{digest_of(CODE)}",false],["b/\\u00e9",0,"{digest_of(b"")}",true]]'.encode()
    )
    assert snapshot_to_json(files) == expected
    assert snapshot_digest(files) == digest_of(expected)


# Keeping


def test_what_is_missing_is_asked_for_once_and_kept(store: SnapshotStore) -> None:
    files = [make_file("a"), make_file("b"), make_file("c", b"other")]
    wanted = (digest_of(CODE), digest_of(b"other"))
    digest, missing = store.commit("ann", files)
    assert missing == store.missing("ann", [file.digest for file in files]) == wanted
    assert not store.has("ann", digest)
    store.add_tar("ann", make_tar((wanted[0], CODE), (wanted[1], b"other")))
    assert store.missing("ann", wanted) == ()
    assert store.commit("ann", files) == store.commit("ann", files) == (digest, ())
    assert store.has("ann", digest)
    assert store.files("ann", digest) == tuple(files)


def test_an_empty_directory_is_a_snapshot(store: SnapshotStore, tmp_path: Path) -> None:
    digest, missing = store.commit("ann", [])
    assert missing == ()
    store.unpack("ann", digest, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


def test_nobody_gets_or_sees_another_owners_files(store: SnapshotStore, tmp_path: Path) -> None:
    digest = commit(store, "ann", {"train.py": CODE})
    assert store.missing("bob", [digest_of(CODE)]) == (digest_of(CODE),)
    assert store.commit("bob", [make_file()]) == (digest, (digest_of(CODE),))
    assert not store.has("bob", digest)
    with pytest.raises(NotFound, match="there is no snapshot"):
        store.unpack("bob", digest, tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("owner", ["..", ".", "", "a/b", "A\0", "\udcff", "x" * 500, "ANN", "ann "])
def test_any_owner_has_a_directory_of_their_own(
    store: SnapshotStore, root: Path, owner: str
) -> None:
    digest = commit(store, owner, {"train.py": CODE})
    assert store.has(owner, digest)
    assert not store.has("ann", digest)
    assert len(list(root.iterdir())) == len(list(root.parent.iterdir())) == 1


def test_a_file_with_another_digest_is_refused_and_not_kept(
    store: SnapshotStore, root: Path
) -> None:
    with pytest.raises(InvalidRequest, match="has another digest"):
        store.add("ann", digest_of(b"other"), [CODE])
    assert kept(root) == []


def test_a_file_over_the_limit_is_refused_without_reading_all(
    store: SnapshotStore, root: Path
) -> None:
    read = []

    def endless() -> Iterator[bytes]:
        while True:
            read.append(100)
            yield bytes(100)

    with pytest.raises(TooLarge, match="may have 1000B together"):
        store.add("ann", "a" * 64, endless())
    assert len(read) == 11
    assert kept(root) == []


def test_an_upload_that_breaks_off_leaves_nothing(store: SnapshotStore, root: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield CODE
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.add("ann", digest_of(CODE), broken())
    assert kept(root) == []


def test_a_file_can_be_added_from_an_open_file_and_again(store: SnapshotStore, root: Path) -> None:
    store.add("ann", digest_of(CODE), io.BytesIO(CODE))
    store.add("ann", digest_of(CODE), io.BytesIO(CODE))
    assert kept(root) == [digest_of(CODE)]


def test_only_the_service_can_read_what_is_kept(store: SnapshotStore, root: Path) -> None:
    commit(store, "ann", {"train.py": CODE})
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    files = [path for path in root.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


BAD_TARS: list[tuple[io.BytesIO, str]] = [
    (io.BytesIO(b""), "must be a tar archive"),
    (io.BytesIO(b"no tar at all" * 100), "must be a tar archive"),
    (io.BytesIO(make_tar((digest_of(CODE), CODE)).getvalue()[:520]), "must be a tar archive"),
    (make_tar(("train.py", CODE)), "named by its SHA-256"),
    (make_tar(("../" + "a" * 61, CODE)), "named by its SHA-256"),
    (make_tar(("a" * 64, CODE)), "has another digest"),
    (make_tar(("a" * 64, b""), kind=tarfile.SYMTYPE), "plain files alone"),
    (make_tar(("a" * 64, b""), kind=tarfile.LNKTYPE), "plain files alone"),
    (make_tar(("a" * 64, b""), kind=tarfile.DIRTYPE), "plain files alone"),
    (make_tar(("a" * 64, b""), kind=tarfile.CHRTYPE), "plain files alone"),
    # tarfile takes the contents of these into memory, and they may be as large as the upload.
    (make_tar(("a" * 64, b"9 a=bcde\n"), kind=tarfile.XHDTYPE), "plain files alone"),
    (make_tar(("a" * 64, b"9 a=bcde\n"), kind=tarfile.XGLTYPE), "plain files alone"),
    (make_tar(("a" * 64, b"b" * 64), kind=tarfile.GNUTYPE_LONGNAME), "plain files alone"),
    (make_tar(("a" * 64, b""), kind=tarfile.GNUTYPE_SPARSE), "plain files alone"),
]


@pytest.mark.parametrize(("tar", "words"), BAD_TARS)
def test_a_bad_upload_is_refused_and_not_kept(
    store: SnapshotStore, root: Path, tar: io.BytesIO, words: str
) -> None:
    tar.seek(0)
    with pytest.raises(InvalidRequest, match=words):
        store.add_tar("ann", tar)
    assert kept(root) == []


def test_the_limit_is_for_all_of_an_upload(store: SnapshotStore) -> None:
    contents = [bytes([number]) * 400 for number in range(3)]
    with pytest.raises(TooLarge):
        store.add_tar("ann", make_tar(*((digest_of(item), item) for item in contents)))
    assert store.missing("ann", map(digest_of, contents)) == (digest_of(contents[2]),)


def test_what_a_crash_left_can_be_removed(store: SnapshotStore, root: Path) -> None:
    commit(store, "ann", {"train.py": CODE})
    before = kept(root)
    (draft,) = (path / "half" for path in root.glob("*/tmp"))
    draft.write_bytes(b"half")
    store.remove_leftovers()
    assert kept(root) == before


def test_a_file_of_another_size_is_missing_and_can_be_uploaded_again(
    store: SnapshotStore, root: Path, tmp_path: Path
) -> None:
    digest = commit(store, "ann", {"train.py": CODE})
    (blob,) = root.rglob(digest_of(CODE))
    blob.write_bytes(b"")
    assert store.commit("ann", [make_file()]) == (digest, (digest_of(CODE),))
    with pytest.raises(NotFound, match=r"has lost 'train\.py': submit it again"):
        store.unpack("ann", digest, tmp_path / "work")
    assert commit(store, "ann", {"train.py": CODE}) == digest


# Unpacking


def contents_below(path: Path) -> dict[str, bytes]:
    found = (item for item in path.rglob("*") if item.is_file())
    return {str(item.relative_to(path)): item.read_bytes() for item in found}


TREE = {"train.py": CODE, "lib/a/b.py": b"b", "lib/a/c.py": b"c", "lib/d.py": b"", "é": CODE}


def test_unpacking_gives_the_same_files(store: SnapshotStore, tmp_path: Path) -> None:
    digest = commit(store, "ann", TREE)
    target = tmp_path / "deep" / "work"
    store.unpack("ann", digest, target)
    assert contents_below(target) == TREE


def test_files_are_copies_with_plain_modes(store: SnapshotStore, tmp_path: Path) -> None:
    store.add("ann", digest_of(CODE), [CODE])
    files = [make_file("a"), make_file("run.sh", is_executable=True), make_file("lib/b")]
    digest, _ = store.commit("ann", files)
    store.unpack("ann", digest, tmp_path / "work")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("work/**/*")}
    assert modes == {"a": 0o644, "run.sh": 0o755, "lib": 0o755, "b": 0o644}
    (tmp_path / "work" / "a").write_bytes(b"changed")
    store.unpack("ann", digest, tmp_path / "other")
    assert contents_below(tmp_path / "other")["a"] == CODE


def test_unpacking_again_restores_its_files_and_keeps_others(
    store: SnapshotStore, tmp_path: Path
) -> None:
    digest = commit(store, "ann", TREE)
    store.unpack("ann", digest, tmp_path / "work")
    (tmp_path / "work" / "train.py").write_bytes(b"changed")
    (tmp_path / "work" / "lib" / "result").write_bytes(b"42")
    store.unpack("ann", digest, tmp_path / "work")
    assert contents_below(tmp_path / "work") == {**TREE, "lib/result": b"42"}


def test_no_link_is_followed_out_of_the_target(store: SnapshotStore, tmp_path: Path) -> None:
    digest = commit(store, "ann", TREE)
    outside, target = tmp_path / "outside", tmp_path / "work"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    target.mkdir()
    (target / "lib").symlink_to(outside)
    (target / "train.py").symlink_to(outside / "precious")
    (target / "é").hardlink_to(outside / "precious")
    store.unpack("ann", digest, target)
    assert contents_below(outside) == {"precious": b"precious"}
    assert contents_below(target) == TREE
    assert not any(path.is_symlink() for path in target.rglob("*"))


def test_a_target_that_is_a_link_or_a_file_is_refused(store: SnapshotStore, tmp_path: Path) -> None:
    digest = commit(store, "ann", TREE)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "file").write_bytes(b"")
    for name in ("link", "file"):
        with pytest.raises(Conflict, match="must be a directory, and not a link"):
            store.unpack("ann", digest, tmp_path / name)
    assert contents_below(outside) == {}


def test_a_directory_does_not_make_way_for_a_file(store: SnapshotStore, tmp_path: Path) -> None:
    digest = commit(store, "ann", {"train.py": CODE})
    (tmp_path / "work" / "train.py").mkdir(parents=True)
    with pytest.raises(Conflict, match=r"train\.py cannot be written: a directory has its name"):
        store.unpack("ann", digest, tmp_path / "work")
    assert [path.name for path in (tmp_path / "work").rglob("*")] == ["train.py"]


def test_a_manifest_of_deep_paths_is_checked_in_time_to_its_length() -> None:
    deep = "/a" * 1000
    files = [SnapshotFile(f"{number:x}{deep}", 0, "a" * 64) for number in range(5000)]
    began = time.process_time()
    check_snapshot(files, LIMIT)
    assert time.process_time() - began < 1


def test_what_no_job_needs_is_removed_once_it_is_old(store: SnapshotStore) -> None:
    """Two snapshots share a file; of one owner nothing is needed."""
    shared, one, two = (make_file(name, name.encode()) for name in ("shared", "one", "two"))
    digests = {}
    for owner in ("ada", "bob"):
        for file in (shared, one, two):
            store.add(owner, file.digest, [file.path.encode()])
        for file in (one, two):
            digests[owner, file.path], _ = store.commit(owner, [shared, file])
    needed = {"ada": {digests["ada", "one"]}}
    old = datetime.now(UTC) - timedelta(days=1)
    assert store.remove_unneeded(needed, old) == 0
    later = datetime.now(UTC) + timedelta(seconds=5)
    assert store.remove_unneeded(needed, later) == len("two") + len("shared" + "one" + "two")
    assert [store.has(*key) for key in (("ada", digests["ada", "one"]),)] == [True]
    assert not any(
        store.has(owner, digest)
        for (owner, name), digest in digests.items()
        if (owner, name) != ("ada", "one")
    )
    digests_of_all = [file.digest for file in (shared, one, two)]
    assert store.missing("ada", digests_of_all) == (two.digest,)
    assert store.missing("bob", digests_of_all) == tuple(digests_of_all)


def test_what_is_counted_upon_counts_as_new(store: SnapshotStore) -> None:
    """Who is told which files are missing uploads those, and not what is there already."""
    file, other = make_file(), make_file("other", b"other")
    store.add("ada", file.digest, [CODE])
    for path in store._root.rglob("*"):
        os.utime(path, (1, 1))
    assert store.commit("ada", [file, other])[1] == (other.digest,)
    assert store.remove_unneeded({}, datetime.now(UTC) - timedelta(days=1)) == 0
    store.add("ada", other.digest, [b"other"])
    digest, missing = store.commit("ada", [file, other])
    assert missing == ()
    for path in store._root.rglob("*"):
        os.utime(path, (1, 1))
    store.commit("ada", [file, other])
    assert store.remove_unneeded({}, datetime.now(UTC) - timedelta(days=1)) == 0
    assert store.has("ada", digest)
