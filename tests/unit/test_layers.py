"""The shape of the house: who imports whom, who may read time and environment, sizes."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "nimbus_hub": ROOT / "nimbus_hub",
    "nimbus_spawner": ROOT / "spawner" / "nimbus_spawner",
    "nimbus_labextension": ROOT / "labextension" / "nimbus_labextension",
}
LONGEST_FILE = 400
LONGEST_FUNCTION = 50

# The environment is read where a process begins: the service's composition root, the client
# in a session, the bring-up of a hub, what runs in a replica or helps it, and the spawner.
READS_ENVIRONMENT = (
    "nimbus_hub.app",
    "nimbus_hub.client.environment",
    "nimbus_hub.distributed",
    "nimbus_hub.up",
    "nimbus_hub.replica",
    "nimbus_spawner",
)
# Replicas import nothing of the rest, so they read time themselves; what becomes the server of a
# session has no event loop before that.
READS_TIME = (
    "nimbus_hub.clock",
    "nimbus_hub.steady_clock",
    "nimbus_hub.replica",
    "nimbus_spawner.ahead",
    "nimbus_spawner.warm",
)
# Run from their files and never imported: alembic's scripts, what a replica starts with.
SCRIPTS = (
    "nimbus_hub.replica.directories",
    "nimbus_hub.replica.forkserver",
    "nimbus_hub.replica.runs",
    "nimbus_hub.replica.spares",
    "nimbus_hub.replica.supervisor",
    "nimbus_hub.replica.warm",
    "nimbus_hub.store.migrations",
)


def modules() -> dict[str, Path]:
    """Return all product modules by name."""
    found = {}
    for package, root in PACKAGES.items():
        for path in sorted(root.rglob("*.py")):
            parts = (package, *path.relative_to(root).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def is_in(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def used(module: ast.Module) -> Iterator[str]:
    """Yield what a module takes from others by dotted name: ``os.environ``, ``time.time``."""
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def exported(name: str) -> list[str] | None:
    """Return what a module's ``__all__`` says, without importing it."""
    for node in tree(name).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [str(value) for value in ast.literal_eval(node.value)]
    return None


def imports_of_ours(name: str) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of everything imported from our own modules by name."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield from ((node.module, alias.name) for alias in node.names)


def test_the_import_contracts_are_kept() -> None:
    # In a process of its own: it disables every logger that there is.
    command = Path(sys.executable).with_name("lint-imports")
    argv = [str(command), "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_environment_is_read_where_a_process_begins() -> None:
    names = {"os.environ", "os.environb", "os.getenv", "os.putenv"}
    found = {name for name in MODULES if names & set(used(tree(name)))}
    assert {name for name in found if not is_in(name, READS_ENVIRONMENT)} == set()


def test_only_the_clock_reads_time() -> None:
    names = {"time", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
    found = {name for name in MODULES if names & set(used(tree(name)))}
    assert {name for name in found if not is_in(name, READS_TIME)} == set()


def test_only_executors_and_the_bring_up_start_processes() -> None:
    may = (
        "nimbus_hub.executors",
        "nimbus_hub.up",
        "nimbus_hub.replica",
        "nimbus_hub.client.tensorboard",
        "nimbus_labextension.script",
        "nimbus_spawner",
    )
    names = {"subprocess", "asyncio.create_subprocess_exec", "os.fork", "os.posix_spawn"}
    found = {name for name in MODULES if names & set(used(tree(name)))}
    assert {name for name in found if not is_in(name, may)} == set()


def test_no_command_is_a_shell_string() -> None:
    names = {"os.system", "os.popen", "asyncio.create_subprocess_shell"}
    assert [name for name in MODULES if names & set(used(tree(name)))] == []
    shells = [
        (name, node.lineno)
        for name in MODULES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.keyword) and node.arg == "shell"
    ]
    assert shells == []


def test_modules_are_split_by_noun() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [name for name in MODULES if vague & set(name.split("."))] == []


@pytest.mark.parametrize("name", [name for name in MODULES if not is_in(name, SCRIPTS)])
def test_the_public_face_names_what_exists(name: str) -> None:
    names = exported(name)
    defined = [
        node.name
        for node in tree(name).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and node.name != "main"
    ]
    if names is None:
        assert defined == [], "public names, but no __all__"
        return
    assert len(names) == len(set(names))
    module = importlib.import_module(name)
    assert [each for each in names if not hasattr(module, each)] == []


def test_modules_import_from_each_other_only_what_is_public() -> None:
    private = [
        f"{name} takes {module}.{taken}"
        for name in MODULES
        for module, taken in imports_of_ours(name)
        if f"{module}.{taken}" not in MODULES
        and (taken.startswith("_") and not taken.startswith("__"))
    ]
    assert private == []


def test_what_modules_share_is_in_the_public_face() -> None:
    missing = {
        f"{module}.{taken}"
        for name in MODULES
        for module, taken in imports_of_ours(name)
        if f"{module}.{taken}" not in MODULES
        and not taken.startswith("__")
        and taken not in (exported(module) or [taken])
    }
    assert missing == set()


def test_files_stay_readable() -> None:
    sizes = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: size for name, size in sizes.items() if size > LONGEST_FILE} == {}


def test_functions_stay_readable() -> None:
    long = [
        f"{name}.{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for name in MODULES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]
    assert long == []
