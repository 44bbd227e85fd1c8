"""A service for each file of tests, with the environments that it names as ENVIRONMENTS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frameworks.cluster import Cluster, environment


@pytest.fixture(scope="module")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    names = getattr(request.module, "ENVIRONMENTS", ("default",))
    state = tmp_path_factory.mktemp("cluster")
    made = Cluster(state, {name: environment(name) for name in names})
    plugin = getattr(request.module, "PLUGIN", None)
    if plugin is not None:
        made.packages = install(plugin, state / "packages")
    made.start()
    yield made
    for job in made.client.jobs(state="live"):
        made.client.stop(job.id)
        made.wait(job, 30)
    made.kill()


def install(package: Path, target: Path) -> Path:
    """Install a package beside the service's own and return where."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", target, package], check=True
    )
    return target
