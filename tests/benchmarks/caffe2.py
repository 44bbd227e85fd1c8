"""Caffe2 from submission to the first step, in containers, beside ``docker run`` by hand.

``python -m tests.benchmarks.caffe2``; it needs a Docker engine, which it starts with CI=true. By
hand the containers get what `nimbus_hub.masters.caffe2` says, as in the framework's own tests.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

import click
import numpy
from sklearn.datasets import load_digits

from tests.benchmarks.figures import Comparison, Series, as_table
from tests.frameworks.cluster import SCRIPTS, Cluster
from tests.frameworks.engine import engine
from tests.frameworks.test_caffe2 import NETWORK, Jobs, wait_for

_RATIO, _MORE_SECONDS = 1.3, 0.3
_SCRIPT = "caffe2_digits.py"
_FIRST_STEP = re.compile(r"^first step ([\d.]+)", re.MULTILINE)


def by_hand(jobs: Jobs, workers: int) -> float:
    """Start the shards with ``docker run``; return the seconds until the first step."""
    began_at = time.time()
    attempt = jobs.begin(workers)
    for rank in range(workers):
        wait_for(attempt, rank, "accuracy=")
    first = min(float(_FIRST_STEP.findall(attempt.log(rank))[0]) for rank in range(workers))
    attempt.end(30)
    return first - began_at


def as_job(cluster: Cluster, files: Path, workers: int) -> float:
    """Submit the same; return the seconds until the first step."""
    line = f"--framework caffe2 --environment caffe2 --cpus 1 --workers {workers} {_SCRIPT}"
    trained = cluster.run(line, files)
    if trained.job.state != "succeeded" or trained.first_step_seconds is None:
        raise click.ClickException(f"{trained.job.reason}\n{trained.text}")
    return trained.first_step_seconds


def compare(cluster: Cluster, jobs: Jobs, files: Path, workers: int, rounds: int) -> Comparison:
    """Run both ways in turn, after a round that only warms up."""
    ours, theirs = list[float](), list[float]()
    for _ in range(rounds + 1):
        ours.append(as_job(cluster, files, workers))
        theirs.append(by_hand(jobs, workers))
        click.echo(f"{workers}: {ours[-1]:.2f} s, by hand {theirs[-1]:.2f} s", err=True)
    hand = Series("docker run", tuple(theirs[1:]))
    goal = max(_RATIO, 1 + _MORE_SECONDS / hand.median)
    return Comparison(f"caffe2, {workers} shards", Series("a job", tuple(ours[1:])), hand, goal)


def write_files(directory: Path) -> Path:
    """Return a directory with the script and its data."""
    directory.mkdir()
    (directory / _SCRIPT).write_bytes((SCRIPTS / _SCRIPT).read_bytes())
    images, labels = load_digits(return_X_y=True)
    numpy.savez(
        directory / "digits.npz",
        images=(images[:1794] / 16).astype("float32"),
        labels=labels[:1794].astype("int32"),
    )
    return directory


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 20))
def main(rounds: int) -> None:
    """Measure the time to the first step in one shard and in two."""
    with engine() as running, tempfile.TemporaryDirectory(prefix="nimbus-bench-") as name:
        directory = Path(name)
        endpoint = running.address or os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        running.docker("network", "create", "--subnet", f"{NETWORK}.0/24", "nimbus-test")
        image = running.image("caffe2")
        cluster = Cluster(directory, {"caffe2": image}, endpoint=endpoint)
        cluster.start()
        files, jobs = write_files(directory / "files"), Jobs(running, image, directory / "by-hand")
        try:
            found = [compare(cluster, jobs, files, workers, rounds) for workers in (1, 2)]
        finally:
            cluster.kill()
            running.docker("network", "rm", "nimbus-test")
    click.echo(as_table(found, []))
    if not all(one.is_met for one in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
