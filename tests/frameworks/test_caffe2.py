"""Caffe2 trains for real, in containers of its image: alone, and in shards over Gloo.

What each container runs is what the master says; an executor for containers would do no more.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy
import pytest
from sklearn.datasets import load_digits

import nimbus_hub
from nimbus_hub.executors.commands import ON_PATH
from nimbus_hub.masters.base import Outcome, Verdict
from nimbus_hub.masters.caffe2 import Caffe2Master
from nimbus_hub.masters.environment import contract_environment
from nimbus_hub.model.job import Job, Launch
from nimbus_hub.model.replica import Replica, ReplicaState
from nimbus_hub.model.slot import Slot, SlotGroup
from tests.frameworks.cluster import SCRIPTS
from tests.frameworks.engine import Engine, engine

MASTER = Caffe2Master()
NETWORK = "10.213.77"
PACKAGE = Path(nimbus_hub.__file__).parent
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Attempt:
    """An attempt of a job whose replicas are containers with addresses of their own."""

    engine: Engine
    image: str
    directory: Path
    job: Job
    workers: int
    began: float = field(default_factory=time.monotonic)

    @property
    def slots(self) -> list[Slot]:
        return [
            Slot("worker", rank, "a", f"{NETWORK}.{10 + rank}", 1000, 2**30, (), (20000, 20001))
            for rank in range(self.workers)
        ]

    def name(self, rank: int) -> str:
        return f"nimbus-test-{self.job.id}.{self.job.attempt}.{rank}"

    def start(self, rank: int) -> None:
        """Start the container of a rank as the master says."""
        command = MASTER.command(self.job, self.slots, rank)
        env = {
            **contract_environment(self.job, self.slots, rank, MASTER.services({"worker"}), "", ""),
            **command.env,
            **dict.fromkeys(command.interfaces, "eth0"),
            "PYTHONPATH": f"/opt/{ON_PATH.relative_to(PACKAGE.parent)}",
            "NIMBUS_OUTPUT_DIR": "/job/output",
            "NIMBUS_LOG_DIR": "/job/logs",
            "NIMBUS_CHECKPOINT_DIR": "/job/checkpoints",
        }
        words = ["run", "--detach", "--init", "--user", f"{os.getuid()}:{os.getgid()}"]
        words += ["--name", self.name(rank), "--label", "nimbus-test"]
        words += ["--network", "nimbus-test", "--ip", self.slots[rank].address]
        words += ["--volume", f"{PACKAGE}:/opt/{PACKAGE.name}:ro", "--workdir", "/job/work"]
        words += ["--volume", f"{self.directory}:/job"]
        words += [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
        self.engine.docker(*words, self.image, *command.argv)

    def log(self, rank: int) -> str:
        """Return what a rank has printed."""
        return self.engine.docker("logs", self.name(rank))

    def replica(self, rank: int) -> Replica:
        """Return how a rank stands."""
        told = "{{.State.Running}} {{.State.ExitCode}} {{.State.FinishedAt}}"
        words = self.engine.docker("inspect", "--format", told, self.name(rank)).split()
        found = Replica(self.name(rank), self.job.id, 1, "worker", rank, rank, "a")
        if words[0] == "true":
            return replace(found, state=ReplicaState.RUNNING)
        ended = datetime.fromisoformat(re.sub(r"\.(\d{6})\d*Z", r".\1+00:00", words[2]))
        return replace(found, state=ReplicaState.EXITED, exit_code=int(words[1]), ended_at=ended)

    def end(self, seconds: float) -> Verdict:
        """Return what the attempt came to, once no container is left of it; fail if late."""
        limit = time.monotonic() + seconds
        ranks = [rank for rank in range(self.workers) if self.is_known(rank)]
        while True:
            verdict = MASTER.judge(self.job, [self.replica(rank) for rank in ranks])
            if verdict.outcome is not Outcome.RUNNING:
                break
            assert time.monotonic() < limit, "\n".join(map(self.log, ranks))
            time.sleep(0.05)
        for rank in ranks:
            self.engine.docker("rm", "--force", "--volumes", self.name(rank))
        return verdict

    def is_known(self, rank: int) -> bool:
        return bool(self.engine.docker("ps", "-aq", "--filter", f"name=^{self.name(rank)}$"))


@dataclass
class Jobs:
    """Trains in containers, each job in a directory that all of its containers share."""

    engine: Engine
    image: str
    directory: Path
    number: int = 0

    def begin(
        self, workers: int, missing: int = -1, script: str = "caffe2_digits.py", **env: str
    ) -> Attempt:
        """Start a job, without one of its shards if that is to be missing."""
        self.number += 1
        launch = Launch(
            ("python", script),
            env=env,
            framework=MASTER.name,
            retries=1,
            options={"timeout": "5"},
        )
        MASTER.accept(launch, (SlotGroup("worker", workers),))
        directory = self.directory / str(self.number)
        for kind in ("work", "output", "logs", "checkpoints"):
            (directory / kind).mkdir(parents=True)
        (directory / "work" / script).write_bytes((SCRIPTS / script).read_bytes())
        images, labels = load_digits(return_X_y=True)
        # As many as two and three shards have in equal parts.
        numpy.savez(
            directory / "work" / "digits.npz",
            images=(images[:1794] / 16).astype("float32"),
            labels=labels[:1794].astype("int32"),
        )
        job = Job(f"j-{self.number}", "digits", "ada", "l-1", launch, NOW)
        return self.started(Attempt(self.engine, self.image, directory, job, workers), missing)

    def again(self, attempt: Attempt) -> Attempt:
        """Start the next attempt of a job."""
        job = replace(attempt.job, attempt=attempt.job.attempt + 1)
        return self.started(replace(attempt, job=job, began=time.monotonic()))

    def started(self, attempt: Attempt, missing: int = -1) -> Attempt:
        for rank in range(attempt.workers):
            if rank != missing:
                attempt.start(rank)
        return attempt


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with engine() as running:
        made = Jobs(running, running.image("caffe2"), tmp_path_factory.mktemp("caffe2"))
        running.docker("network", "create", "--subnet", f"{NETWORK}.0/24", "nimbus-test")
        try:
            yield made
        finally:
            left = running.docker("ps", "-aq", "--filter", "label=nimbus-test").split()
            if left:
                running.docker("rm", "--force", *left)
            running.docker("network", "rm", "nimbus-test")
        assert left == []


def wait_for(attempt: Attempt, rank: int, line: str, seconds: float = 60) -> None:
    """Return once a rank has printed a line; fail if it is over without, or late."""
    end = time.monotonic() + seconds
    while True:
        is_over = attempt.replica(rank).state.is_end
        text = attempt.log(rank)
        if line in text:
            return
        assert not is_over, text
        assert time.monotonic() < end, text
        time.sleep(0.05)


def model(directory: Path) -> dict[str, numpy.ndarray]:
    with numpy.load(directory / "output" / "model.npz") as saved:
        return dict(saved)


def check_model(directory: Path, alone: dict[str, numpy.ndarray]) -> None:
    """Hold that a model is that of one shard, but for the rounding of sums in another order."""
    found = model(directory)
    assert found.keys() == alone.keys() == {"weights", "bias"}
    for name in found:
        numpy.testing.assert_allclose(found[name], alone[name], rtol=0, atol=1e-6)


def train(jobs: Jobs, workers: int) -> tuple[Path, set[str]]:
    """Train to the end; return where, and what the shards say they have found."""
    began_at = time.time()
    attempt = jobs.begin(workers)
    for rank in range(workers):
        wait_for(attempt, rank, "accuracy=")
    text = [attempt.log(rank) for rank in range(workers)]
    assert attempt.end(30) == Verdict(Outcome.SUCCEEDED)
    steps = re.findall(r"^first step ([\d.]+)", "\n".join(text), re.MULTILINE)
    first = min(map(float, steps))
    wall = time.monotonic() - attempt.began
    print(f"\ncaffe2, {workers} shards: {wall:.2f} s, first step after {first - began_at:.2f} s")
    return attempt.directory, {re.search("accuracy=.*", each).group() for each in text}


@pytest.fixture(scope="module")
def alone(jobs: Jobs) -> tuple[dict[str, numpy.ndarray], set[str]]:
    directory, found = train(jobs, 1)
    return model(directory), found


@pytest.mark.parametrize("workers", [2, 3])
def test_shards_find_the_model_of_one(
    jobs: Jobs, alone: tuple[dict[str, numpy.ndarray], set[str]], workers: int
) -> None:
    directory, found = train(jobs, workers)
    check_model(directory, alone[0])
    assert found == alone[1]


def test_models_follow_one_another_and_one_that_only_predicts_is_alone(jobs: Jobs) -> None:
    found = []
    for workers in (1, 2):
        attempt = jobs.begin(workers, script="caffe2_twice.py")
        wait_for(attempt, 0, "rate=0.5")
        found.append([line for line in attempt.log(0).splitlines() if line.startswith("rate=")])
        assert attempt.end(30) == Verdict(Outcome.SUCCEEDED)
    assert len(found[0]) == 2
    assert found[0] == found[1]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_shard_ends_the_gang_and_the_next_resumes(
    jobs: Jobs, alone: tuple[dict[str, numpy.ndarray], set[str]], victim: int
) -> None:
    """Bound: 15 s for the end of the others, 30 s for the next attempt."""
    attempt = jobs.begin(2, SLOW="0.2")
    wait_for(attempt, 1 - victim, "round 3")
    jobs.engine.docker("kill", attempt.name(victim))
    wait_for_end(attempt, 1 - victim, 15)
    check_failed(attempt, victim)
    resume(jobs, attempt, alone[0])


def test_a_stopped_shard_is_noticed_by_the_others(
    jobs: Jobs, alone: tuple[dict[str, numpy.ndarray], set[str]]
) -> None:
    """Bound: 20 s, of which 5 are the time-out, and 30 s for the next attempt."""
    attempt = jobs.begin(2, SLOW="0.2")
    wait_for(attempt, 0, "round 3")
    jobs.engine.docker("pause", attempt.name(1))
    wait_for_end(attempt, 0, 20)
    check_failed(attempt, 0)
    resume(jobs, attempt, alone[0])


def test_a_shard_that_never_starts_ends_the_job(jobs: Jobs) -> None:
    """Bound: 20 s, of which 5 are the time-out."""
    attempt = jobs.begin(2, missing=1)
    wait_for_end(attempt, 0, 20)
    check_failed(attempt, 0)


def wait_for_end(attempt: Attempt, rank: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not attempt.replica(rank).state.is_end:
        assert time.monotonic() < end, attempt.log(rank)
        time.sleep(0.05)


def check_failed(attempt: Attempt, culprit: int) -> None:
    code = attempt.replica(culprit).exit_code
    verdict = attempt.end(10)
    assert verdict.outcome is Outcome.FAILED
    assert verdict.culprit is not None
    assert (verdict.culprit.rank, verdict.culprit.exit_code) == (culprit, code)


def resume(jobs: Jobs, attempt: Attempt, alone: dict[str, numpy.ndarray]) -> None:
    again = jobs.again(attempt)
    for rank in range(2):
        wait_for(again, rank, "resumed=")
    assert again.end(30) == Verdict(Outcome.SUCCEEDED)
    check_model(again.directory, alone)
    stores = list((again.directory / "checkpoints" / ".caffe2").iterdir())
    assert [store.name for store in stores] == [f"{again.job.id}-2"]
