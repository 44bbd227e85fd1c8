"""Sessions on the hosts of a Swarm, one story: placement, crashes, outages, internal SSL.

A real hub, three engines on two racks that can be cut off, and homes that all hosts share.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from nimbus_hub.store.store import Store
from nimbus_hub.up.addresses import free_port
from nimbus_hub.up.processes import ProcessRecord
from tests.docker.cluster import Cluster, ClusterHost, cluster
from tests.docker.session_image import HOME, IMAGE, UID, load, mounted, wheel
from tests.docker.sessions import answers, ended, started
from tests.hub.conftest import HubProcess, User, logged_in, proxy_cache, running_hub, wait_for
from tests.hub.kernel import Kernel

__all__ = ["proxy_cache"]

pytestmark = [pytest.mark.hub, pytest.mark.timeout(600)]

CLUSTER = """\
swarms:
  - {{datacenter: north, manager: "{manager}", tls: {tls}}}
"""
CONFIGURATION = """\
import os
import signal
from pathlib import Path

from nimbus_spawner.docker import NimbusDockerSpawner


class Dying(NimbusDockerSpawner):
    async def create_object(self):
        die_before("create")
        return await super().create_object()

    async def start_object(self):
        die_before("start")
        await super().start_object()


def die_before(step):
    wanted = Path({dying!r})
    if wanted.exists() and wanted.read_text() == step:
        wanted.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


c = get_config()
c.JupyterHub.spawner_class = Dying
c.JupyterHub.bind_url = "http://0.0.0.0:{port}"
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_ip = {gateway!r}
c.NimbusSpawner.public_service_url = "http://{gateway}:{port}/services/nimbus"
c.NimbusSpawner.patience = "30s"
c.NimbusHub.cluster_file = {cluster!r}
c.NimbusHub.host_patience = "20s"
c.NimbusHub.sweep_time = "3s"
d = c.NimbusDockerSpawner
d.environment_images = {{"default": {image!r}}}
d.allowed_images = [{stuck!r}]
# Only what was asked for is to be on the hosts.
d.warm_containers = 0
d.cmd = [{python!r}, "-m", "nimbus_spawner.singleuser"]
d.notebook_dir = {home!r}
d.volumes = {{{homes!r} + "/{{username}}": {home!r}}}
d.read_only_volumes = {{path: path for path in {paths!r}}}
d.environment = {{"PYTHONPATH": {pythonpath!r}}}
"""
BASE_PYTHON = str(Path(sys.base_prefix) / "bin" / "python3")
PIP = (
    f"!{BASE_PYTHON} -m pip install --no-index --no-deps --break-system-packages "
    f"{HOME}/tiny-1.0-py3-none-any.whl 2>&1"
)
WHERE = f"!{BASE_PYTHON} -c 'import tiny; print(tiny.__file__)' 2>&1"
ASK = """\
import os, urllib.error, urllib.request
def ask(path):
    headers = {"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]}
    url = os.environ["NIMBUS_API_URL"] + path
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers)).status
    except urllib.error.HTTPError as error:
        return error.code
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Cluster]:
    """Two hosts on one rack, and one that will join on another."""
    with cluster(3) as made:
        manager, second, _ = made.hosts
        Cluster((manager, second), made.tls, made.network).join()
        for host in made.hosts:
            load(host)
        for host in (manager, second):
            manager.docker("node", "update", "--label-add", "rack=r1", host.name)
        yield made


@pytest.fixture(scope="module")
def registry(hosts: Cluster) -> Iterator[socket.socket]:
    """A registry that takes every connection and never answers."""
    with closing(socket.create_server((hosts.gateway, 0))) as server:
        server.settimeout(60)
        yield server


@pytest.fixture(scope="module")
def hub(
    tmp_path_factory: pytest.TempPathFactory,
    proxy_cache: Path,
    hosts: Cluster,
    registry: socket.socket,
) -> Iterator[HubProcess]:
    """A hub that knows of its hosts what the cluster file says."""
    made = HubProcess(tmp_path_factory.mktemp("cluster-hub"), free_port())
    file = made.directory / "cluster.yaml"
    file.write_text(CLUSTER.format(manager=hosts.hosts[0].endpoint, tls=hosts.tls))
    homes = made.directory / "homes"
    home = homes / "root"
    home.mkdir(parents=True)
    wheel(home)
    os.chown(home, UID, UID)
    configuration = CONFIGURATION.format(
        dying=str(made.directory / "dying"),
        port=made.port,
        gateway=hosts.gateway,
        cluster=str(file),
        image=IMAGE,
        stuck=stuck_image(registry),
        python=sys.executable,
        home=HOME,
        homes=str(homes),
        paths=mounted(),
        pythonpath=os.environ.get("PYTHONPATH", ""),
    )
    with running_hub(made, proxy_cache, configuration):
        yield made


@pytest.fixture
def user(hub: HubProcess) -> Iterator[User]:
    """The hub's one user, logged in."""
    with logged_in(hub) as user:
        yield user


def stuck_image(registry: socket.socket) -> str:
    host, port = registry.getsockname()
    return f"{host}:{port}/stuck:1"


def sessions(hosts: Cluster, *, lease: str = "") -> dict[str, list[str]]:
    """Return the containers of sessions, of one lease or all, on the hosts that have any."""
    label = f"label=nimbus.lease{'=' + lease if lease else ''}"
    words = ("ps", "-aq", "--no-trunc", "--filter", label)
    found = {host.name: host.docker(*words).split() for host in hosts.hosts}
    return {name: containers for name, containers in found.items() if containers}


def host_of(hosts: Cluster, lease: dict[str, Any]) -> ClusterHost:
    return next(host for host in hosts.hosts if host.name == lease["slots"][0]["host"])


def service(user: User, method: str, path: str, **values: Any) -> httpx.Response:
    """Ask the service as the user, who is an administrator."""
    token = user.api("POST", f"/users/{user.name}/tokens", json={"expires_in": 60}).json()
    headers = {"Authorization": f"token {token['token']}"}
    return user.http.request(method, f"/services/nimbus/api/v1{path}", headers=headers, **values)


def states(user: User) -> dict[str, str]:
    found = service(user, "GET", "/hosts").json()["items"]
    return {host["name"]: host["state"] for host in found}


def written(hub: HubProcess) -> tuple[str, str, str]:
    """Return the newest lease's id, state and host as they stand in the store."""
    with closing(Store.open(f"sqlite:///{hub.state.directory / 'nimbus.sqlite'}")) as store:
        (lease,) = store.leases(limit=1)
    return lease.id, lease.state, lease.slots[0].host


def dies(hub: HubProcess, user: User, step: str) -> tuple[str, str, str]:
    """Have the hub killed before a step of a start; return what is in the store then."""
    (hub.directory / "dying").write_text(step)
    with suppress(httpx.HTTPError):  # It may be killed before it answers.
        user.api("POST", f"/users/{user.name}/server", json={})
    assert hub.process is not None
    hub.process.wait(60)
    return written(hub)


def again(hub: HubProcess, user: User) -> None:
    hub.start()
    assert user.log_in().status_code == 200


@contextmanager
def cut(host: ClusterHost) -> Iterator[None]:
    host.cut()
    try:
        yield
    finally:
        host.heal()


def test_a_notebook_runs_on_the_host_of_its_lease_and_survives_hub_and_service(
    hub: HubProcess, user: User, hosts: Cluster
) -> None:
    lease = started(user, cpus=0.5, memory="512M")
    before = sessions(hosts)
    assert before == sessions(hosts, lease=lease["id"])
    assert list(before) == [lease["slots"][0]["host"]]
    assert user.http.get(f"/user/{user.name}/lab").status_code == 200
    with Kernel(user) as kernel:
        assert kernel.run("kept = 6 * 7\nprint(kept)") == "42"
        # Where engines are is not for sessions.
        kernel.run(ASK)
        (host,) = before
        assert kernel.run(f"print(ask('/health'), ask('/api/v1/hosts/{host}/engine'))") == "200 403"
    record = ProcessRecord.read(hub.state.service_record)
    assert record is not None
    record.send(signal.SIGKILL)
    hub.kill()
    again(hub, user)
    assert sessions(hosts) == before
    with kernel.again():
        assert kernel.run("print(kept)") == "42"
    renewed = service(user, "POST", f"/leases/{lease['id']}/renew", json={}).json()
    assert (renewed["state"], renewed["renewals"]) == ("active", 1)
    assert renewed["expires_at"] > lease["expires_at"]
    user.stop()
    assert ended(user, lease) == f"stopped by {user.name} or an administrator"
    assert sessions(hosts) == {}


def test_a_host_that_joins_is_used_at_once_and_has_the_home_with_what_pip_installed(
    user: User, hosts: Cluster
) -> None:
    started(user)
    with Kernel(user) as kernel:
        assert "Successfully installed tiny-1.0" in kernel.run(PIP)
        first = kernel.run(WHERE)
    assert first.startswith(f"{HOME}/.local/lib/python3")
    user.stop()
    hosts.add(hosts.hosts[2])
    hosts.hosts[0].docker("node", "update", "--label-add", "rack=r2", "h3")
    wait_for(lambda: states(user).get("h3") == "ready", 30, "h3 is there")
    for name in ("h1", "h2"):
        service(user, "POST", f"/hosts/{name}/drain", json={"reason": "test"})
    events = user.start()
    assert "What you install with pip goes into your home" in str(events)
    assert list(sessions(hosts)) == ["h3"]
    with Kernel(user) as kernel:
        assert kernel.run(WHERE) == first
    for name in ("h1", "h2"):
        service(user, "POST", f"/hosts/{name}/undrain")


def test_a_hub_that_dies_between_grant_and_container_has_it_in_the_store_and_leaves_nothing(
    hub: HubProcess, user: User, hosts: Cluster
) -> None:
    lost, state, host = dies(hub, user, "create")
    assert (state, host in ("h1", "h2", "h3")) == ("granted", True)
    assert sessions(hosts) == {}
    again(hub, user)
    # Who starts it again need not wait for what is over.
    lease = started(user)
    assert ended(user, {"id": lost}) == "left over from a start that was cut off"
    user.stop()
    assert ended(user, lease).startswith("stopped by")
    lost, state, host = dies(hub, user, "start")
    assert (state, list(sessions(hosts, lease=lost))) == ("granted", [host])
    again(hub, user)
    # Who does not has it cleared away all the same.
    assert ended(user, {"id": lost}, 60) == "the session's server is gone"
    wait_for(lambda: sessions(hosts) == {}, 30, "container removed")


def test_a_session_goes_on_over_an_outage_and_is_lost_after_patience_with_its_host(
    hub: HubProcess, user: User, hosts: Cluster
) -> None:
    lease = started(user)
    host, before = host_of(hosts, lease), sessions(hosts)
    with Kernel(user) as kernel:
        kernel.run("kept = 1")
    with cut(host):
        wait_for(lambda: states(user)[host.name] == "down", 30, "host down")
        assert user.is_running
    wait_for(lambda: states(user)[host.name] == "ready", 30, "host back")
    with kernel.again():
        assert kernel.run("print(kept)") == "1"
    assert [each["id"] for each in user.leases("live")] == [lease["id"]]
    assert sessions(hosts) == before
    with cut(host):
        reason = ended(user, lease, 90)
        assert reason.startswith(f"host {host.name} is down since ")
        wait_for(lambda: not user.is_running, 60, "the hub has given it up")
        assert reason in user.http.get("/hub/spawn").text
        other = started(user)
        assert other["slots"][0]["host"] != host.name
        assert answers(user)
    wait_for(lambda: states(user)[host.name] == "ready", 30, "host back")
    wait_for(lambda: host.name not in sessions(hosts), 60, "old container removed")
    assert sessions(hosts) == sessions(hosts, lease=other["id"])
    assert answers(user)


def test_an_engine_or_a_container_that_is_killed_ends_its_session_with_a_reason(
    user: User, hosts: Cluster
) -> None:
    lease = started(user)
    host = host_of(hosts, lease)
    host.docker("kill", *sessions(hosts)[host.name])
    assert ended(user, lease) == "the session's server ended with exit code -9 (SIGKILL)"
    assert sessions(hosts) == {}
    lease = started(user)
    host = host_of(hosts, lease)
    host.kill()
    wait_for(lambda: states(user)[host.name] == "down", 30, "engine down")
    assert [each["id"] for each in user.leases("live")] == [lease["id"]]
    host.start()
    host.wait()
    assert ended(user, lease, 60).startswith("the session's server ended")
    wait_for(lambda: sessions(hosts) == {}, 30, "container removed")
    wait_for(lambda: states(user)[host.name] == "ready", 60, "engine back")


def test_a_host_that_is_cut_off_while_it_pulls_is_said_and_the_lease_given_back(
    user: User, hosts: Cluster, registry: socket.socket
) -> None:
    image = stuck_image(registry)
    user.api("POST", f"/users/{user.name}/server", json={"user_options": {"image": image}})
    connection, (address, _) = registry.accept()
    with connection:
        (lease,) = user.leases("live")
        host = host_of(hosts, lease)
        assert host.address == address
        with cut(host):
            last = user.progress()[-1]
            assert last["failed"], last
            words = f"the image {image} was not pulled: the Docker engine of host {host.name} "
            assert f"{words}does not answer: " in last["message"]
            assert "was not pulled" in ended(user, lease)
    wait_for(lambda: states(user)[host.name] == "ready", 30, "host back")
    assert sessions(hosts) == {}


def test_with_internal_ssl_a_session_is_reached_by_its_certificate_alone(
    hub: HubProcess, user: User, hosts: Cluster
) -> None:
    hub.interrupt()
    assert hub.config is not None
    with hub.config.open("a") as file:
        file.write("c.JupyterHub.internal_ssl = True\n")
    again(hub, user)
    lease = started(user)
    assert user.http.get(f"/user/{user.name}/lab").status_code == 200
    with Kernel(user) as kernel:
        assert kernel.run(f"{ASK}\nprint(ask('/health'))") == "200"
    told = user.http.get(f"/user/{user.name}/nimbus/lease")
    assert (told.status_code, lease["id"] in told.text) == (200, True), told.text
    host = host_of(hosts, lease)
    (container,) = sessions(hosts)[host.name]
    paths = [f"/nimbus-ssl/{name}.pem" for name in ("key", "cert", "ca")]
    modes = host.docker("exec", container, "/usr/bin/stat", "-c", "%a %U", *paths)
    assert modes.splitlines() == ["400 jovyan"] * 3
    assert host.docker("volume", "ls", "-q") == ""
    port = host.docker("port", container).rpartition(":")[2]
    for scheme in ("http", "https"):
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{scheme}://{host.address}:{port}/", verify=False, trust_env=False)
    hub.kill()
    again(hub, user)
    with kernel.again():
        assert kernel.run("print(1)") == "1"
    user.stop()
    assert ended(user, lease).startswith("stopped by")
    assert sessions(hosts) == {}
