"""Sessions in containers: a real hub, a real engine, and a wire between them that can be cut.

These tests start a hub and wait for it: that its parts, the engine and the service agree on
what has ended is what they check.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from nimbus_hub.model.engine import Engine
from nimbus_hub.up.addresses import free_port
from tests.docker.forwarder import Wire
from tests.docker.sessions import answers, ended, failure, started
from tests.frameworks.engine import Engine as RunningEngine
from tests.hub.conftest import (
    ROOT,
    HubProcess,
    User,
    proxy_cache,
    running_hub,
    user,
    wait_for,
)

__all__ = ["proxy_cache", "user"]

pytestmark = [pytest.mark.hub, pytest.mark.timeout(600)]

CLUSTER = """\
hosts:
  - {name: node-1, cpus: 4, memory: 4G}
"""
# The image is Python alone; what a session needs is this project's, as it is installed here.
CONFIGURATION = """\
c = get_config()
c.JupyterHub.spawner_class = "nimbus_spawner.docker.NimbusDockerSpawner"
c.JupyterHub.bind_url = "http://0.0.0.0:{port}"
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_ip = {gateway!r}
c.NimbusSpawner.public_service_url = "http://{gateway}:{port}/services/nimbus"
c.NimbusSpawner.patience = "20s"
c.NimbusHub.cluster_file = {cluster!r}
d = c.NimbusDockerSpawner
d.engines = {{"node-1": {{"endpoint": {endpoint!r}}}}}
d.image = "not-there:latest"
d.environment_images = {{"default": {image!r}}}
d.allowed_images = ["not-there:latest"]
d.cmd = [{python!r}, "-m", "nimbus_spawner.singleuser"]
d.args = ["--allow-root"]
d.notebook_dir = "/home/jovyan"
d.prefix = {prefix!r}
d.warm_containers = 0
d.volumes = {{"{prefix}-home-{{username}}": "/home/jovyan"}}
d.read_only_volumes = {{path: path for path in {paths!r}}}
d.environment = {{"PYTHONPATH": {pythonpath!r}}}
d.extra_create_kwargs = {{"labels": {{"site": "of {{username}}"}}}}
"""

ASK = """\
import os, urllib.request
print(urllib.request.urlopen(os.environ["NIMBUS_API_URL"] + "/health").status)
"""


class Line:
    """The wire, in a thread of its own: the rest here is synchronous."""

    def __init__(self, target: str, path: Path) -> None:
        self.wire = Wire(target, str(path))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.join()

    def join(self) -> None:
        self._do(self.wire.join())

    def cut(self) -> None:
        self._do(self.wire.cut())

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


@pytest.fixture(scope="module")
def line(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    made = Line(engine.endpoint.removeprefix("unix://"), tmp_path_factory.mktemp("w") / "s")
    yield made
    made.close()


@pytest.fixture(scope="module")
def hub(
    tmp_path_factory: pytest.TempPathFactory,
    proxy_cache: Path,
    line: Line,
    running: RunningEngine,
    python_image: str,
) -> Iterator[HubProcess]:
    """A hub whose sessions are containers; none is left afterwards."""
    hub = HubProcess(tmp_path_factory.mktemp("docker-hub"), free_port())
    cluster = hub.directory / "cluster.yaml"
    cluster.write_text(CLUSTER)
    gateway = running.docker(
        "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"
    )
    configuration = CONFIGURATION.format(
        gateway=gateway,
        port=hub.port,
        cluster=str(cluster),
        endpoint=f"unix://{line.wire.path}",
        image=python_image,
        python=sys.executable,
        prefix=prefix(hub),
        paths=sorted({str(ROOT), sys.prefix, sys.base_prefix}),
        pythonpath=os.environ.get("PYTHONPATH", ""),
    )
    try:
        with running_hub(hub, proxy_cache, configuration):
            yield hub
    finally:
        left = running.docker("ps", "-aq", "--filter", f"name={prefix(hub)}").split()
        if left:
            running.docker("rm", "-f", *left)
        volumes = running.docker("volume", "ls", "-q", "--filter", f"name={prefix(hub)}").split()
        if volumes:
            running.docker("volume", "rm", *volumes)


def prefix(hub: HubProcess) -> str:
    return f"nimbus-test-{hub.port}"


def containers(hub: HubProcess, running: RunningEngine) -> list[str]:
    return running.docker("ps", "-aq", "--no-trunc", "--filter", f"name={prefix(hub)}").split()


def inspect(hub: HubProcess, running: RunningEngine) -> Any:
    (container,) = containers(hub, running)
    return json.loads(running.docker("inspect", container))[0]


def test_a_session_has_in_its_container_what_it_was_granted(
    hub: HubProcess, user: User, running: RunningEngine
) -> None:
    lease = started(user, cpus=0.5, memory="512M")
    assert lease["slots"][0]["host"] == "node-1"
    assert answers(user)
    found = inspect(hub, running)
    assert found["Config"]["Labels"] == {
        "nimbus.lease": lease["id"],
        "nimbus.owner": user.name,
        "site": f"of {user.name}",
    }
    host = found["HostConfig"]
    assert host["CpuQuota"] / host["CpuPeriod"] == 0.5
    assert host["Memory"] == host["MemorySwap"] == 512 * 2**20
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["CapDrop"], host["DeviceRequests"], host["AutoRemove"]) == (["ALL"], None, False)
    environment = dict(line.split("=", 1) for line in found["Config"]["Env"])
    assert environment["NIMBUS_LEASE_ID"] == lease["id"]
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert running.docker("exec", found["Id"], sys.executable, "-c", ASK) == "200"


def test_a_stop_removes_the_container_and_the_home_stays(
    hub: HubProcess, user: User, running: RunningEngine
) -> None:
    lease = started(user)
    running.docker("exec", *containers(hub, running), "sh", "-c", "echo mine > /home/jovyan/note")
    user.stop()
    assert ended(user, lease) == f"stopped by {user.name} or an administrator"
    assert containers(hub, running) == []
    started(user)
    found = running.docker("exec", *containers(hub, running), "cat", "/home/jovyan/note")
    assert found == "mine"


def test_a_session_goes_on_when_its_hub_is_killed(
    hub: HubProcess, user: User, running: RunningEngine
) -> None:
    lease = started(user)
    before = containers(hub, running)
    hub.kill()
    hub.start()
    assert user.log_in().status_code == 200
    assert user.is_running
    assert answers(user)
    assert containers(hub, running) == before
    user.stop()
    assert ended(user, lease) == f"stopped by {user.name} or an administrator"
    assert containers(hub, running) == []


def test_a_container_that_is_killed_ends_its_lease_at_once_with_the_reason(
    hub: HubProcess, user: User, running: RunningEngine
) -> None:
    lease = started(user)
    running.docker("kill", *containers(hub, running))
    reason = "the session's server ended with exit code -9 (SIGKILL)"
    assert ended(user, lease, 5) == reason
    assert containers(hub, running) == []
    assert reason in user.http.get("/hub/spawn").text.replace("&#x27;", "'")


def test_a_container_that_is_removed_ends_its_lease_with_a_reason(
    hub: HubProcess, user: User, running: RunningEngine
) -> None:
    lease = started(user)
    running.docker("rm", "-f", *containers(hub, running))
    assert ended(user, lease, 5) in (
        "the session's server ended with exit code unknown: its container was removed",
        "the session's server ended with exit code -9 (SIGKILL)",
    )


def test_a_start_that_a_dying_hub_cut_off_leaves_nothing(
    hub: HubProcess, user: User, running: RunningEngine
) -> None:
    user.api("POST", f"/users/{user.name}/server", json={})
    (cut_off,) = wait_for(lambda: containers(hub, running), 20, "container")
    hub.kill()
    hub.start()
    assert user.log_in().status_code == 200
    started(user)
    assert len(containers(hub, running)) == 1
    assert containers(hub, running) != [cut_off]


def test_a_session_on_an_engine_that_does_not_answer_is_not_over(
    hub: HubProcess, user: User, running: RunningEngine, line: Line
) -> None:
    lease = started(user)
    line.cut()
    try:
        hub.kill()
        hub.start()
        assert user.log_in().status_code == 200
        assert user.is_running
        assert answers(user)
    finally:
        line.join()
    (live,) = user.leases("live")
    assert live["id"] == lease["id"]
    running.docker("kill", *containers(hub, running))
    assert "SIGKILL" in ended(user, lease)


def test_a_lease_is_held_until_its_container_is_gone(
    hub: HubProcess, user: User, running: RunningEngine, line: Line
) -> None:
    lease = started(user)
    line.cut()
    try:
        user.stop()
        assert len(containers(hub, running)) == 1
        assert [each["id"] for each in user.leases("live")] == [lease["id"]]
    finally:
        line.join()
    assert ended(user, lease) == f"stopped by {user.name} or an administrator"
    assert containers(hub, running) == []


def test_an_image_that_cannot_be_had_is_said_and_leaves_no_lease(user: User) -> None:
    said = failure(user, image="not-there:latest")
    assert "the image not-there:latest cannot be pulled: " in said
    wait_for(lambda: user.leases("live") == [], 10, "lease released")


def test_an_image_that_is_not_allowed_is_refused(user: User) -> None:
    said = failure(user, image="python:3")
    assert said == "Image python:3 not in allowed list: not-there:latest"


def test_a_container_of_somebody_else_is_never_touched(
    hub: HubProcess, user: User, running: RunningEngine, python_image: str
) -> None:
    name = f"{prefix(hub)}-{user.name}"
    other = running.docker("run", "-d", "--name", name, python_image, "sleep", "600")
    try:
        assert f"host node-1 has a container {name} already" in failure(user)
        assert containers(hub, running) == [other]
    finally:
        running.docker("rm", "-f", other)


def test_what_is_left_of_an_ended_lease_is_removed_and_nothing_else(
    hub: HubProcess, user: User, running: RunningEngine, python_image: str
) -> None:
    over = next(each["id"] for each in user.leases() if each["is_ended"])
    left, other = (
        running.docker("run", "-d", "--label", f"nimbus.lease={lease}", python_image, "sleep", "99")
        for lease in (over, "of-another-hub")
    )
    try:
        started(user)
        alive = ("ps", "-q", "--no-trunc")
        wait_for(lambda: left not in running.docker(*alive), 10, "left container removed")
        assert answers(user)
        assert other in running.docker(*alive)
    finally:
        running.docker("rm", "-f", other)


def test_stop_all_ends_sessions_in_containers(
    hub: HubProcess, user: User, running: RunningEngine
) -> None:
    started(user)
    hub.stop_all()
    try:
        assert containers(hub, running) == []
    finally:
        hub.start()
        assert user.log_in().status_code == 200
