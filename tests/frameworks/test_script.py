"""Plain scripts run for real: alone, many by rank, and in roles as they are named."""

from __future__ import annotations

from tests.frameworks.cluster import Cluster, Trained

LINE = "--cpus 0.5"
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
