"""The built wheel in a fresh environment: what `pip install "nimbus-hub[hub]"` gives.

Builds and installs, so it takes a minute or two; nothing else shows what a wheel lacks.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimbus_hub import __version__
from nimbus_hub.up.addresses import free_port
from tests.hub.conftest import ROOT, HubProcess, User

pytestmark = [pytest.mark.hub, pytest.mark.timeout(900)]


def _run(*argv: str | Path) -> str:
    ran = subprocess.run(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=Path(argv[0]).parent,
    )
    assert ran.returncode == 0, ran.stdout
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


def test_jupyterlab_finds_the_extension(environment: Path) -> None:
    listed = _run(environment / "jupyter", "labextension", "list")
    assert re.search(rf"nimbus-labextension v{__version__}\b.*enabled.*OK", listed), listed


@pytest.mark.parametrize("command", ["nimbus", "nimbus-hub", "nimbus-run", "nimbus-tensorboard"])
def test_the_commands_start(environment: Path, command: str) -> None:
    assert _run(environment / command, "--help").startswith("Usage: ")


def test_an_installed_hub_starts_a_session(installed: HubProcess) -> None:
    user = User(installed)
    with user.http:
        assert user.log_in().status_code == 200
        assert user.start()[-1]["ready"]
        (lease,) = user.leases("live")
        # The page logs the browser in at the session, whose own server then tells the lease.
        assert user.http.get(f"/user/{user.name}/lab").status_code == 200
        seen = user.http.get(f"/user/{user.name}/nimbus/lease")
        assert (seen.status_code, lease["id"] in seen.text) == (200, True), seen.text
        user.stop()
