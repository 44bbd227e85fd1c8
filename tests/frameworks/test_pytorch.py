"""PyTorch trains for real: alone, with DistributedDataParallel, with FSDP, and elastic."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from nimbus_hub.client import Job
from tests.frameworks.cluster import Cluster, Trained
from tests.frameworks.faults import kill_when, processes_of, wait_for_line

LINE = "--framework pytorch --cpus 0.5"
SLOW = "--env SLOW=0.3"


@pytest.fixture(scope="module")
def alone(cluster: Cluster) -> Trained:
    return cluster.train(f"{LINE} torch_digits.py")


def check_model(cluster: Cluster, job: Job, alone: Trained) -> None:
    """Hold that a job is over, and that every worker has the model of one that was alone."""
    text = cluster.text(job)
    assert cluster.wait(job, 1).state == "succeeded", text
    weights = f"accuracy={alone.value('accuracy'):.6f} weights={alone.value('weights'):.9f}"
    assert weights in text
    assert text.count("weights=") == text.count(weights)
    assert cluster.processes(job) == []


@pytest.mark.parametrize("workers", [2, 3])
def test_many_workers_find_the_model_of_one(cluster: Cluster, alone: Trained, workers: int) -> None:
    many = cluster.train(f"{LINE} --workers {workers} torch_digits.py")
    check_model(cluster, many.job, alone)
    assert many.text.count(f"world={workers}") == workers


def test_a_model_split_over_the_workers_is_that_of_one(cluster: Cluster) -> None:
    alone = cluster.train(f"{LINE} torch_fsdp.py")
    many = cluster.train(f"{LINE} --workers 2 torch_fsdp.py")
    for name in ("accuracy", "weights"):
        assert many.value(name, "worker-0") == pytest.approx(alone.value(name), abs=1e-9)
    assert alone.value("held") == sum(many.value("held", f"worker-{rank}") for rank in range(2))


@pytest.mark.parametrize("victim", ["worker-0", "worker-1"])
def test_a_killed_worker_ends_the_gang_and_the_next_resumes(
    cluster: Cluster, alone: Trained, victim: str
) -> None:
    """Bound: 60 s for both attempts."""
    job = cluster.submit(f"{LINE} --workers 2 --retries 1 {SLOW} torch_digits.py")
    kill_when(cluster, job, "round 2", victim)
    assert cluster.wait(job, 60).attempt == 2
    assert "resumed=" in cluster.text(job)
    check_model(cluster, job, alone)


def test_a_stopped_worker_is_noticed_after_the_time_out(cluster: Cluster, alone: Trained) -> None:
    """Bound: 60 s for both attempts, of which 5 are the time-out."""
    line = f"{LINE} --workers 2 --retries 1 {SLOW} --option timeout=5 torch_digits.py"
    job = cluster.submit(line)
    kill_when(cluster, job, "round 2", "worker-1", signal.SIGSTOP)
    assert cluster.wait(job, 60).attempt == 2
    check_model(cluster, job, alone)


def test_a_worker_that_never_joins_ends_the_job(cluster: Cluster) -> None:
    """Bound: 30 s, of which 5 are the time-out."""
    line = f"{LINE} --workers 2 --option timeout=5 --env NEVER_JOINS=1 torch_digits.py"
    trained = cluster.run(line, seconds=30)
    assert trained.job.state == "failed"
    assert trained.job.reason.startswith("worker-0 ")
    assert "1/2 clients joined" in trained.job.reason
    assert cluster.processes(trained.job) == []


def test_workers_train_on_while_the_service_is_killed_and_restarted(
    cluster: Cluster, alone: Trained
) -> None:
    """Bound: 60 s."""
    job = cluster.submit(f"{LINE} --workers 2 {SLOW} torch_digits.py")
    wait_for_line(cluster, job, "round 1")
    cluster.kill()
    cluster.start()
    assert cluster.wait(job, 60).attempt == 1
    assert "resumed=" not in cluster.text(job)
    check_model(cluster, job, alone)


def processes(cluster: Cluster, job: Job, index: int) -> list[psutil.Process]:
    """Return the processes of a worker, its agent first."""
    return sorted(processes_of(cluster, job, f"worker-{index}"), key=psutil.Process.create_time)


def other_processes(
    cluster: Cluster, job: Job, index: int, known: list[psutil.Process]
) -> list[psutil.Process]:
    """Return the processes of a worker once it has others than those; fail after 30 s."""
    end = time.monotonic() + 30
    while not (found := [each for each in processes(cluster, job, index) if each not in known]):
        assert time.monotonic() < end, cluster.text(job)
        time.sleep(0.02)
    return found


def said(cluster: Cluster, job: Job, replica: str, word: str) -> list[str]:
    """Return the lines of a replica that begin with a word, of all attempts."""
    parts = cluster.client.whole_logs(job.id, attempt=0)
    text = "".join(part.text for part in parts if part.replica == replica)
    return [line for line in text.splitlines() if line.startswith(word)]


def test_an_elastic_job_shrinks_and_grows_again(cluster: Cluster, alone: Trained) -> None:
    """Bound: 120 s; agents miss a lost one for 6 s, and wait for another one for 5 s."""
    line = f"{LINE} --workers 2 --option elastic=1 --env SLOW=2 torch_digits.py"
    job = cluster.submit(line)
    wait_for_line(cluster, job, "round 0")
    lost = processes(cluster, job, 1)
    kill_when(cluster, job, "round 0", "worker-1")
    # The one that is started in its place is late.
    late = other_processes(cluster, job, 1, lost)
    for process in late:
        process.suspend()
    wait_for_line(cluster, job, "world=1")
    for process in late:
        process.resume()
    assert cluster.wait(job, 120).attempt == 1
    assert said(cluster, job, "worker-0", "world=") == ["world=2", "world=1", "world=2"]
    assert said(cluster, job, "worker-1", "world=") == ["world=2", "world=2"]
    assert len(said(cluster, job, "worker-0", "resumed=")) == 2
    check_model(cluster, job, alone)


def test_an_elastic_job_starts_what_failed_again_and_all_if_the_first_is_lost(
    cluster: Cluster, alone: Trained
) -> None:
    """Bound: 90 s for both attempts; the first worker's agent keeps the store of all."""
    line = f"{LINE} --workers 2 --retries 1 --option elastic=1 --env SLOW=0.5 torch_digits.py"
    job = cluster.submit(line)
    wait_for_line(cluster, job, "round 0")
    _, trainer = processes(cluster, job, 1)
    trainer.kill()
    wait_for_line(cluster, job, "resumed=")
    assert said(cluster, job, "worker-0", "world=") == ["world=2", "world=2"]
    kill_when(cluster, job, "resumed=", "worker-0")
    assert cluster.wait(job, 90).attempt == 2
    check_model(cluster, job, alone)
