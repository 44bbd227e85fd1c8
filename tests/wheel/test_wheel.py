"""The built wheel in a fresh environment: what `pip install "nimbus-hub[hub]"` gives.

Builds and installs, so it takes a minute or two; nothing else shows what a wheel lacks.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.conftest import ROOT, HubProcess, User, free_port

pytestmark = [pytest.mark.hub, pytest.mark.timeout(900)]


def _run(*argv: str | Path) -> str:
    ran = subprocess.run(
        argv, capture_output=True, text=True, check=False, cwd=Path(argv[0]).parent
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel in it."""
    directory = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", directory / "dist", ROOT)
    _run(sys.executable, "-m", "venv", directory / "venv")
    (wheel,) = (directory / "dist").glob("nimbus_hub-*.whl")
    _run(directory / "venv/bin/python", "-m", "pip", "install", "--quiet", f"{wheel}[hub]")
    return directory / "venv/bin"


@pytest.fixture(scope="module")
def installed(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub started from the wheel."""
    hub = HubProcess(
        tmp_path_factory.mktemp("installed"),
        free_port(),
        python=str(environment / "python"),
        env={"PYTHONPATH": "", "VIRTUAL_ENV": str(environment.parent)},
    )
    hub.home.mkdir()
    try:
        hub.start()
        yield hub
    finally:
        hub.stop_all()


def test_the_lab_extension_and_the_configurations_are_in_the_wheel(environment: Path) -> None:
    prefix = environment.parent
    for name in (
        "share/jupyter/labextensions/nimbus-labextension/package.json",
        "share/nimbus-hub/jupyterhub_config.py",
        "etc/ipython/ipython_config.py",
    ):
        assert (prefix / name).is_file(), name


def test_an_installed_hub_starts_a_session(installed: HubProcess) -> None:
    user = User(installed)
    with user.http:
        assert user.log_in().status_code == 200
        assert user.start()[-1]["ready"]
        assert len(user.leases("live")) == 1
        user.stop()
