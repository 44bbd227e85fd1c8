"""Which commands may run in a process that is forked, decided before anything runs."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from nimbus_hub.replica import program


@pytest.mark.parametrize(
    ("command", "target"),
    [
        ("python train.py", (False, "train.py", [])),
        ("python -u train.py -u --lr 1", (False, "train.py", ["-u", "--lr", "1"])),
        ("python -u -u -m package.train x", (True, "package.train", ["x"])),
        ("python -m", None),
        ("python", None),
        ("python -", None),
        ("python -c pass", None),
        ("python -O train.py", None),
        ("python -um train", None),
        ("python -X dev train.py", None),
    ],
)
def test_scripts_and_modules_are_told_from_all_else(
    command: str, target: tuple[bool, str, list[str]] | None
) -> None:
    assert program.target_of(command.split()) == target


def test_variables_are_read_at_the_start_or_later() -> None:
    names = ["OMP_NUM_THREADS", "PYTHONHASHSEED", "LD_PRELOAD", "TF_FORCE_GPU_ALLOW_GROWTH", "LANG"]
    later = ["TF_CONFIG", "PYTHONPATH", "RANK", "NCCL_DEBUG", "MASTER_ADDR", "NIMBUS_RANK"]
    assert program.read_at_start(names + later) == names


def test_the_search_path_is_absolute_and_names_each_once() -> None:
    env = {"PYTHONPATH": "src:/lib:./src:"}
    assert program.search_path(env, "/work") == ["/work/src", "/lib", "/work"]
    assert program.search_path({"PYTHONPATH": ""}, "/work") == []
    assert program.search_path({}, "/work") == []


def test_a_program_is_found_as_a_shell_does(tmp_path: Path) -> None:
    for name, mode in (("first", 0o644), ("second", 0o755), ("third", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "python").touch(mode)
    path = ":".join(str(tmp_path / name) for name in ("none", "first", "second", "third"))
    assert program.find_program("python", path) == str(tmp_path / "second" / "python")
    assert program.find_program("/bin/python", path) == "/bin/python"
    assert program.find_program("perl", path) == ""


def test_one_python_has_many_names_in_one_environment(tmp_path: Path) -> None:
    for environment in ("one", "two"):
        folder = tmp_path / environment
        folder.mkdir()
        (folder / "python3.11").touch()
        (folder / "python").symlink_to("python3.11")
        (folder / "other").touch()
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "python").symlink_to(tmp_path / "one" / "python3.11")
    own = str(tmp_path / "one" / "python")
    assert program.is_same_program(str(tmp_path / "one" / "python3.11"), own)
    for other in ("one/other", "two/python", "three/python"):
        assert not program.is_same_program(str(tmp_path / other), own)
    assert not program.is_same_program("", own)


def test_modules_and_packages_are_found_by_name(tmp_path: Path) -> None:
    library = f"b{EXTENSION_SUFFIXES[0]}"
    for name in ("a.py", library, "c.txt", "d/e.py", "f/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert program.module_names(str(tmp_path)) == {"a", "b", "f"}
    assert program.module_names(str(tmp_path / "none")) == set()
