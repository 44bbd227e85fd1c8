"""LightGBM trains for real: alone, and with workers that all-reduce."""

from __future__ import annotations

import signal

import pytest

from tests.frameworks.cluster import Cluster, Trained
from tests.frameworks.faults import kill_when, stop_at_start, wait_for_line

ENVIRONMENTS = ("lightgbm",)
LINE = "--framework lightgbm --environment lightgbm --cpus 0.5"


def test_any_number_of_workers_finds_the_very_model_of_one(cluster: Cluster) -> None:
    alone = cluster.train(f"{LINE} lgb_digits.py")
    for workers in (2, 3):
        many = cluster.train(f"{LINE} --workers {workers} lgb_digits.py")
        for name in ("rmse", "sum"):
            assert {many.value(name, f"worker-{rank}") for rank in range(workers)} == {
                alone.value(name)
            }
        assert trees(alone) == trees(many)


def trees(trained: Trained) -> str:
    """Return the trees of a model; what stands before them says what its worker saw of the data."""
    text = (trained.directory / "output" / "model.txt").read_text()
    return text[text.index("Tree=0") : text.index("end of trees")]


def test_a_worker_that_leaves_before_the_others_does_not_hang_them(cluster: Cluster) -> None:
    """Bound: ten seconds of grace, and the time to start and end."""
    trained = cluster.run(f"{LINE} --workers 2 lgb_uneven.py", seconds=40)
    assert trained.job.state == "failed"
    # A close with data unread resets the connection, which LightGBM notices by itself.
    said = trained.output["worker-0"]
    assert "another worker has left" in said or "Socket" in said
    assert cluster.processes(trained.job) == []


def test_a_network_of_the_scripts_own_is_refused(cluster: Cluster) -> None:
    trained = cluster.run(f"{LINE} --workers 2 lgb_alone.py", seconds=40)
    assert trained.job.state == "failed"
    assert "num_machines is set by Nimbus Hub for the workers of this job, got 7" in trained.text


def test_a_killed_worker_ends_the_gang_and_the_next_resumes(cluster: Cluster) -> None:
    """Bound: 60 s for both attempts; LightGBM itself would wait for ever."""
    job = cluster.submit(f"{LINE} --workers 2 --retries 1 --env SLOW=0.2 lgb_digits.py")
    kill_when(cluster, job, "round 3", "worker-1")
    assert cluster.wait(job, 60).state == "succeeded", cluster.text(job)
    assert "resumed=" in cluster.text(job)
    assert cluster.processes(job) == []


def test_a_stopped_worker_is_ended_as_stalled(cluster: Cluster) -> None:
    """Bound: 10 s without a sign of life; 40 s with the start and the end."""
    job = cluster.submit(f"{LINE} --workers 2 --stall 10s --env SLOW=0.2 lgb_digits.py")
    kill_when(cluster, job, "round 3", "worker-1", signal.SIGSTOP)
    job = cluster.wait(job, 40)
    assert job.state == "failed", cluster.text(job)
    assert job.reason.startswith("stalled: ")
    assert cluster.processes(job) == []


@pytest.mark.parametrize("victim", ["worker-0", "worker-1"])
def test_a_worker_that_does_not_come_is_named(cluster: Cluster, victim: str) -> None:
    """Bound: 3 s of the time-out; 40 s with the start and the end."""
    job = cluster.submit(f"{LINE} --workers 2 --option timeout=3 lgb_digits.py")
    stop_at_start(cluster, job, victim)
    job = cluster.wait(job, 40)
    assert job.state == "failed", cluster.text(job)
    assert f"nimbus: {victim} did not come within 3 s" in job.reason
    assert cluster.processes(job) == []


def test_a_training_goes_on_while_the_service_is_away(cluster: Cluster) -> None:
    """Bound: 60 s."""
    job = cluster.submit(f"{LINE} --workers 2 --env SLOW=0.2 lgb_digits.py")
    wait_for_line(cluster, job, "round 3")
    cluster.kill()
    cluster.start()
    assert cluster.wait(job, 60).state == "succeeded", cluster.text(job)
    assert "resumed=" not in cluster.text(job)
    assert cluster.processes(job) == []


def test_an_estimator_is_distributed_too(cluster: Cluster) -> None:
    trained = cluster.train(f"{LINE} --workers 2 lgb_cancer.py", seconds=40)
    assert trained.value("accuracy") > 0.95
