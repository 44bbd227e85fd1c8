"""MPI programs run for real, as one rank and as many, without ssh."""

from __future__ import annotations

import signal

import pytest

from tests.frameworks.cluster import Cluster
from tests.frameworks.faults import kill_when, stop_at_start, wait_for_line

ENVIRONMENTS = ("mpi",)
LINE = "--framework mpi --environment mpi --cpus 0.5"
SLOW = f"{LINE} --workers 3 --env SLOW=0.05"


def test_many_ranks_find_what_one_finds(cluster: Cluster) -> None:
    alone = cluster.train(f"{LINE} mpi_line.py")
    many = cluster.train(f"{LINE} --workers 3 mpi_line.py")
    for rank in range(3):
        assert many.value("weight", f"worker-{rank}") == pytest.approx(2, abs=1e-4)
    for name in ("weight", "bias"):
        assert many.value(name) == pytest.approx(alone.value(name), abs=1e-8)
    assert cluster.processes(many.job) == []


def test_any_program_may_be_a_rank(cluster: Cluster) -> None:
    line = f"{LINE} --workers 2 -- sh -c"
    trained = cluster.train([*line.split(), 'echo "I am $PMI_RANK of $NIMBUS_WORLD_SIZE"'])
    assert trained.output["worker-1"] == "I am 1 of 2\n"


def test_an_exception_on_one_rank_ends_the_gang(cluster: Cluster) -> None:
    """Bound: 30 s; the others wait in a collective call that nobody would end."""
    trained = cluster.run(f"{LINE} --workers 3 mpi_failing.py", seconds=30)
    assert trained.job.state == "failed"
    assert trained.job.reason.startswith("worker-1 on local exited with code 1")
    assert "ValueError: no good" in trained.job.reason
    assert cluster.processes(trained.job) == []


@pytest.mark.parametrize("victim", ["worker-1", "mpiexec-0"])
def test_a_killed_process_ends_the_gang_and_the_next_resumes(cluster: Cluster, victim: str) -> None:
    """Bound: 60 s for both attempts."""
    job = cluster.submit(f"{SLOW} --retries 1 mpi_line.py")
    kill_when(cluster, job, "round 9", victim)
    assert cluster.wait(job, 60).state == "succeeded", cluster.text(job)
    assert "resumed=" in cluster.text(job)
    assert cluster.processes(job) == []


@pytest.mark.parametrize("victim", ["worker-1", "mpiexec-0"])
def test_the_process_that_was_killed_is_to_blame(cluster: Cluster, victim: str) -> None:
    """Bound: 5 s after the kill."""
    job = cluster.submit(f"{SLOW} mpi_line.py")
    kill_when(cluster, job, "round 9", victim)
    job = cluster.wait(job, 5)
    assert job.state == "failed", cluster.text(job)
    assert job.reason.startswith(f"{victim} on local was ended by signal 9")
    assert cluster.processes(job) == []


def test_a_stopped_rank_is_ended_as_stalled(cluster: Cluster) -> None:
    """Bound: 10 s without a sign of life; 40 s with the start and the end."""
    job = cluster.submit(f"{SLOW} --stall 10s mpi_line.py")
    kill_when(cluster, job, "round 9", "worker-1", signal.SIGSTOP)
    job = cluster.wait(job, 40)
    assert job.state == "failed", cluster.text(job)
    assert job.reason.startswith("stalled: ")
    assert cluster.processes(job) == []


def test_a_rank_that_does_not_join_is_named(cluster: Cluster) -> None:
    """Bound: 5 s of the time-out; 40 s with the start and the end."""
    job = cluster.submit(f"{SLOW} --option timeout=5 mpi_line.py")
    stop_at_start(cluster, job, "worker-1")
    job = cluster.wait(job, 40)
    assert job.state == "failed", cluster.text(job)
    assert job.reason.startswith("mpiexec-0 ")
    assert "nimbus: worker-1 did not join within 5 s" in job.reason
    assert cluster.processes(job) == []


def test_a_program_goes_on_while_the_service_is_away(cluster: Cluster) -> None:
    """Bound: 60 s."""
    job = cluster.submit(f"{SLOW} mpi_line.py")
    wait_for_line(cluster, job, "round 9")
    cluster.kill()
    cluster.start()
    assert cluster.wait(job, 60).state == "succeeded", cluster.text(job)
    assert "resumed=" not in cluster.text(job)
    assert cluster.processes(job) == []
