"""Plain scripts run for real: alone, many by rank, and in roles as they are named."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from nimbus_hub.client import Job
from tests.frameworks.cluster import Cluster, Trained
from tests.frameworks.faults import kill_when, wait_for_line

LINE = "--cpus 0.5"
ROUNDS = f"{LINE} --workers 2 --retries 1 --env SLOW=0.3"
TOTAL = sum(number * number for number in range(1000))


def parts(trained: Trained) -> list[int]:
    output = trained.directory / "output"
    return [int(path.read_text()) for path in sorted(output.glob("part-*.txt"))]


def test_many_workers_share_the_work_of_one(cluster: Cluster) -> None:
    alone = cluster.train(f"{LINE} script_serving.py")
    many = cluster.train(f"{LINE} --workers 4 script_serving.py")
    assert parts(alone) == [TOTAL]
    assert len(parts(many)) == 4
    assert sum(parts(many)) == TOTAL


def test_roles_that_never_exit_are_ended_when_the_others_are_done(cluster: Cluster) -> None:
    """Bound: 30 s."""
    line = f"{LINE} --chief --workers 2 --ps 2 --evaluator script_serving.py"
    trained = cluster.run(line, seconds=30)
    assert trained.job.state == "succeeded", trained.text
    assert sum(parts(trained)) == TOTAL
    assert len(parts(trained)) == 3
    assert {name for name in trained.output if "serves" in trained.output[name]} == {
        "ps-0",
        "ps-1",
        "evaluator-0",
    }
    assert cluster.processes(trained.job) == []


def test_a_failed_worker_ends_those_that_serve_it(cluster: Cluster) -> None:
    """Bound: 30 s."""
    line = f"{LINE} --workers 2 --ps 1 --env FAILS=1 script_serving.py"
    trained = cluster.run(line, seconds=30)
    assert trained.job.state == "failed"
    assert trained.job.reason.startswith("worker-1 ")
    assert "ValueError: no good" in trained.job.reason
    assert cluster.processes(trained.job) == []


def test_a_service_that_is_lost_ends_the_gang(cluster: Cluster) -> None:
    """Bound: 30 s."""
    words = "if [ $NIMBUS_ROLE = ps ]; then exit 3; fi; sleep 600"
    line = [*f"{LINE} --workers 1 --ps 1 -- sh -c".split(), words]
    trained = cluster.run(line, seconds=30)
    assert trained.job.state == "failed"
    assert trained.job.reason.startswith("ps-0 ")
    assert cluster.processes(trained.job) == []


def check_rounds(cluster: Cluster, job: Job) -> None:
    """Hold that a job has added all up, and that nothing of it is left."""
    assert job.state == "succeeded", cluster.text(job)
    assert job.output_dir is not None
    parts = [int(path.read_text()) for path in Path(job.output_dir).glob("part-*.txt")]
    assert (len(parts), sum(parts)) == (2, sum(range(600)))
    assert cluster.processes(job) == []


@pytest.mark.parametrize(
    ("number", "option"), [(signal.SIGKILL, ""), (signal.SIGSTOP, "--stall 4s")]
)
def test_a_killed_or_stopped_worker_ends_the_gang_and_the_next_resumes(
    cluster: Cluster, number: int, option: str
) -> None:
    """Bound: 60 s for both attempts; of what stands still nothing is heard for 4 s."""
    job = cluster.submit(f"{ROUNDS} {option} script_rounds.py")
    kill_when(cluster, job, "round 2", "worker-1", number)
    ended = cluster.wait(job, 60)
    assert ended.attempt == 2
    assert "resumed=" in cluster.text(job)
    check_rounds(cluster, ended)


def test_workers_go_on_while_the_service_is_killed_and_restarted(cluster: Cluster) -> None:
    """Bound: 30 s."""
    job = cluster.submit(f"{ROUNDS} script_rounds.py")
    wait_for_line(cluster, job, "round 1")
    cluster.kill()
    cluster.start()
    ended = cluster.wait(job, 30)
    assert ended.attempt == 1
    assert "resumed=" not in cluster.text(job)
    check_rounds(cluster, ended)
