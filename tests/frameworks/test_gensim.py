"""Gensim finds topics for real: in one process, and with workers that serve it."""

from __future__ import annotations

import hashlib
import signal
import subprocess
from pathlib import Path

import pytest

from nimbus_hub.client import Job
from tests.frameworks.cluster import SCRIPTS, Cluster
from tests.frameworks.environments import programs
from tests.frameworks.faults import kill_when, processes_of, stop_at_start, wait_for_line

ENVIRONMENTS = ("gensim",)
LINE = "--framework gensim --environment gensim --cpus 0.5"
SLOW = f"{LINE} --workers 2 --env SLOW=0.2"


def test_workers_find_what_one_process_finds(cluster: Cluster) -> None:
    alone = cluster.train(f"{LINE} gensim_topics.py")
    many = cluster.train(f"{LINE} --workers 2 gensim_topics.py")
    assert many.output["chief-0"].split("singular=")[1].split()[0] in alone.text
    assert (alone.value("pure"), many.value("pure")) == (3, 3)
    # Which worker gets which part is not settled, and with it the order of sums.
    assert many.value("perplexity") == pytest.approx(alone.value("perplexity"), abs=0.02)
    assert (alone.value("workers"), many.value("workers")) == (1, 2)
    assert cluster.processes(many.job) == []


@pytest.mark.parametrize("victim", ["worker-1", "chief-0"])
def test_a_killed_process_ends_the_gang_and_the_next_resumes(cluster: Cluster, victim: str) -> None:
    """Bound: 60 s for both attempts."""
    job = cluster.submit(f"{SLOW} --retries 1 gensim_topics.py")
    kill_when(cluster, job, "pass 1", victim)
    assert cluster.wait(job, 60).state == "succeeded", cluster.text(job)
    assert "resumed=" in cluster.text(job)
    assert cluster.processes(job) == []


@pytest.mark.parametrize("victim", ["dispatcher-0", "nameserver-0"])
def test_a_killed_service_ends_the_gang(cluster: Cluster, victim: str) -> None:
    """Bound: 40 s with the start; 5 s of them after the kill."""
    job = cluster.submit(f"{SLOW} gensim_topics.py")
    kill_when(cluster, job, "pass 0", victim)
    job = cluster.wait(job, 5)
    assert job.state == "failed", cluster.text(job)
    assert job.reason.startswith(f"{victim} on local was ended by signal 9")
    assert cluster.processes(job) == []


@pytest.mark.parametrize("victim", ["worker-1", "dispatcher-0"])
def test_a_stopped_process_is_noticed_after_the_time_out(cluster: Cluster, victim: str) -> None:
    """Bound: 3 s of the time-out; 40 s with the start and the end."""
    job = cluster.submit(f"{SLOW} --option timeout=3 gensim_topics.py")
    kill_when(cluster, job, "pass 0", victim, signal.SIGSTOP)
    job = cluster.wait(job, 40)
    assert job.state == "failed", cluster.text(job)
    assert f"{victim} did not answer for 3 s" in job.reason
    assert cluster.processes(job) == []


def test_a_stopped_script_is_ended_as_stalled(cluster: Cluster) -> None:
    """Bound: 10 s without a sign of life; 40 s with the start and the end."""
    job = cluster.submit(f"{SLOW} --stall 10s gensim_topics.py")
    kill_when(cluster, job, "pass 1", "chief-0", signal.SIGSTOP)
    job = cluster.wait(job, 40)
    assert job.state == "failed", cluster.text(job)
    assert job.reason.startswith("stalled: ")
    assert cluster.processes(job) == []


def test_a_worker_that_does_not_come_is_named(cluster: Cluster) -> None:
    """Bound: 5 s of the time-out; 40 s with the start and the end."""
    job = cluster.submit(f"{SLOW} --option timeout=5 gensim_topics.py")
    stop_at_start(cluster, job, "worker-1")
    job = cluster.wait(job, 40)
    assert job.state == "failed", cluster.text(job)
    assert "nimbus: worker-1 did not come within 5 s" in job.reason
    assert cluster.processes(job) == []


def test_a_worker_that_fails_ends_the_job(cluster: Cluster) -> None:
    """Bound: 40 s; Gensim itself would wait for ever for the piece of work."""
    trained = cluster.run(f"{LINE} --workers 2 gensim_failing.py", seconds=40)
    assert trained.job.state == "failed"
    assert trained.job.reason.startswith("worker-")
    assert "IndexError" in trained.job.reason
    assert cluster.processes(trained.job) == []


def test_a_training_goes_on_while_the_service_is_away(cluster: Cluster) -> None:
    """Bound: 60 s."""
    job = cluster.submit(f"{SLOW} gensim_topics.py")
    wait_for_line(cluster, job, "pass 1")
    cluster.kill()
    cluster.start()
    assert cluster.wait(job, 60).state == "succeeded", cluster.text(job)
    assert "resumed=" not in cluster.text(job)
    assert cluster.processes(job) == []


def test_nobody_without_the_jobs_key_can_run_code_in_it(cluster: Cluster, tmp_path: Path) -> None:
    """Each process that listens is sent a pickle: unsigned, signed otherwise, signed by the job."""
    job = cluster.submit(f"{LINE} --workers 2 --env SLOW=30 gensim_topics.py")
    wait_for_line(cluster, job, "pass 0")
    for name, uri in listeners(cluster, job).items():
        for kind, key in (("without", ""), ("other", "00" * 32)):
            harm = tmp_path / f"{name}-{kind}"
            assert intrude(uri, harm, key) != 0
            assert not harm.exists()
        # That the job's own key opens shows that the others could not.
        harm = tmp_path / f"{name}-own"
        intrude(uri, harm, key_of(cluster, job))
        assert harm.exists()
    cluster.client.stop(job.id)
    assert cluster.wait(job, 30).state == "stopped"


def listeners(cluster: Cluster, job: Job) -> dict[str, str]:
    """Return what can be called in each process that serves, by its name."""
    served = {
        "nameserver-0": "Pyro.NameServer",
        "dispatcher-0": "gensim.lda_dispatcher",
        "worker-0": "gensim.lda_worker.0",
    }
    found = {}
    for name, called in served.items():
        (process,) = processes_of(cluster, job, name)
        (where,) = [each.laddr for each in process.net_connections() if each.status == "LISTEN"]
        assert where.ip == "127.0.0.1"
        found[name] = f"PYRO:{called}@{where.ip}:{where.port}"
    return found


def key_of(cluster: Cluster, job: Job) -> str:
    """Return the key that the job's processes sign with."""
    (process,) = processes_of(cluster, job, "worker-0")
    env = process.environ()
    return hashlib.sha256(f"{env['NIMBUS_TOKEN']} {env['NIMBUS_RUN_ID']}".encode()).hexdigest()


def intrude(uri: str, harm: Path, key: str) -> int:
    """Send a pickle that makes a file, from a process with Pyro of its own."""
    command = [programs("gensim") / "python", SCRIPTS / "gensim_intruder.py", uri, harm, key]
    return subprocess.run(command, check=False, capture_output=True, timeout=20).returncode
