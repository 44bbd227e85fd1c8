"""Hosts over HTTP: what is told to whom, and draining."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nimbus_hub import client
from nimbus_hub.client import Client, GroupRequest, JobRequest
from nimbus_hub.client.hosts import Host
from nimbus_hub.control.cluster_file import ClusterFile
from nimbus_hub.errors import Conflict, Forbidden, InvalidRequest, NotFound
from nimbus_hub.executors.base import Executor
from nimbus_hub.executors.fake import FakeExecutor
from nimbus_hub.model.check import HostCheck
from nimbus_hub.model.engine import Engine
from tests.service.conftest import Service, hosts
from tests.service.waiting import until

ON_GPU = JobRequest(argv=("python", "a.py"), groups=(GroupRequest(gpus="A100:1"),))


@pytest.fixture
def ada(service: Service) -> Client:
    return service.client("ada-token")


@pytest.fixture
def admin(service: Service) -> Client:
    return service.client("admin-token")


def host(client: Client, name: str = "gpu-1") -> Host:
    return next(each for each in client.hosts() if each.name == name)


def test_a_draining_host_takes_nothing_new_and_what_runs_there_runs_on(
    service: Service, ada: Client, admin: Client
) -> None:
    first = ada.submit(ON_GPU)
    until(lambda: ada.job(first.id), lambda job: job.state == "running")
    drained = admin.drain("gpu-1", "new\nfans")
    assert (drained.state, len(drained.gpus)) == ("draining", 4)
    assert host(ada).state_reason == "drained by nimbus-spawner: new fans"
    second = ada.submit(ON_GPU)
    until(lambda: ada.job(second.id), lambda job: bool(job.reason))
    service.stop()
    service.start()
    admin, ada = service.client("admin-token"), service.client("ada-token")
    until(ada.hosts, bool)
    assert host(ada).state == "draining"
    assert ada.job(first.id).state == "running"
    assert ada.job(second.id).state == "queued"
    assert admin.undrain("gpu-1").state_reason == ""
    until(lambda: ada.job(second.id), lambda job: job.state == "running")


def test_only_administrators_drain_hosts(ada: Client) -> None:
    for change in (ada.drain, ada.undrain):
        with pytest.raises(Forbidden, match="custom:nimbus:admin"):
            change("gpu-1")
    assert host(ada).state == "ready"


def test_a_host_that_is_not_there_is_not_found(admin: Client) -> None:
    for change in (admin.drain, admin.undrain):
        with pytest.raises(NotFound, match="there is no host 'gpu-9'; see: nimbus hosts"):
            change("gpu-9")


def test_hosts_without_anything_to_check_say_so_to_administrators(
    ada: Client, admin: Client
) -> None:
    with pytest.raises(Forbidden):
        ada.check_host("gpu-1")
    with pytest.raises(NotFound, match="there is no host 'gpu-9'"):
        admin.check_host("gpu-9")
    with pytest.raises(Conflict, match=r"host gpu-1 is of the executor .*, which has nothing"):
        admin.check_host("gpu-1")


class CheckedExecutor(FakeExecutor):
    """One that has something to check."""

    async def check_host(self, name: str) -> tuple[HostCheck, ...]:
        return (HostCheck("clock", True, f"that of {name}"),)

    async def check_engine(self, engine: Engine) -> tuple[HostCheck, ...]:
        return (HostCheck("clock", False, f"{engine.host} at {engine.address}", "use NTP"),)


def test_an_engine_is_checked_as_the_cluster_file_would_name_it_and_written_there(
    make_service: Callable[[Executor], Service], tmp_path: Path
) -> None:
    service = make_service(CheckedExecutor(hosts()))
    admin, ada = service.client("admin-token"), service.client("ada-token")
    assert service.control is not None
    assert admin.check_host("gpu-1") == (client.HostCheck("clock", True, "that of gpu-1", ""),)
    engine = Engine("gpu-3", "tcp://10.0.0.7:2376", "/tls", labels={"disk": "nvme"})
    for call in (ada.check_engine, ada.add_engine):
        with pytest.raises(Forbidden, match="custom:nimbus:admin"):
            call(engine)
    with pytest.raises(Conflict, match="there is a host 'gpu-1' already"):
        admin.check_engine(replace(engine, host="gpu-1"))
    with pytest.raises(Conflict, match="there is no cluster file"):
        admin.add_engine(engine)
    found = admin.check_engine(engine)
    missing = client.HostCheck("clock", False, "gpu-3 at 10.0.0.7", "use NTP")
    assert (found.items, found.file) == ((missing,), "")

    path = tmp_path / "cluster.yaml"
    path.write_text("# ours\n")
    service.control.inventory._file = ClusterFile(path)
    found = admin.check_engine(engine)
    assert (found.file, path.read_text()) == (str(path), "# ours\n"), "nothing is kept of a check"
    admin.add_engine(engine)
    assert path.read_text() == f"# ours\n{found.lines}"
    again = "would be refused: .*must differ from the others, got 'gpu-3' as in line 3"
    for call in (admin.check_engine, admin.add_engine):
        with pytest.raises(InvalidRequest, match=again):
            call(engine)
    assert path.read_text() == f"# ours\n{found.lines}"


def test_what_is_no_engine_is_refused_in_its_own_words(service: Service) -> None:
    admin = service.raw("admin-token")
    for body, why in [
        ({"host": "n3", "endpoint": "10.0.0.5"}, "an endpoint must be like unix://"),
        ({"host": "n3", "endpoint": "tcp://10.0.0.5:2376"}, "tls must name the directory"),
        ({"host": "n3"}, "endpoint is missing"),
    ]:
        for path in ("/api/v1/hosts", "/api/v1/hosts/check"):
            answer = admin.post(path, json=body)
            assert (answer.status_code, why in answer.json()["message"]) == (400, True), answer.text
    admin.close()


def test_without_docker_engines_cannot_be_checked(admin: Client) -> None:
    with pytest.raises(Conflict, match=r"no Docker engines: pip install nimbus-hub\[docker\]"):
        admin.check_engine(Engine("n3", "ssh://n3"))


def test_engines_are_told_to_administrators_alone(ada: Client, admin: Client) -> None:
    with pytest.raises(Forbidden):
        ada.engine("gpu-1")
    with pytest.raises(NotFound, match="there is no host 'gpu-9'"):
        admin.engine("gpu-9")
    with pytest.raises(Conflict, match=r"host gpu-1 is of the executor .*, which has no engines"):
        admin.engine("gpu-1")


def test_a_device_names_its_leases_to_their_owner_only(service: Service, ada: Client) -> None:
    job = ada.submit(ON_GPU)
    until(lambda: ada.job(job.id), lambda seen: seen.state == "running")
    own = [gpu for gpu in host(ada).gpus if gpu.lease_ids]
    assert [(gpu.lease_ids, gpu.lease_id, gpu.free_milli) for gpu in own] == [
        ((job.lease_id,), job.lease_id, 0)
    ]
    others = [gpu.lease_ids for gpu in host(service.client("bob-token")).gpus if gpu.lease_ids]
    assert others == [("other",)]


def test_only_administrators_are_told_of_a_refused_cluster_file(
    service: Service, ada: Client, admin: Client, tmp_path: Path
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("")
    assert service.control is not None
    file = service.control.inventory._file = ClusterFile(path)
    metrics = service.raw("admin-token")
    assert "nimbus_cluster_file_refused 0.0" in metrics.get("/metrics").text
    file.error = "cluster.yaml:1: hosts must be a list, got 0"
    assert admin.host_list().cluster_file_error == file.error
    assert ada.host_list().cluster_file_error == ""
    assert "nimbus_cluster_file_refused 1.0" in metrics.get("/metrics").text
    metrics.close()
