from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import httpx
import pytest

from nimbus_hub.api import requests
from nimbus_hub.client import scan
from nimbus_hub.client.archive import tar_chunks, tar_size
from nimbus_hub.errors import Conflict, InvalidRequest, TooLarge
from tests.unit.fake_service import FakeService

SNAPSHOTS = "/api/v1/snapshots"


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def paths(root: Path) -> list[str]:
    return [file.path for file in scan(root).files]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_manifest_is_what_the_service_reads_and_sorted(tmp_path: Path) -> None:
    write(tmp_path, "b/c.py", "a.py", "run.sh")
    (tmp_path / "run.sh").chmod(0o755)
    read = requests.SnapshotRequest.model_validate(scan(tmp_path).body())
    assert [(f.path, f.size, f.digest, f.is_executable) for f in read.files] == [
        ("a.py", 4, digest("a.py"), False),
        ("b/c.py", 6, digest("b/c.py"), False),
        ("run.sh", 6, digest("run.sh"), True),
    ]


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "a/__pycache__/x.pyc",
        ".ipynb_checkpoints/n.ipynb",
        ".venv/bin/python",
        "web/node_modules/x/index.js",
        "nimbus/j1/output/model.pt",
        ".ssh/id_ed25519",
        ".cache/pip/x",
    ],
)
def test_what_no_job_needs_is_left_out(path: str, tmp_path: Path) -> None:
    write(tmp_path, path, "train.py")
    assert paths(tmp_path) == ["train.py"]


def test_a_package_called_nimbus_further_down_is_kept(tmp_path: Path) -> None:
    write(tmp_path, "src/nimbus/__init__.py")
    assert paths(tmp_path) == ["src/nimbus/__init__.py"]


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        ("*.csv\n", ["keep/x.py", "train.py"]),
        ("data/\n", ["big.csv", "keep/x.py", "train.py"]),
        ("/keep\n", ["big.csv", "data/y.csv", "train.py"]),
        ("*.csv\n!big.csv\n", ["big.csv", "keep/x.py", "train.py"]),
        ("# comment\n\n", ["big.csv", "data/y.csv", "keep/x.py", "train.py"]),
    ],
)
def test_the_ignore_file_means_what_it_means_to_git(
    patterns: str, kept: list[str], tmp_path: Path
) -> None:
    write(tmp_path, "big.csv", "data/y.csv", "keep/x.py", "train.py")
    (tmp_path / ".gitignore").write_text(patterns)
    assert [path for path in paths(tmp_path) if path != ".gitignore"] == kept


def test_nimbusignore_goes_before_gitignore_and_brings_back(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "data.csv", "nimbus/__init__.py")
    (tmp_path / ".gitignore").write_text("*.csv\n")
    (tmp_path / ".nimbusignore").write_text("!/nimbus/\n.*ignore\n")
    assert paths(tmp_path) == ["data.csv", "nimbus/__init__.py", "train.py"]


def test_links_inside_are_followed_and_others_left_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "work", tmp_path / "outside"
    write(root, "train.py", "sub/x.py")
    write(outside, "secret")
    (root / "same.py").symlink_to("train.py")
    (root / "out").symlink_to(outside / "secret")
    (root / "outdir").symlink_to(outside)
    (root / "subdir").symlink_to("sub")
    (root / "broken").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    manifest = scan(root)
    assert [file.path for file in manifest.files] == ["same.py", "sub/x.py", "train.py"]
    left_out = ["broken", "loop", "out", "outdir", "pipe", "subdir"]
    assert sorted(manifest.left_out) == left_out


def test_too_much_names_the_largest_files_and_the_remedy(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"f{number}").write_bytes(bytes(1024 * number))
    with pytest.raises(TooLarge) as caught:
        scan(tmp_path, limit_bytes=2048)
    assert caught.value.message == (
        f"the working directory {tmp_path} has 21K, the limit is 2K; the largest files are: "
        "f6 (6K), f5 (5K), f4 (4K), f3 (3K), f2 (2K); name what the job does not need in "
        ".nimbusignore, or choose another directory with --workdir"
    )


def test_too_many_files_name_where_they_are(tmp_path: Path) -> None:
    write(tmp_path, *(f"images/{number}.png" for number in range(6)), "train.py")
    with pytest.raises(TooLarge, match=r"more than 5 files; most are in: images \("):
        scan(tmp_path, limit_files=5)


@pytest.mark.parametrize("name", ["nope", "file"])
def test_a_workdir_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path, "file")
    with pytest.raises(InvalidRequest, match="workdir must be a directory"):
        scan(tmp_path / name)


def test_a_file_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.py")).touch()
    with pytest.raises(InvalidRequest, match="rename the file"):
        scan(tmp_path)


@pytest.mark.parametrize("name", ["with space.py", "\u00fcber/\u4e2d\u6587.py", "a\nb.py", "-x"])
def test_odd_names_are_kept(name: str, tmp_path: Path) -> None:
    write(tmp_path, name)
    assert paths(tmp_path) == [name]


def test_extra_texts_go_before_files(tmp_path: Path) -> None:
    write(tmp_path, "cell.py", "a.py")
    manifest = scan(tmp_path, extra={"cell.py": "print(1)"})
    assert [(f.path, f.digest) for f in manifest.files] == [
        ("a.py", digest("a.py")),
        ("cell.py", digest("print(1)")),
    ]


def test_an_archive_has_each_content_once_under_its_digest(tmp_path: Path) -> None:
    write(tmp_path, "a.py")
    (tmp_path / "same.py").write_text("a.py")
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"x" * 3_000_001)
    manifest = scan(tmp_path, extra={"cell.py": "print(1)"})
    digests = [file.digest for file in manifest.files]
    content = b"".join(tar_chunks(manifest, digests))
    assert len(content) == tar_size(manifest, digests)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = hashlib.sha256(file.read()).hexdigest()
    assert found == {each: each for each in digests}
    assert len(found) == 4


def test_only_what_is_missing_is_uploaded(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "b.py")
    service, progress = FakeService(), list[tuple[int, int]]()
    answer = {"digest": "d" * 64, "missing": [digest("b.py")]}
    service.on("POST", SNAPSHOTS, answer, {**answer, "missing": []})
    service.on("PUT", f"{SNAPSHOTS}/files", httpx.Response(204))
    found = service.client().upload(tmp_path, progress=lambda *at: progress.append(at))
    assert found == "d" * 64
    upload = service.requests[1]
    assert upload.headers["Content-Length"] == "2048"
    assert "Transfer-Encoding" not in upload.headers
    with tarfile.open(fileobj=io.BytesIO(upload.content)) as archive:
        assert archive.getnames() == [digest("b.py")]
    assert progress[-1] == (2048, 2048)


def test_nothing_missing_is_one_request(tmp_path: Path) -> None:
    service = FakeService()
    service.on("POST", SNAPSHOTS, {"digest": "d" * 64, "missing": []})
    assert service.client().upload(scan(tmp_path)) == "d" * 64
    assert len(service.requests) == 1


def test_a_file_that_shrinks_meanwhile_is_named(tmp_path: Path) -> None:
    write(tmp_path, "log.txt")
    manifest = scan(tmp_path)
    (tmp_path / "log.txt").write_text("")
    with pytest.raises(InvalidRequest, match=r"log\.txt became shorter"):
        list(tar_chunks(manifest, [digest("log.txt")]))


def test_a_file_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    write(tmp_path, "a.py")
    service = FakeService()
    service.on("POST", SNAPSHOTS, {"digest": "d" * 64, "missing": [digest("a.py")]})
    service.on("PUT", f"{SNAPSHOTS}/files", httpx.Response(204))
    with pytest.raises(Conflict, match="changed while"):
        service.client().upload(tmp_path)
