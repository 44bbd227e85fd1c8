"""Which commands may run in a process that is forked, decided before anything runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from nimbus_hub.control.settings import Settings
from nimbus_hub.control.specs import attempt_replicas, replica_spec
from nimbus_hub.masters.registry import masters
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.lease import Lease, LeaseKind
from nimbus_hub.model.slot import Slot, SlotGroup
from nimbus_hub.replica import program

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


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
    later = [
        "TF_CONFIG",
        "PYTHONPATH",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        "RANK",
        "NCCL_DEBUG",
        "MASTER_ADDR",
        "NIMBUS_RANK",
    ]
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


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("name", masters())
def test_what_every_framework_sets_is_set_in_its_warm_replicas_too(name: str, gpus: int) -> None:
    """Else none of its runs could begin in a process that is forked."""
    master = masters()[name]
    launch = Launch(("python", "train.py"), name)
    wanted = master.accept(launch, (SlotGroup("worker", 2, gpus=gpus),))
    slots = tuple(
        Slot(group.role, index, "a", "10.0.0.1", 1000, 2**30, (0,) * gpus, (1, 2, 3, 4))
        for group in wanted
        for index in range(group.count)
    )
    lease = Lease("l", LeaseKind.DEBUG, "ada", "", wanted, timedelta(hours=1), NOW, slots=slots)
    settings = Settings("http://hub/nimbus", b"secret")
    holder = Job("h", "debug", "ada", "l", launch, NOW, is_holder=True)
    run = Job("r", "train", "ada", "l", launch, NOW)
    for replica in attempt_replicas(run, lease):
        warm = replica_spec(holder, lease, replica, master, settings).env
        env = replica_spec(run, lease, replica, master, settings, holder).env
        names = program.read_at_start({**warm, **env})
        assert {each: env.get(each) for each in names} == {each: warm.get(each) for each in names}
