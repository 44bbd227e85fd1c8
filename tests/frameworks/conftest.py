"""A service for each file of tests, with the environments that it names as ENVIRONMENTS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.frameworks.cluster import Cluster, environment


@pytest.fixture(scope="module")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    names = getattr(request.module, "ENVIRONMENTS", ("default",))
    made = Cluster(tmp_path_factory.mktemp("cluster"), {name: environment(name) for name in names})
    made.start()
    yield made
    for job in made.client.jobs(state="live"):
        made.client.stop(job.id)
        made.wait(job, 30)
    made.kill()
