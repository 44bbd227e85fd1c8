"""What a user's container cannot do to another's, to its host and to the service: docs/security.md.

Sessions are tried in test_warm_sessions.py, where there is one that waits for somebody else.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimbus_hub.client import Client, JobRequest, scan
from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.docker.policy import read_policy
from nimbus_hub.model.engine import Engine
from tests.docker.cluster import wait_for
from tests.frameworks.cluster import Cluster
from tests.frameworks.engine import Engine as RunningEngine

SCRIPTS = Path(__file__).parent / "scripts"
VICTIM = """
import socket, time
own = socket.create_server(("0.0.0.0", 0))
print("port", own.getsockname()[1], flush=True)
time.sleep(120)
"""


class OpenCluster(Cluster):
    """A service that listens where containers reach it."""

    address = ""

    def command(self) -> list[str]:
        """Return the command line of the service."""
        (self.state / "cluster.yaml").write_text(
            f"engines:\n  - {{host: h1, endpoint: '{self.endpoint}'}}\n"
        )
        settings = {
            "state_dir": str(self.state),
            "cluster_file": str(self.state / "cluster.yaml"),
            "environments": {name: {"image": tag} for name, tag in self.environments.items()},
        }
        told = {"port": self.port, "settings": settings, "address": self.address}
        return [sys.executable, "-m", "tests.docker.serve", json.dumps(told)]


@pytest.fixture(scope="module")
def cluster(
    running: RunningEngine,
    engine: Engine,
    python_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    gateway = running.docker(
        "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"
    )
    made = OpenCluster(
        tmp_path_factory.mktemp("open"), {"default": python_image}, endpoint=engine.endpoint
    )
    made.address = gateway
    made.start()
    yield made
    made.end()


@pytest.fixture
def victim(cluster: Cluster) -> Iterator[dict[str, object]]:
    """Another user's job, which listens for whoever comes, and where."""
    with Client(cluster.client.url, "bob-token") as bob:
        job = bob.submit(JobRequest(("python", "-c", VICTIM)))

        def port() -> int:
            text = "".join(part.text for part in bob.whole_logs(job.id))
            return int(text.split()[1]) if text else 0

        wait_for(lambda: port() > 0, 30, "the victim listens")
        (slot,) = bob.lease(job.lease_id).slots
        yield {"job": job.id, "address": slot.address, "port": port()}
        bob.stop(job.id)
        while not bob.job(job.id).is_ended:
            time.sleep(0.05)


def test_a_job_reaches_nothing_of_others_nor_of_its_host(
    cluster: Cluster, victim: dict[str, object]
) -> None:
    digest = cluster.client.upload(scan(SCRIPTS))
    request = JobRequest(("python", "intruder.py", json.dumps(victim)), snapshot=digest)
    ended = cluster.wait(cluster.client.submit(request), 60)
    text = "".join(part.text for part in cluster.client.whole_logs(ended.id))
    assert ended.state == "succeeded", text
    found = json.loads(text)
    assert found.pop("own job") == 200
    assert {int(each, 16) for each in found.pop("rights")} == {0}
    assert found.pop("interfaces") == ["eth0", "lo"]
    assert set(found.pop("processes")) <= {"docker-init", "tini", "python", "python3"}
    devices = set(found.pop("devices"))
    assert devices <= {
        *("core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr"),
        *("stdin", "stdout", "tty", "urandom", "zero", "console"),
    }
    assert found == {
        "other": False,
        "engine's sockets": [],
        "engine over TCP": [],
        "other's job": 404,
        "other's logs": 404,
        "guessed token": 401,
        "operator's": 403,
        "mounting": True,
        "a device of one's own": True,
        "the kernel's settings": True,
        "becoming root": True,
        "root": False,
    }


def test_no_request_names_a_mount_and_no_setting_the_engines_socket(cluster: Cluster) -> None:
    body = {"argv": ["true"], "mounts": [{"source": "/", "target": "/host"}]}
    with pytest.raises(InvalidRequest, match="mounts"):
        cluster.client.transport.request("POST", "/api/v1/jobs", body=body)
    with pytest.raises(InvalidRequest, match="socket"):
        read_policy({"mounts": [{"source": "/var/run/docker.sock", "target": "/d"}]})
