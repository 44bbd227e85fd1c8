"""Every framework trains in containers, each with an address of its own on the engine's bridge.

What is in the environments of the frameworks' other tests is mounted into a plain image: it was
made for the same Debian, and images of gigabytes would test nothing more.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
from sklearn.datasets import load_digits

from nimbus_hub.model.engine import Engine
from tests.frameworks.cluster import SCRIPTS, Cluster, Trained
from tests.frameworks.engine import Engine as RunningEngine
from tests.frameworks.environments import programs
from tests.frameworks.faults import kill_when, wait_for_line

# What was not made ahead is made for the first of them.
pytestmark = pytest.mark.timeout(900)

ENVIRONMENTS = ("tensorflow", "xgboost", "lightgbm", "gensim", "mpi")
DOCKERFILE = """
FROM {base}
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1
ENV PATH={programs}:/usr/bin:/bin
"""


def built(running: RunningEngine, name: str, base: str, directory: Path) -> str:
    """Return an image that has the programs of a directory first on its path."""
    tag = f"nimbus-test/{name}:mounted"
    subprocess.run(
        running.command("build", "-q", "-t", tag, "-"),
        input=DOCKERFILE.format(base=base, programs=directory).encode(),
        env={"DOCKER_BUILDKIT": "0", "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return tag


@pytest.fixture(scope="module")
def cluster(
    running: RunningEngine,
    engine: Engine,
    python_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    directories = {name: programs(name) for name in ENVIRONMENTS}
    directories["default"] = Path(sys.prefix) / "bin"
    images = {
        name: built(running, name, python_image, directory)
        for name, directory in directories.items()
    }
    images["caffe2"] = running.image("caffe2")
    needed = {str(directory.parent) for directory in directories.values()}
    if sys.base_prefix != "/usr":
        needed.add(sys.base_prefix)
    mounts = [{"source": path, "target": path} for path in sorted(needed)]
    made = Cluster(
        tmp_path_factory.mktemp("cluster"),
        images,
        endpoint=engine.endpoint,
        # The interpreter may be in root's home.
        containers={"user": "0:0", "mounts": mounts},
    )
    made.start()
    yield made
    made.end()


def both(cluster: Cluster, framework: str, script: str, environment: str = "") -> list[Trained]:
    """Train alone, and with two workers."""
    line = f"--framework {framework} --environment {environment or framework} --cpus 0.5"
    return [cluster.train(f"{line} {how} {script}") for how in ("", "--workers 2")]


def test_pytorch(cluster: Cluster) -> None:
    alone, many = both(cluster, "pytorch", "torch_digits.py", "default")
    assert many.value("weights") == alone.value("weights")
    assert cluster.processes(many.job) == []


def test_tensorflow(cluster: Cluster) -> None:
    alone, many = both(cluster, "tensorflow", "tf_digits.py")
    assert many.value("weights") == pytest.approx(alone.value("weights"), abs=1e-6)
    assert cluster.processes(many.job) == []


def test_xgboost(cluster: Cluster) -> None:
    alone, many = both(cluster, "xgboost", "xgb_digits.py")
    for name in ("rmse", "sum"):
        assert many.value(name) == alone.value(name)
    models = [cluster.client.read_file(each.job.id, "model.ubj") for each in (alone, many)]
    assert models[0] == models[1]
    assert cluster.processes(many.job) == []


def test_lightgbm(cluster: Cluster) -> None:
    alone, many = both(cluster, "lightgbm", "lgb_digits.py")
    for name in ("rmse", "sum"):
        assert many.value(name) == alone.value(name)
    assert cluster.processes(many.job) == []


def test_gensim(cluster: Cluster) -> None:
    alone, many = both(cluster, "gensim", "gensim_topics.py")
    assert many.output["chief-0"].split("singular=")[1].split()[0] in alone.text
    assert (alone.value("pure"), many.value("pure")) == (3, 3)
    assert cluster.processes(many.job) == []


def test_mpi(cluster: Cluster) -> None:
    alone, many = both(cluster, "mpi", "mpi_line.py")
    for name in ("weight", "bias"):
        assert many.value(name) == pytest.approx(alone.value(name), abs=1e-8)
    assert cluster.processes(many.job) == []


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with Caffe2's script and its data."""
    directory = tmp_path_factory.mktemp("digits")
    (directory / "caffe2_digits.py").write_bytes((SCRIPTS / "caffe2_digits.py").read_bytes())
    images, labels = load_digits(return_X_y=True)
    numpy.savez(
        directory / "digits.npz",
        images=(images[:1794] / 16).astype("float32"),
        labels=labels[:1794].astype("int32"),
    )
    return directory


CAFFE2 = "--framework caffe2 --environment caffe2 --cpus 0.5"


def test_caffe2(cluster: Cluster, digits: Path) -> None:
    alone = cluster.train(f"{CAFFE2} caffe2_digits.py", digits)
    many = cluster.train(f"{CAFFE2} --workers 2 caffe2_digits.py", digits)
    for name in ("accuracy", "sum"):
        assert many.value(name) == pytest.approx(alone.value(name), abs=1e-3)
    assert cluster.processes(many.job) == []


def test_containers_train_on_while_the_service_is_killed_and_restarted(
    cluster: Cluster, digits: Path
) -> None:
    """Bound: 60 s."""
    job = cluster.submit(f"{CAFFE2} --workers 2 --env SLOW=0.2 caffe2_digits.py", digits)
    wait_for_line(cluster, job, "round 3")
    cluster.kill()
    cluster.start()
    ended = cluster.wait(job, 60)
    text = cluster.text(job)
    assert (ended.state, ended.attempt) == ("succeeded", 1), text
    assert "resumed=" not in text
    assert text.count("accuracy=") == 2
    assert cluster.processes(job) == []


def test_a_killed_shard_ends_the_gang_and_the_next_resumes(cluster: Cluster, digits: Path) -> None:
    """Bound: 60 s for both attempts."""
    line = f"{CAFFE2} --workers 2 --retries 1 --env SLOW=0.2 caffe2_digits.py"
    job = cluster.submit(line, digits)
    kill_when(cluster, job, "round 3", "worker-1")
    ended = cluster.wait(job, 60)
    assert (ended.state, ended.attempt) == ("succeeded", 2), cluster.text(job)
    assert "resumed=" in cluster.text(job)
    assert cluster.processes(job) == []
