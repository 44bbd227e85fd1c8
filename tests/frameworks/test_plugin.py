"""A ninth framework: the package of the tutorial, installed beside the service, trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.cluster import Cluster

ENVIRONMENTS = ("jax",)
PLUGIN = Path(__file__).parent / "plugin"
TUTORIAL = Path(__file__).parents[2] / "docs" / "frameworks" / "another.md"


def test_a_framework_of_another_package_trains_alone_and_distributed(cluster: Cluster) -> None:
    line = "--framework jax --environment jax {} jax_line.py"
    alone, many = cluster.train(line.format("")), cluster.train(line.format("--workers 3"))
    for name in ("weight", "bias"):
        assert many.value(name) == pytest.approx(alone.value(name), abs=1e-5)
    assert [f"worker-{rank}" for rank in range(3)] == sorted(many.output)


def test_what_it_cannot_run_is_refused_in_its_own_words(cluster: Cluster) -> None:
    with pytest.raises(Exception, match="JAX runs workers only, got 'ps'; use --workers"):
        cluster.submit("--framework jax --environment jax --ps 1 jax_line.py")


def test_it_is_what_the_tutorial_shows_and_short() -> None:
    master = (PLUGIN / "nimbus_jax.py").read_text()
    package = (PLUGIN / "pyproject.toml").read_text()
    tutorial = TUTORIAL.read_text()
    assert f"```python\n{master}```" in tutorial
    assert f"```toml\n{package}```" in tutorial
    assert len((master + package).splitlines()) < 60
