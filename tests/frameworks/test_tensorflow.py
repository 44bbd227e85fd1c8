"""TensorFlow trains for real: alone, with workers that all-reduce, and over parameter servers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from nimbus_hub.client import Gang, GangRequest, GroupRequest, Job, JobRequest, scan
from tests.frameworks.cluster import SCRIPTS, Cluster, Trained
from tests.frameworks.faults import kill_when, stop_at_start, wait_for_line

ENVIRONMENTS = ("tensorflow",)
LINE = "--framework tensorflow --environment tensorflow --cpus 0.5"
SERVED = f"{LINE} --workers 1 --ps 1"
SLOW = "--env SLOW=0.5"


@pytest.fixture(scope="module")
def alone(cluster: Cluster) -> Trained:
    return cluster.train(f"{LINE} tf_digits.py")


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
    many = cluster.train(f"{LINE} --workers {workers} tf_digits.py")
    check_model(cluster, many.job, alone)
    assert many.text.count(f"world={workers}") == workers


def test_keras_fits_the_model_of_one_with_a_chief_and_a_worker(cluster: Cluster) -> None:
    alone = cluster.train(f"{LINE} tf_fit.py")
    many = cluster.train(f"{LINE} --chief tf_fit.py")
    for name in ("accuracy", "loss", "weights"):
        assert many.value(name, "chief-0") == pytest.approx(alone.value(name), abs=1e-9)
        assert many.value(name, "worker-0") == many.value(name, "chief-0")
    assert alone.value("accuracy") > 0.9


@pytest.mark.parametrize("script", ["tf_servers.py", "tf_fit.py"])
def test_a_chief_with_servers_trains_as_well_as_one_alone(cluster: Cluster, script: str) -> None:
    """Updates come in any order: within 0.05 of the accuracy."""
    alone = cluster.train(f"{LINE} {script}")
    many = cluster.train(f"{LINE} --workers 2 --ps 2 {script}")
    assert many.value("accuracy") == pytest.approx(alone.value("accuracy"), abs=0.05)
    assert sorted(many.output) == ["chief-0", "ps-0", "ps-1", "worker-0", "worker-1"]
    assert "epochs=6" in many.output["chief-0"]
    assert cluster.processes(many.job) == []


@pytest.fixture
def one_cpu(cluster: Cluster) -> Iterator[None]:
    """Have all processes of jobs share one CPU."""
    cpus = os.sched_getaffinity(0)
    cluster.kill()
    os.sched_setaffinity(0, {min(cpus)})
    cluster.start()
    os.sched_setaffinity(0, cpus)
    yield
    cluster.kill()
    cluster.start()


@pytest.mark.usefixtures("one_cpu")
def test_servers_do_not_wait_for_each_other_for_ever_on_one_cpu(cluster: Cluster) -> None:
    """Bound: 120 s, most of which is the import."""
    trained = cluster.train(f"{LINE} --workers 2 --ps 1 tf_servers.py", seconds=120)
    assert "epochs=6" in trained.output["chief-0"]
    assert cluster.processes(trained.job) == []


def test_an_evaluator_looks_at_checkpoints_and_is_ended_with_the_job(cluster: Cluster) -> None:
    trained = cluster.train(f"{LINE} --evaluator --env UNTIL=evaluated tf_fit.py")
    assert "accuracy: 0." in trained.output["evaluator-0"]
    assert cluster.processes(trained.job) == []


@pytest.mark.parametrize("victim", ["worker-0", "worker-1"])
def test_a_killed_worker_ends_the_gang_and_the_next_resumes(
    cluster: Cluster, alone: Trained, victim: str
) -> None:
    """Bound: 90 s for both attempts."""
    job = cluster.submit(f"{LINE} --workers 2 --retries 1 {SLOW} tf_digits.py")
    kill_when(cluster, job, "round 2", victim)
    assert cluster.wait(job, 90).attempt == 2
    assert "resumed=" in cluster.text(job)
    check_model(cluster, job, alone)


def test_a_stopped_worker_is_noticed_by_its_heartbeat(cluster: Cluster, alone: Trained) -> None:
    """Bound: 120 s for both attempts, of which TensorFlow waits for some 13."""
    job = cluster.submit(f"{LINE} --workers 2 --retries 1 {SLOW} tf_digits.py")
    kill_when(cluster, job, "round 2", "worker-1", signal.SIGSTOP)
    assert cluster.wait(job, 120).attempt == 2
    assert "resumed=" in cluster.text(job)
    check_model(cluster, job, alone)


def test_a_worker_that_never_joins_ends_the_job_and_is_named(cluster: Cluster) -> None:
    """Bound: 60 s, of which 3 are the time-out."""
    line = f"{LINE} --workers 2 --option timeout=3 --env NEVER_JOINS=1 tf_digits.py"
    trained = cluster.run(line, seconds=60)
    assert trained.job.state == "failed"
    assert trained.job.reason.startswith("worker-0 ")
    assert "nimbus: worker-1 at 127.0.0.1:" in trained.job.reason
    assert "did not answer within 3 s" in trained.job.reason
    assert cluster.processes(trained.job) == []


def test_workers_end_at_once_when_asked_to(cluster: Cluster) -> None:
    """Bound: 5 s; left as it is, TensorFlow takes the signal for a notice and goes on."""
    job = cluster.submit(f"{LINE} --workers 2 --env SLOW=60 tf_digits.py")
    wait_for_line(cluster, job, "round 0")
    began = time.monotonic()
    cluster.client.stop(job.id)
    assert cluster.wait(job, 30).state == "stopped"
    assert time.monotonic() - began < 5
    assert cluster.processes(job) == []


def test_workers_train_on_while_the_service_is_killed_and_restarted(
    cluster: Cluster, alone: Trained
) -> None:
    """Bound: 60 s."""
    job = cluster.submit(f"{LINE} --workers 2 {SLOW} tf_digits.py")
    wait_for_line(cluster, job, "round 1")
    cluster.kill()
    cluster.start()
    assert cluster.wait(job, 60).attempt == 1
    assert "resumed=" not in cluster.text(job)
    check_model(cluster, job, alone)


def test_a_killed_worker_of_servers_is_replaced_alone(cluster: Cluster) -> None:
    """Bound: 90 s; it is the only one, so that the chief needs the one in its place."""
    job = cluster.submit(f"{SERVED} {SLOW} tf_servers.py")
    kill_when(cluster, job, "round 2", "worker-0")
    ended = cluster.wait(job, 90)
    text = cluster.text(job)
    assert (ended.state, ended.attempt) == ("succeeded", 1), text
    assert text.count("worker-0 serves") == 2
    assert text.count("ps-0 serves") == 1
    assert "resumed=" not in text
    assert cluster.processes(job) == []


@pytest.mark.parametrize("victim", ["ps-0", "chief-0"])
def test_a_killed_server_or_chief_ends_the_gang_and_the_next_resumes(
    cluster: Cluster, victim: str
) -> None:
    """Bound: 90 s for both attempts."""
    job = cluster.submit(f"{SERVED} --retries 1 {SLOW} tf_servers.py")
    kill_when(cluster, job, "round 2", victim)
    ended = cluster.wait(job, 90)
    assert (ended.state, ended.attempt) == ("succeeded", 2), cluster.text(job)
    assert "resumed=" in cluster.text(job)
    assert cluster.processes(job) == []


def test_a_server_that_never_listens_ends_the_job_and_is_named(cluster: Cluster) -> None:
    """Bound: 60 s, of which 20 are the time-out and 10 the grace of one that stands still."""
    job = cluster.submit(f"{SERVED} --option timeout=20 tf_servers.py")
    stop_at_start(cluster, job, "ps-0")
    ended = cluster.wait(job, 60)
    assert ended.state == "failed"
    assert ended.reason.startswith("chief-0 ")
    assert "nimbus: ps-0 at 127.0.0.1:" in ended.reason
    assert cluster.processes(job) == []


def test_keras_3_says_that_legacy_keras_works(cluster: Cluster) -> None:
    """Bound: 60 s."""
    line = f"{LINE} --workers 2 --env TF_USE_LEGACY_KERAS=0 tf_plain.py"
    trained = cluster.run(line, seconds=60)
    assert trained.job.state == "failed"
    assert "nimbus: this came out of Keras 3." in trained.job.reason
    assert "TF_USE_LEGACY_KERAS=1, the default here" in trained.job.reason


def test_forks_of_an_imported_tensorflow_find_the_model_of_one(
    cluster: Cluster, alone: Trained
) -> None:
    """Bound: 60 s for the import, 30 s for each run and for the end."""
    client, workers = cluster.client, (GroupRequest("worker", 2, "0.5"),)
    gang = client.request_gang(GangRequest("tensorflow", workers, "tensorflow"))
    wait_for_gang(cluster, gang, "ready", 60)
    files = client.upload(scan(SCRIPTS))
    for _ in range(2):
        request = JobRequest(("python", "tf_digits.py"), gang=gang.lease.id, snapshot=files)
        job = client.submit(request)
        cluster.wait(job, 30)
        # What an import says; it does that before, once.
        assert "oneDNN" not in cluster.text(job)
        check_model(cluster, job, alone)
    client.release(gang.lease.id)
    wait_for_gang(cluster, gang, "ended", 30)


def wait_for_gang(cluster: Cluster, gang: Gang, state: str, seconds: float) -> None:
    """Return once a gang is in a state; fail after a time."""
    end = time.monotonic() + seconds
    while gang.state != state:
        assert time.monotonic() < end, gang
        gang = cluster.client.gang(gang.lease.id, after=gang.version, timeout=1)
