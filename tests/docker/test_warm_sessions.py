"""Warm containers: a real hub whose second session is one that waited, and what it cannot see.

The image has all that a session needs, so that only what is a person's is mounted.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nimbus_hub.model.engine import Engine
from nimbus_hub.up.addresses import free_port
from tests.docker.sessions import answers, started
from tests.docker.standalone_image import standalone_image
from tests.frameworks.engine import Engine as RunningEngine
from tests.hub.conftest import (
    HubProcess,
    Terminal,
    User,
    proxy_cache,
    running_hub,
    terminal,
    user,
    wait_for,
)
from tests.hub.kernel import Kernel

__all__ = ["proxy_cache", "terminal", "user"]

pytestmark = [pytest.mark.hub, pytest.mark.timeout(600)]

CLUSTER = """\
hosts:
  - {name: node-1, cpus: 4, memory: 4G}
"""
CONFIGURATION = """\
c = get_config()
c.JupyterHub.spawner_class = "nimbus_spawner.docker.NimbusDockerSpawner"
c.JupyterHub.bind_url = "http://0.0.0.0:{port}"
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_ip = {gateway!r}
c.NimbusSpawner.public_service_url = "http://{gateway}:{port}/services/nimbus"
c.NimbusHub.cluster_file = {cluster!r}
d = c.NimbusDockerSpawner
d.engines = {{"node-1": {{"endpoint": {endpoint!r}}}}}
d.image = {image!r}
d.prefix = {prefix!r}
d.volumes = {{"{prefix}-home-{{username}}": "/home/jovyan"}}
"""

# What a session can see, from its own server's process on.
SEEN = """\
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
mounts = [line.split()[4] for line in open("/proc/self/mountinfo")]
fds = []
for pid in (each for each in os.listdir("/proc") if each.isdigit()):
    try:
        fds += [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        pass
print(json.dumps({
    "home": os.environ["HOME"], "cwd": os.getcwd(), "uid": os.getuid(),
    "own": sorted(name for name in os.environ if name.startswith("NIMBUS_")),
    "caps": [status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd")],
    "mounts": mounts, "fds": fds,
}))
"""

# Another container's address is easily found.
REACH = """\
import socket
try:
    socket.create_connection(({address!r}, 8888), 3)
    print("reached")
except OSError:
    print("not reached")
"""


@pytest.fixture(scope="module")
def hub(
    tmp_path_factory: pytest.TempPathFactory,
    proxy_cache: Path,
    engine: Engine,
    running: RunningEngine,
) -> Iterator[HubProcess]:
    """A hub whose sessions are containers; none is left afterwards."""
    hub = HubProcess(tmp_path_factory.mktemp("warm-hub"), free_port())
    cluster = hub.directory / "cluster.yaml"
    cluster.write_text(CLUSTER)
    gateway = running.docker(
        "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"
    )
    configuration = CONFIGURATION.format(
        gateway=gateway,
        port=hub.port,
        cluster=str(cluster),
        endpoint=engine.endpoint,
        image=standalone_image(running),
        prefix=prefix(hub),
    )
    try:
        with running_hub(hub, proxy_cache, configuration):
            yield hub
    finally:
        for kind, words in (("container", ("ps", "-aq")), ("volume", ("volume", "ls", "-q"))):
            left = running.docker(*words, "--filter", f"name={prefix(hub)}").split()
            if left:
                running.docker(kind, "rm", "-f", *left)


def prefix(hub: HubProcess) -> str:
    return f"nimbus-warm-{hub.port}"


def inspected(hub: HubProcess, running: RunningEngine) -> dict[str, Any]:
    """Return the containers of the hub by their names without its prefix."""
    ids = running.docker("ps", "-aq", "--filter", f"name={prefix(hub)}").split()
    # What is gone meanwhile is left out.
    told = subprocess.run(running.command("inspect", *ids), capture_output=True, check=False)
    found = json.loads(told.stdout) if ids else []
    return {each["Name"].removeprefix(f"/{prefix(hub)}-"): each for each in found}


def waiting(hub: HubProcess, running: RunningEngine) -> dict[str, Any]:
    """Return the container that waits, as soon as there is one that has imported all."""

    def found() -> dict[str, Any] | None:
        warm = [each for name, each in inspected(hub, running).items() if name.startswith("warm-")]
        if len(warm) != 1 or not warm[0]["State"]["Running"]:
            return None
        # From then on it only listens.
        ask = "import socket; socket.create_connection(('127.0.0.1', 8888), 1)"
        words = ("exec", warm[0]["Id"], f"{sys.prefix}/bin/python3", "-c", ask)
        try:
            running.docker(*words)
        except AssertionError:
            return None
        return warm[0]

    return dict(wait_for(found, 60, "a container that waits"))


def session(hub: HubProcess, running: RunningEngine, user: User) -> dict[str, Any]:
    return dict(inspected(hub, running)[user.name])


def guessed(container: dict[str, Any]) -> dict[str, Any]:
    """Claim a container that waits without its secret; return the answer."""
    (published,) = container["NetworkSettings"]["Ports"]["8888/tcp"]
    claim = {"secret": "a guess", "args": [], "env": {}, "cwd": "/", "inherit": True}
    with socket.create_connection((published["HostIp"], int(published["HostPort"])), 5) as other:
        other.sendall(json.dumps(claim).encode() + b"\n")
        return dict(json.loads(other.makefile().readline()))


def cpus(container: dict[str, Any]) -> float:
    host = container["HostConfig"]
    return float(host["CpuQuota"] / host["CpuPeriod"])


@pytest.fixture
def warm(hub: HubProcess, user: User, running: RunningEngine) -> dict[str, Any]:
    """What waits for the next session, since there was one like it."""
    if not running.docker("volume", "ls", "-q", "--filter", f"name={prefix(hub)}"):
        started(user)
        with Kernel(user) as kernel:
            kernel.run("open('note', 'w').write('mine')")
            kernel.end()
        user.stop()
    return waiting(hub, running)


def test_a_session_is_what_waited_for_it_with_the_homes_of_its_owner_and_no_other(
    hub: HubProcess, user: User, running: RunningEngine, warm: dict[str, Any]
) -> None:
    told = json.dumps(warm)
    assert user.name not in warm["Config"]["Labels"].values()
    assert not warm["Mounts"]
    assert "JUPYTERHUB_API_TOKEN" not in told
    assert cpus(warm) == 2.0
    lease = started(user)
    found = session(hub, running, user)
    assert found["Id"] == warm["Id"]
    assert cpus(found) == 0.5
    assert answers(user)
    claim = inspected(hub, running)[f"{user.name}-claim"]
    assert claim["Config"]["Labels"]["nimbus.lease"] == lease["id"]
    assert claim["State"]["Status"] == "exited"
    with Kernel(user) as kernel:
        assert kernel.run("print(open('note').read())") == "mine"
        seen = json.loads(kernel.run(SEEN))
        other = waiting(hub, running)
        assert other["Id"] != warm["Id"]
        address = other["NetworkSettings"]["Networks"]["nimbus-sessions"]["IPAddress"]
        assert kernel.run(REACH.format(address=address)) == "not reached"
        kernel.end()
    assert (seen["home"], seen["cwd"], seen["uid"]) == ("/home/jovyan", "/home/jovyan", 1000)
    assert {"NIMBUS_LEASE_ID", "NIMBUS_API_URL"} <= set(seen["own"])
    assert not [name for name in seen["own"] if name.startswith("NIMBUS_WARM")]
    assert {int(caps, 16) for caps in seen["caps"]} == {0}
    assert seen["mounts"].count("/home/jovyan") == 1
    assert not [fd for fd in seen["fds"] if fd.startswith("/run/docker")]
    # Who guesses is refused, and what waits goes on waiting.
    assert set(guessed(other)) == {"error"}
    user.stop()
    assert set(inspected(hub, running)) == {other["Name"].removeprefix(f"/{prefix(hub)}-")}
    started(user)
    assert session(hub, running, user)["Id"] == other["Id"]


def test_a_claimed_session_goes_on_when_its_hub_is_killed_and_what_waited_is_removed(
    hub: HubProcess, user: User, running: RunningEngine, warm: dict[str, Any]
) -> None:
    lease = started(user)
    left = waiting(hub, running)
    hub.kill()
    hub.start()
    assert session(hub, running, user)["Id"] == warm["Id"]
    assert answers(user)
    (after,) = user.leases("live")
    assert after["id"] == lease["id"]
    user.stop()
    started(user)
    wait_for(
        lambda: left["Id"] not in [each["Id"] for each in inspected(hub, running).values()],
        20,
        "what the other hub had wait is removed",
    )
    assert session(hub, running, user)["Id"] != left["Id"]


def test_what_waits_goes_when_somebody_needs_the_place(
    hub: HubProcess, running: RunningEngine, warm: dict[str, Any], terminal: Terminal
) -> None:
    words = ("run", "--detach", "--json", "--cpus", "4", "--", "sleep", "300")
    code, out, err = terminal.run("nimbus", *words)
    assert code == 0, err
    wait_for(lambda: not inspected(hub, running), 20, "it is gone")
    terminal.run("nimbus", "stop", json.loads(out)["id"])
    assert waiting(hub, running)["Id"] != warm["Id"]


def test_a_session_starts_cold_if_what_waited_is_of_no_use(
    hub: HubProcess, user: User, running: RunningEngine, warm: dict[str, Any]
) -> None:
    running.docker("kill", warm["Id"])
    started(user)
    found = session(hub, running, user)
    assert found["Id"] != warm["Id"]
    assert answers(user)
    assert cpus(found) == 0.5
    wait_for(
        lambda: set(inspected(hub, running)) == {user.name}, 20, "what was of no use is removed"
    )
