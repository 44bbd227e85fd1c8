"""XGBoost trains for real: alone, and with a tracker and workers that all-reduce."""

from __future__ import annotations

import signal

import pytest

from tests.frameworks.cluster import Cluster
from tests.frameworks.faults import kill_when, stop_at_start, wait_for_line

ENVIRONMENTS = ("xgboost",)
LINE = "--framework xgboost --environment xgboost --cpus 0.5"


def test_any_number_of_workers_finds_the_very_model_of_one(cluster: Cluster) -> None:
    alone = cluster.train(f"{LINE} xgb_digits.py")
    for workers in (2, 3):
        many = cluster.train(f"{LINE} --workers {workers} xgb_digits.py")
        for name in ("rmse", "sum"):
            assert {many.value(name, f"worker-{rank}") for rank in range(workers)} == {
                alone.value(name)
            }
        models = [each.directory / "output" / "model.ubj" for each in (alone, many)]
        assert models[0].read_bytes() == models[1].read_bytes()


def test_an_exception_on_one_worker_ends_the_gang(cluster: Cluster) -> None:
    """Bound: 30 s; what the script registered for its end is run."""
    trained = cluster.run(f"{LINE} --workers 2 xgb_leaving.py 1", seconds=30)
    assert trained.job.state == "failed"
    assert trained.job.reason.startswith("worker-1 ")
    assert "ValueError: no good" in trained.output["worker-1"]
    assert "left=1" in trained.output["worker-1"]
    assert cluster.processes(trained.job) == []


@pytest.mark.parametrize("victim", ["worker-1", "tracker-0"])
def test_a_killed_process_ends_the_gang_and_the_next_resumes(cluster: Cluster, victim: str) -> None:
    """Bound: 60 s for both attempts."""
    job = cluster.submit(f"{LINE} --workers 2 --retries 1 --env SLOW=0.2 xgb_digits.py")
    kill_when(cluster, job, "round 3", victim)
    assert cluster.wait(job, 60).state == "succeeded", cluster.text(job)
    assert "resumed=" in cluster.text(job)
    assert cluster.processes(job) == []


@pytest.mark.parametrize(
    ("victim", "said"),
    [
        ("worker-1", "nimbus: another worker did not answer for 3 s"),
        ("tracker-0", "nimbus: the tracker does not answer"),
    ],
)
def test_a_stopped_process_is_noticed_after_the_time_out(
    cluster: Cluster, victim: str, said: str
) -> None:
    """Bound: two times 3 s of XGBoost's own time-out; 40 s with the training and the end."""
    job = cluster.submit(f"{LINE} --workers 2 --option timeout=3 --env SLOW=0.2 xgb_digits.py")
    kill_when(cluster, job, "round 3", victim, signal.SIGSTOP)
    job = cluster.wait(job, 40)
    assert job.state == "failed", cluster.text(job)
    assert said in job.reason
    assert cluster.processes(job) == []


def test_a_worker_that_does_not_come_ends_the_gang(cluster: Cluster) -> None:
    """Bound: three times 3 s of XGBoost's own time-out; 40 s with the start and the end."""
    job = cluster.submit(f"{LINE} --workers 2 --option timeout=3 xgb_digits.py")
    stop_at_start(cluster, job, "worker-1")
    job = cluster.wait(job, 40)
    assert job.state == "failed", cluster.text(job)
    assert "nimbus: 2 workers were not all there within 3 s" in job.reason
    assert cluster.processes(job) == []


def test_a_training_goes_on_while_the_service_is_away(cluster: Cluster) -> None:
    """Bound: 60 s."""
    job = cluster.submit(f"{LINE} --workers 2 --env SLOW=0.2 xgb_digits.py")
    wait_for_line(cluster, job, "round 3")
    cluster.kill()
    cluster.start()
    assert cluster.wait(job, 60).state == "succeeded", cluster.text(job)
    assert "resumed=" not in cluster.text(job)
    assert cluster.processes(job) == []


def test_the_first_worker_may_leave_long_after_the_others(cluster: Cluster) -> None:
    trained = cluster.train(f"{LINE} --workers 2 --option timeout=2 xgb_late.py", seconds=40)
    assert trained.value("accuracy") > 0.95
    assert cluster.processes(trained.job) == []
