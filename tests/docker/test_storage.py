"""Storage that hosts share: two real engines with one directory of this machine between them."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nimbus_hub.errors import InvalidRequest, NotFound, Unavailable
from nimbus_hub.executors.base import Executor
from nimbus_hub.executors.docker.executor import DockerExecutor
from nimbus_hub.executors.docker.policy import read_policy
from nimbus_hub.model.engine import Engine
from nimbus_hub.model.replica import ReplicaSpec
from tests.contract.conftest import HOST, ended, eventually
from tests.contract.snapshots import MemorySnapshots
from tests.docker.cluster import BUSYBOX, Cluster, cluster

USER = 4711
SNAPSHOTS = MemorySnapshots({"abc": {"train.py": "# train\n"}})

Shape = Callable[[Path], Any]
SHAPES: dict[str, Shape] = {
    "bind": str,
    "volume": lambda path: {
        "type": "volume",
        "options": {"type": "none", "o": "bind", "device": str(path)},
    },
}


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    with cluster(2) as made:
        yield made


@asynccontextmanager
async def executing(
    two: Cluster, state: Path, storage: dict[str, Any], **more: Any
) -> AsyncIterator[DockerExecutor]:
    engines = [
        Engine(host.name, host.endpoint, str(host.tls), host.address, network="host")
        for host in two.hosts
    ]

    async def find_hosts(clients: object) -> tuple[Any, ...]:
        return (HOST,)

    policy = read_policy({"user": f"{USER}:{USER}", "storage": storage, **more})
    made = DockerExecutor(
        state, lambda: engines, {"default": BUSYBOX}, SNAPSHOTS, find_hosts, policy
    )
    try:
        yield made
    finally:
        await made.close()


def replica(name: str, host: str, script: str, **values: Any) -> ReplicaSpec:
    made = {"job_id": "j-1", "owner": "ada", "snapshot": "abc", "memory_bytes": 2**26, **values}
    return ReplicaSpec(name, host=host, argv=("/bin/sh", "-c", script), **made)


async def output(executor: Executor, replica_id: str) -> str:
    status = await ended(executor, replica_id)
    said = (await executor.read_output(replica_id, 0, 2**16)).data.decode()
    assert status.exit_code == 0, (status, said)
    return said


def left_on(two: Cluster) -> dict[str, list[str]]:
    """Return the containers and volumes of hosts."""
    return {
        host.name: [
            *host.docker("ps", "-aq").split(),
            *host.docker("volume", "ls", "--quiet").split(),
        ]
        for host in two.hosts
    }


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Give a directory of all hosts, which none but root may write."""
    made = tmp_path / "shared"
    for path in (made, made / "jobs", made / "homes"):
        path.mkdir(mode=0o711)
    # pytest's own directories are root's alone.
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(path.stat().st_mode | 0o111)
    return made


@pytest.mark.parametrize("shape", SHAPES)
async def test_replicas_of_all_hosts_meet_in_one_directory_and_nothing_is_left_on_hosts(
    two: Cluster, tmp_path: Path, shared: Path, shape: str
) -> None:
    """Each waits for a file of the other: alone none would come to its end."""
    of = SHAPES[shape]
    storage = {"jobs": of(shared / "jobs"), "homes": of(shared / "homes")}
    if shape == "bind":
        storage["service_path"] = str(shared / "jobs")
    secret = tmp_path / "secret"
    secret.write_text("of root")
    secret.chmod(0o600)
    script = (
        "echo $0 > ../checkpoints/$0; echo changed >> train.py; echo $0 >> $HOME/visits;"
        "while ! cat ../checkpoints/$1; do sleep 0.05; done 2>/dev/null;"
        f"/bin/busybox ln -s {secret} ../output/link$0; /bin/busybox ln -s /etc ../output/etc$0"
    )
    async with executing(two, tmp_path / "state", storage) as executor:
        for mine, other in (("1", "2"), ("2", "1")):
            line = script.replace("$0", mine).replace("$1", other)
            await executor.start(replica(f"r{mine}", f"h{mine}", line))
        assert await output(executor, "r1") == "2\n"
        assert await output(executor, "r2") == "1\n"
        for name in ("r1", "r2"):
            # The links lead nowhere.
            found = await executor.find_files(name, "", 9)
            assert [file.path for file in found.files] == ["checkpoints/1", "checkpoints/2"]
            assert (await executor.read_file(name, "checkpoints/2", 0, 9)).data == b"2\n"
            with pytest.raises(InvalidRequest if shape == "bind" else NotFound):
                await executor.read_file(name, "output/link1", 0, 9)
        if shape == "bind":
            (shared / "jobs").chmod(0o700)
            with pytest.raises(Unavailable, match=rf"may not pass {shared}/jobs; chmod o\+x"):
                await executor.find_files("r1", "", 9)
            (shared / "jobs").chmod(0o711)
        # The next attempt finds what is there, as it was left: files are put in once.
        await executor.start(replica("r3", "h2", "cat train.py ../checkpoints/1; echo x > new"))
        assert await output(executor, "r3") == "# train\nchanged\nchanged\n1\n"
        await eventually(lambda: left_on(two) == {"h1": [], "h2": []})
        kept = tmp_path / "state" / "results" / "j-1" / "storage"
        assert kept.exists() is (shape == "volume")
        job, home = shared / "jobs" / "j-1", shared / "homes" / "ada"
        for path in (job, home):
            assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) == (0o700, USER)
        assert (job / "work" / "new").read_text() == "x\n"
        assert sorted((home / "visits").read_text().split()) == ["1", "2"]
        other = shared / "jobs" / "j-9"
        other.mkdir()
        (job / "output" / "other").symlink_to(other)
        (other / "kept").write_text("")
        await executor.delete("j-1", ["r1", "r2", "r3"])
        assert [path.name for path in (shared / "jobs").iterdir()] == ["j-9"]
        assert (other / "kept").exists()
        assert secret.exists()
        assert (home / "visits").exists()
        assert not any((tmp_path / "state" / "replicas").iterdir())
        assert not any((tmp_path / "state" / "results").iterdir())
        assert left_on(two) == {"h1": [], "h2": []}


async def test_a_user_sees_nothing_of_others_and_a_home_stays_as_it_is(
    two: Cluster, tmp_path: Path, shared: Path
) -> None:
    storage = {"jobs": str(shared / "jobs"), "homes": str(shared / "homes")}
    home = shared / "homes" / "bob"
    home.mkdir(mode=0o750)
    os.chown(home, USER, 0)
    (home / "notes").write_text("mine")
    mounts = [{"source": str(shared), "target": "/data"}]
    script = "echo /nimbus/*; cat $HOME/notes; echo x > /data/x || echo read-only"
    async with executing(two, tmp_path / "state", storage, mounts=mounts) as executor:
        await executor.start(replica("r1", "h1", script, owner="bob", job_id="j-2"))
        said = await output(executor, "r1")
        assert said.startswith("/nimbus/home /nimbus/j-2\nmine")
        assert said.endswith("read-only\n")
    assert stat.S_IMODE(home.stat().st_mode) == 0o750
