"""What is in the sdist and the wheel, built from a clean copy of the source tree.

Runs the build backend as a process of its own, since that is what pip does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
LAB = Path("labextension/nimbus_labextension/labextension")
DATA = "nimbus_hub-{version}.data/data"
PACKAGES = ("nimbus_hub", "nimbus_spawner", "nimbus_labextension")


def tracked() -> list[str]:
    """Return the files that git has, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = (name for name in listed.stdout.split("\0") if name)
    return [name for name in names if (ROOT / name).is_file()]


def build(tree: Path, target: str) -> Path:
    """Return the sdist or wheel that hatchling makes of a tree."""
    dist = tree / "dist"
    argv = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(dist)]
    ran = subprocess.run(argv, cwd=tree, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (made,) = dist.glob({"sdist": "*.tar.gz", "wheel": "*.whl"}[target])
    return made


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the source tree with the lab extension as it is built now."""
    copy = tmp_path_factory.mktemp("source")
    assert (ROOT / LAB / "static/style.js").is_file(), "build the lab extension: make test-wheel"
    shutil.copytree(ROOT / LAB, copy / LAB)
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Path:
    return build(tree, "sdist")


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    return build(tree, "wheel")


def sdist_names(sdist: Path) -> list[str]:
    """Return the files of an sdist, without its own directory."""
    with tarfile.open(sdist) as archive:
        return [name.partition("/")[2] for name in archive.getnames()]


def wheel_names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def data(wheel: Path) -> list[str]:
    """Return what a wheel puts below the environment's own directory."""
    prefix = DATA.format(version=wheel.name.split("-")[1]) + "/"
    return [name.removeprefix(prefix) for name in wheel_names(wheel) if name.startswith(prefix)]


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    shipped = {name for name in tracked() if not name.endswith("/py.typed")}
    expected = {
        f"{package}{name.removeprefix(root)}"
        for package, root in zip(
            PACKAGES,
            ("nimbus_hub", "spawner/nimbus_spawner", "labextension/nimbus_labextension"),
            strict=True,
        )
        for name in shipped
        if name.startswith(f"{root}/")
    }
    assert expected - set(wheel_names(wheel)) == set()


@pytest.mark.parametrize(
    "name",
    [
        "nimbus_hub/store/migrations/env.py",
        "nimbus_hub/store/migrations/script.py.mako",
        "nimbus_hub/store/migrations/versions/0001_first.py",
        "nimbus_hub/replica/forkserver.py",
        "nimbus_hub/replica/supervisor.py",
        "nimbus_hub/replica/warm.py",
        "nimbus_spawner/singleuser.py",
    ],
)
def test_what_is_read_as_a_file_is_in_the_wheel(wheel: Path, name: str) -> None:
    assert name in wheel_names(wheel)


def test_the_templates_are_in_the_wheel(wheel: Path) -> None:
    roots = {str(PurePosixPath(n).parent) for n in wheel_names(wheel) if n.endswith(".html")}
    assert {"nimbus_hub/web/templates", "nimbus_spawner/templates"} <= roots


@pytest.mark.parametrize(
    "name",
    [
        "share/jupyter/labextensions/nimbus-labextension/package.json",
        "share/jupyter/labextensions/nimbus-labextension/install.json",
        "share/jupyter/labextensions/nimbus-labextension/static/style.js",
        "etc/jupyter/jupyter_server_config.d/nimbus_labextension.json",
        "etc/jupyter/labconfig/page_config.d/nimbus.json",
        "etc/ipython/ipython_config.py",
        "share/nimbus-hub/jupyterhub_config.py",
    ],
)
def test_what_jupyter_and_the_hub_look_for_is_in_the_wheel(wheel: Path, name: str) -> None:
    assert name in data(wheel)


def test_the_bundle_of_the_lab_extension_is_in_the_wheel(wheel: Path) -> None:
    entry = "share/jupyter/labextensions/nimbus-labextension/static/remoteEntry."
    assert len([name for name in data(wheel) if name.startswith(entry)]) == 1


def test_the_wheel_has_nothing_else(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in wheel_names(wheel)}
    version = wheel.name.split("-")[1]
    own = {f"nimbus_hub-{version}.dist-info", f"nimbus_hub-{version}.data"}
    assert tops == {*PACKAGES, *own}
    assert [name for name in wheel_names(wheel) if "__pycache__" in name] == []
    assert wheel.stat().st_size < 2 * 2**20


def test_the_commands_of_the_wheel_are_those_of_the_project(wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    with zipfile.ZipFile(wheel) as archive:
        points = archive.read(f"nimbus_hub-{version}.dist-info/entry_points.txt").decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert all(f"{name} = {target}" in points for name, target in project["scripts"].items())


def test_the_sdist_has_no_tool_chain(sdist: Path) -> None:
    names = sdist_names(sdist)
    unwanted = ("node_modules", ".yarn", ".venv", ".nimbus", ".git")
    assert [name for name in names if set(unwanted) & set(name.split("/"))] == []
    assert f"{LAB}/package.json" in names
    assert sdist.stat().st_size < 10 * 2**20


def test_a_wheel_from_the_sdist_is_the_wheel_from_the_tree(
    sdist: Path, wheel: Path, tmp_path: Path
) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    again = build(unpacked, "wheel")
    assert sorted(wheel_names(again)) == sorted(wheel_names(wheel))
