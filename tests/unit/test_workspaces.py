"""Workspaces: a directory is brought up to date, and only what changed is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nimbus_hub.replica import directories

Files = dict[str, str]


class Workspace:
    """A workspace in a directory of the test, and what it asked for each time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.asked: list[list[str]] = []

    def update(self, files: Files | None) -> None:
        asked: list[str] = []

        def fetch(paths: list[str], target: str) -> None:
            assert files is not None
            asked.extend(sorted(paths))
            for path in paths:
                file = Path(target, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(files[path])

        manifest = None
        if files is not None:
            manifest = [(path, text, path.endswith(".sh")) for path, text in files.items()]
        directories.update(str(self.folder), manifest, fetch)
        self.asked.append(asked)

    def found(self) -> Files:
        paths = [path for path in self.work.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.work)): path.read_text() for path in paths}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "nimbus" / "gang")


FILES = {"a.py": "a", "package/b.py": "b", "package/deep/c.py": "c"}


def test_only_what_changed_is_asked_for_and_touched(workspace: Workspace) -> None:
    workspace.update(FILES)
    before = {path: (workspace.work / path).stat() for path in FILES}
    workspace.update({**FILES, "package/b.py": "other", "d.py": "new"})
    workspace.update({**FILES, "package/b.py": "other", "d.py": "new"})
    assert workspace.asked == [sorted(FILES), ["d.py", "package/b.py"], []]
    assert workspace.found() == {**FILES, "package/b.py": "other", "d.py": "new"}
    for path in ("a.py", "package/deep/c.py"):
        assert (workspace.work / path).stat() == before[path]
    assert workspace.folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in workspace.folder.iterdir()) == [".work.json", "work"]


def test_what_left_the_snapshot_goes_and_what_runs_made_stays(workspace: Workspace) -> None:
    workspace.update(FILES)
    (workspace.work / "package" / "made.txt").write_text("by a run")
    (workspace.work / "a.py").write_text("edited there")
    workspace.update({"d.py": "d"})
    # An edit of what is no longer asked for is somebody's work.
    assert workspace.found() == {
        "d.py": "d",
        "package/made.txt": "by a run",
        "a.py": "edited there",
    }
    assert not (workspace.work / "package" / "deep").exists()


def test_what_a_run_changed_is_as_in_the_snapshot_again(workspace: Workspace) -> None:
    workspace.update(FILES)
    (workspace.work / "a.py").write_text("b")
    (workspace.work / "package" / "b.py").unlink()
    workspace.update(FILES)
    assert workspace.asked[1] == ["a.py", "package/b.py"]
    assert workspace.found() == FILES


def test_a_file_that_became_a_program_is_replaced(workspace: Workspace) -> None:
    directories.update(
        str(workspace.folder), [("a", "d", False)], lambda paths, to: put(to, paths, 0o644)
    )
    directories.update(
        str(workspace.folder), [("a", "d", True)], lambda paths, to: put(to, paths, 0o755)
    )
    assert os.access(workspace.work / "a", os.X_OK)


def put(target: str, paths: list[str], mode: int) -> None:
    Path(target).mkdir()
    for path in paths:
        Path(target, path).write_text("content")
        Path(target, path).chmod(mode)


def test_files_and_directories_change_places(workspace: Workspace) -> None:
    workspace.update({"x": "file", "y/z.py": "z"})
    workspace.update({"x/z.py": "z", "y": "file"})
    assert workspace.found() == {"x/z.py": "z", "y": "file"}


def test_links_in_the_way_are_replaced_and_not_followed(
    workspace: Workspace, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "b.py").write_text("theirs")
    workspace.update({"package/b.py": "b", "a.py": "a"})
    (workspace.work / "package" / "b.py").unlink()
    (workspace.work / "package").rmdir()
    (workspace.work / "package").symlink_to(elsewhere)
    (workspace.work / "a.py").unlink()
    (workspace.work / "a.py").symlink_to(elsewhere / "b.py")
    workspace.update({"package/b.py": "b", "a.py": "a"})
    assert workspace.found() == {"package/b.py": "b", "a.py": "a"}
    assert not (workspace.work / "package").is_symlink()
    assert (elsewhere / "b.py").read_text() == "theirs"


def test_a_directory_that_a_run_made_is_put_aside_for_a_file(workspace: Workspace) -> None:
    workspace.update({"a.py": "a"})
    for number in (1, 2):
        (workspace.work / "data").mkdir()
        (workspace.work / "data" / "made").write_text(f"by run {number}")
        workspace.update({"a.py": "a", "data": "file"})
        assert (workspace.work / "data").read_text() == "file"
        workspace.update({"a.py": "a"})
    assert (workspace.work / "data.left" / "made").read_text() == "by run 1"
    assert (workspace.work / "data.left~" / "made").read_text() == "by run 2"


def test_an_edit_has_another_second_than_what_was_compiled(workspace: Workspace) -> None:
    """Python compares seconds and sizes, so otherwise it would run the old code."""
    seconds = []
    for text in ("x = 1", "x = 2", "x = 3"):
        workspace.update({"a.py": text})
        seconds.append(int((workspace.work / "a.py").stat().st_mtime))
    assert seconds == sorted(set(seconds))


@pytest.mark.parametrize("index", ["", "{", '{"a.py": ["digest"', "[]"])
def test_who_knows_nothing_of_the_last_time_asks_for_all(workspace: Workspace, index: str) -> None:
    workspace.update(FILES)
    (workspace.folder / ".work.json").write_text(index)
    (workspace.folder / ".work.partial").mkdir()
    workspace.update(FILES)
    assert workspace.asked[1] == sorted(FILES)
    assert workspace.found() == FILES


def test_without_a_snapshot_nothing_changes(workspace: Workspace) -> None:
    workspace.update(None)
    assert workspace.found() == {}
    workspace.update(FILES)
    workspace.update(None)
    assert workspace.found() == FILES


def test_a_job_has_its_own_directories_and_the_workspaces_files(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.update(FILES)
    job = tmp_path / "nimbus" / "job-1"
    for _ in range(2):
        directories.make(str(job), None, "gang")
    assert sorted(path.name for path in job.iterdir()) == ["checkpoints", "logs", "output", "work"]
    assert (job / "work").readlink() == Path("../gang/work")
    assert (job / "work" / "a.py").read_text() == "a"
