"""The helper for training code, within Nimbus Hub and without, on any Python from 3.6."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nimbus_hub
from nimbus_hub import distributed
from nimbus_hub.executors.commands import ON_PATH
from nimbus_hub.replica import progress

PACKAGE = Path(nimbus_hub.__file__).parent
IN_REPLICAS = [
    PACKAGE / "__init__.py",
    PACKAGE / "distributed.py",
    *sorted((PACKAGE / "replica").rglob("*.py")),
]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("NIMBUS_") or name in (*distributed._RANKS, *distributed._SIZES):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    told = {"RANK": "2", "WORLD_SIZE": "3", "ROLE": "chief", "ATTEMPT": "4", "RUN_ID": "j-1-4"}
    for name, value in told.items():
        monkeypatch.setenv(f"NIMBUS_{name}", value)
    for name in ("OUTPUT", "LOG", "CHECKPOINT"):
        monkeypatch.setenv(f"NIMBUS_{name}_DIR", str(tmp_path / name.lower()))
    return tmp_path


def test_without_nimbus_a_script_is_a_world_of_one_with_its_files_at_hand() -> None:
    assert distributed.rank() == 0
    assert distributed.world_size() == 1
    assert distributed.role() == "worker"
    assert distributed.is_first()
    assert distributed.attempt() == 1
    assert distributed.run_id() == f"alone-{os.getpid()}"
    assert distributed.shard("abc") == ["a", "b", "c"]
    assert distributed.checkpoint_path("model.pt") == Path("nimbus/checkpoints/model.pt")
    assert distributed.output_path("a/b.txt") == Path("nimbus/output/a/b.txt")
    assert distributed.log_dir() == Path("nimbus/logs")
    made = ["nimbus/checkpoints", "nimbus/output/a", "nimbus/logs"]
    assert all(Path(path).is_dir() for path in made)
    assert not distributed.report(0.5, "half")


@pytest.mark.parametrize(
    ("rank", "size"),
    [
        ("RANK", "WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ],
)
def test_without_nimbus_what_another_launcher_says_holds(
    monkeypatch: pytest.MonkeyPatch, rank: str, size: str
) -> None:
    monkeypatch.setenv(rank, "1")
    monkeypatch.setenv(size, "3")
    assert (distributed.rank(), distributed.world_size()) == (1, 3)
    monkeypatch.setenv("NIMBUS_RANK", "0")
    monkeypatch.setenv("NIMBUS_WORLD_SIZE", "1")
    assert (distributed.rank(), distributed.world_size()) == (0, 1)


def test_a_worker_is_told_its_part_and_its_places(worker: Path) -> None:
    assert (distributed.rank(), distributed.world_size()) == (2, 3)
    assert distributed.role() == "chief"
    assert not distributed.is_first()
    assert (distributed.attempt(), distributed.run_id()) == (4, "j-1-4")
    assert distributed.checkpoint_path("model.pt") == worker / "checkpoint" / "model.pt"
    assert distributed.output_path() == worker / "output"
    assert distributed.log_dir("worker-2") == worker / "log" / "worker-2"
    assert distributed.shard(f"{number}.csv" for number in range(8)) == ["2.csv", "5.csv"]


@given(items=st.lists(st.integers()), world=st.integers(1, 20))
def test_every_item_is_in_exactly_one_shard_and_all_are_of_like_size(
    items: list[int], world: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIMBUS_WORLD_SIZE", str(world))
        shards = []
        for rank in range(world):
            patch.setenv("NIMBUS_RANK", str(rank))
            shards.append(distributed.shard(items))
    assert sorted(item for shard in shards for item in shard) == sorted(items)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_progress_is_reported_by_one_function() -> None:
    assert distributed.report is progress.report


@pytest.mark.parametrize("path", IN_REPLICAS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_replicas_import_is_python_3_6(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 6))


@pytest.mark.parametrize("path", [ON_PATH, PACKAGE.parent], ids=["replica", "installed"])
def test_it_is_importable_with_the_standard_library_alone(path: Path) -> None:
    """In a process of its own: this one has everything imported already."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
        "from nimbus_hub.distributed import rank\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(rank(), sorted(new - set(sys.stdlib_module_names)))"
    )
    command = [sys.executable, "-I", "-S", "-c", program, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout == "0 ['nimbus_hub']\n"
