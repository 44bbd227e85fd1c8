"""Storage that hosts share: what engines are asked to mount, and what is refused."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.executors.docker.containers import container, mounted
from nimbus_hub.executors.docker.policy import read_policy
from nimbus_hub.executors.docker.storage import new_directory, read_storage, shut_to
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.replica import ReplicaSpec

NFS = {"type": "nfs", "server": "10.0.0.9", "path": "/export/jobs", "options": "nfsvers=4.2,hard"}
DEVICE = {"type": "volume", "options": {"type": "none", "o": "bind", "device": "/srv/jobs/"}}


def made(storage: dict[str, Any], owner: str = "ada", **more: Any) -> dict[str, Any]:
    """Return the container of a replica."""
    policy = read_policy({"storage": storage, **more})
    spec = ReplicaSpec("j-1.1.worker-0", "j-1", owner, "gpu-1", ("true",))
    terms = policy.terms(spec, Engine("gpu-1", "unix:///run/docker.sock"), "sha256:abc")
    return container(spec, terms)


def mounts(storage: dict[str, Any], owner: str = "ada", **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made(storage, owner, **more)["HostConfig"]["Mounts"]
    return found


def home(storage: dict[str, Any]) -> str:
    return next(each for each in made(storage)["Env"] if each.startswith("HOME="))


def test_a_path_of_all_hosts_is_bound_with_the_jobs_and_the_owners_directory_alone() -> None:
    storage = {"jobs": "/srv/jobs", "homes": "/srv/homes/"}
    assert mounts(storage) == [
        {
            "Type": "bind",
            "Source": "/srv/jobs/j-1",
            "Target": "/nimbus/j-1",
            "ReadOnly": False,
        },
        {"Type": "bind", "Source": "/srv/homes/ada", "Target": "/nimbus/home", "ReadOnly": False},
    ]
    assert home(storage) == "HOME=/nimbus/home"
    assert home({"jobs": "/srv/jobs"}) == "HOME=/nimbus/j-1/home"


def test_an_export_is_a_volume_of_the_engines_local_driver_for_each_job() -> None:
    options = {"type": "nfs", "o": "addr=10.0.0.9,nfsvers=4.2,hard"}
    (job,) = mounts({"jobs": NFS})
    assert job == {
        "Type": "volume",
        "Source": "nimbus-j-1",
        "Target": "/nimbus/j-1",
        "ReadOnly": False,
        "VolumeOptions": {
            "NoCopy": True,
            "DriverConfig": {
                "Name": "local",
                "Options": {**options, "device": ":/export/jobs/j-1"},
            },
        },
    }
    root = read_storage({"jobs": NFS}).job("j-1")
    assert root is not None
    whole = mounted(root.whole)
    assert whole["VolumeOptions"]["DriverConfig"]["Options"]["device"] == ":/export/jobs"
    assert (whole["Target"], root.name) == ("/nimbus/root", "j-1")


def test_a_volume_by_its_options_leads_to_the_device_below() -> None:
    (job,) = mounts({"jobs": DEVICE})
    options = {"type": "none", "o": "bind", "device": "/srv/jobs/j-1"}
    assert job["VolumeOptions"]["DriverConfig"] == {"Name": "local", "Options": options}


def test_volumes_of_two_owners_or_two_exports_never_have_the_same_name() -> None:
    homes = {"homes": {**NFS, "path": "/export/homes"}}
    names = {mounts(homes, owner)[1]["Source"] for owner in ("ada", "bob")}
    other = {"homes": {**NFS, "path": "/export/homes", "server": "10.0.0.8"}}
    names.add(mounts(other)[1]["Source"])
    assert len(names) == 3
    assert mounts(homes)[1]["Source"] in names


def test_data_is_mounted_from_an_export_or_a_driver_as_from_a_path() -> None:
    given = [
        {"source": "/srv/data", "target": "/data"},
        {"source": {**NFS, "path": "/export/{owner}"}, "target": "/mine", "read_only": False},
        {"source": {"type": "volume", "name": "sets", "driver": "ceph"}, "target": "/sets"},
    ]
    _, data, mine, sets = mounts({}, "a/b", mounts=given)
    assert data == {"Type": "bind", "Source": "/srv/data", "Target": "/data", "ReadOnly": True}
    assert mine["VolumeOptions"]["DriverConfig"]["Options"]["device"] == ":/export/a%2Fb"
    assert mine["ReadOnly"] is False
    assert (sets["Source"], sets["ReadOnly"]) == ("sets", True)
    assert sets["VolumeOptions"]["DriverConfig"] == {"Name": "ceph", "Options": {}}


@pytest.mark.parametrize("owner", ["..", "../bob", "a/../../b"])
def test_an_owner_gets_a_home_below_all_homes(owner: str) -> None:
    source = mounts({"homes": "/srv/homes"}, owner)[1]["Source"]
    name = source.removeprefix("/srv/homes/")
    assert "/" not in name
    assert name not in {".", ".."}


def test_a_new_directory_is_for_its_user_alone() -> None:
    with tarfile.open(fileobj=new_directory("j-1", 7, 8)) as archive:
        (member,) = archive.getmembers()
    assert (member.name, member.isdir(), member.mode) == ("j-1", True, 0o700)
    assert (member.uid, member.gid) == (7, 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("/srv", "containers.storage must be a dict with jobs, homes, service_path, got '/srv'"),
        ({"job": "/srv"}, "containers.storage has no 'job'; it has jobs, homes, service_path"),
        ({"jobs": "jobs"}, "containers.storage.jobs must be a path, an NFS export, or a volume"),
        ({"jobs": 1}, "containers.storage.jobs must be '/a/path', {'type': 'nfs',"),
        (
            {"jobs": {"type": "volume", "name": "x", "driver": "ceph"}},
            "containers.storage.jobs must be a path, an NFS export, or a volume whose options have",
        ),
        ({"jobs": {"type": "nfs", "path": "/x"}}, "containers.storage.jobs must have a server"),
        ({"homes": {**NFS, "port": 1}}, "containers.storage.homes has no 'port'; it has type,"),
        ({"jobs": {"type": "volume"}}, "containers.storage.jobs must have the name of a volume"),
        ({"service_path": "/srv"}, "containers.storage.service_path must be where the service has"),
        (
            {"jobs": "/srv", "service_path": "srv"},
            "containers.storage.service_path must be where the service has",
        ),
        (
            {"jobs": {"type": "volume", "options": {"device": "/var/run/docker.sock"}}},
            "containers may not mount the engine's socket: who has it is root",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_what_would_be_right(given: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_policy({"storage": given})
    assert caught.value.message.startswith(message)


def test_what_a_user_may_not_pass_is_found(tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    closed = tmp_path / "closed"
    (closed / "j-1").mkdir(parents=True)
    closed.chmod(0o750)
    own = closed.stat()
    path = closed / "j-1"
    assert shut_to(path, own.st_uid + 4711, own.st_gid + 4711) == closed
    assert shut_to(path, own.st_uid + 4711, own.st_gid) is None
    assert shut_to(path, own.st_uid, own.st_gid) is None
    closed.chmod(0o711)
    assert shut_to(path, own.st_uid + 4711, own.st_gid + 4711) is None
