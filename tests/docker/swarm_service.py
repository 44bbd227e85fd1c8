"""A service on the hosts of a Swarm: two in one rack, one in another, which has a small disk.

Replicas run in an image of one program and have this machine's libraries and Python mounted:
nothing large is copied to any host. What each writes it also writes below a directory that all
share, so that the tests know what logs have to be, and who was started twice.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy
from sklearn.datasets import load_digits

from nimbus_hub.client import Client, Job
from tests.docker.cluster import ClusterHost, busybox_image, cluster, wait_for
from tests.frameworks.cluster import Cluster

__all__ = ["IMAGE", "SCRIPTS", "SwarmService", "swarm_service"]

IMAGE = "nimbus-test/mounted:1"
SCRIPTS = Path(__file__).parent / "scripts"
RACKS = ("r1", "r1", "r2")
DISK = "64m"
"""What the last host has for images, containers and volumes."""

_CLUSTER_FILE = "swarms:\n  - {{datacenter: north, manager: '{manager}', tls: '{tls}'}}\n"


@dataclass
class SwarmService(Cluster):
    """The service, its hosts, and the directory that replicas share; see `Cluster`."""

    hosts: tuple[ClusterHost, ...] = ()
    outside: str = ""
    shared: Path = Path()
    digits: Path = Path()
    patience: str = "2m"

    def command(self) -> list[str]:
        """Return the command line of the service."""
        settings = {
            "state_dir": str(self.state),
            "cluster_file": str(self.state / "cluster.yaml"),
            "environments": {name: {"image": tag} for name, tag in self.environments.items()},
            "containers": self.containers,
            "host_patience": self.patience,
            "stop_grace": "2s",
        }
        told = json.dumps({"port": self.port, "settings": settings})
        return [sys.executable, "-m", "tests.docker.serve", told]

    def restart(self, patience: str = "2m") -> None:
        """Kill the service and start it again, with another patience with its hosts."""
        self.kill()
        self.patience = patience
        self.start()

    @contextmanager
    def drained(self, *names: str) -> Iterator[None]:
        """Have hosts take nothing new meanwhile."""
        with Client(self.client.url, "admin-token") as administrator:
            for name in names:
                administrator.drain(name)
            try:
                yield
            finally:
                for name in names:
                    administrator.undrain(name)

    @contextmanager
    def only(self, name: str) -> Iterator[None]:
        """Have all other hosts take nothing new meanwhile."""
        with self.drained(*(host.name for host in self.hosts if host.name != name)):
            yield

    def host(self, name: str) -> ClusterHost:
        """Return a host by its name."""
        return next(host for host in self.hosts if host.name == name)

    def stands(self, name: str) -> tuple[str, str]:
        """Return how the service says that a host stands, and why."""
        found = {host.name: host for host in self.client.hosts()}
        return found[name].state, found[name].state_reason

    def until_stands(self, state: str, seconds: float, *names: str) -> None:
        """Wait until hosts, by default all, stand so."""
        for name in names or [host.name for host in self.hosts]:
            what = f"{name} is {state}; it is {self.stands(name)}"
            wait_for(lambda name=name: self.stands(name)[0] == state, seconds, what)

    def gang(self, line: str, cpus: str = "1.5", **env: str) -> Job:
        """Submit a parameter server and workers, which by default take a host each."""
        given = {"SHARED": str(self.shared), **env}
        words = [word for name, value in given.items() for word in ("--env", f"{name}={value}")]
        head = ["--framework", "script", "--cpus", cpus]
        return self.submit([*head, *line.split(), *words, "servers.py"], self.digits)

    def written(self, job: Job, attempt: int) -> dict[str, bytes]:
        """Return what the replicas of an attempt say that they wrote, by name."""
        start = f"{job.id}-{attempt}."
        found = self.shared.glob(f"{start}*")
        return {path.name.removeprefix(start): path.read_bytes() for path in found}

    def until_written(
        self, job: Job, attempt: int, text: str, name: str = "ps-0", seconds: float = 60
    ) -> None:
        """Wait until a replica has written something, as it says itself."""

        def is_there() -> bool:
            return text.encode() in self.written(job, attempt).get(name, b"")

        wait_for(is_there, seconds, f"{name} of attempt {attempt} of {job.id} wrote {text!r}")

    def output(self, job: Job, attempt: int = 0) -> dict[str, bytes]:
        """Return the output of an attempt's replicas, as the service has it."""
        found: dict[str, bytes] = {}
        for part in self.client.whole_logs(job.id, attempt=attempt or None):
            found[part.replica] = found.get(part.replica, b"") + part.text.encode()
        return found

    def steps(self, job: Job, attempt: int) -> int:
        """Return how many steps an attempt has made."""
        return self.written(job, attempt)["ps-0"].count(b"step ")

    def host_of(self, job: Job, replica: str) -> ClusterHost:
        """Return where a replica of a job runs."""
        replicas = self.client.job(job.id).replicas
        return self.host(next(each.host for each in replicas if each.name == replica))

    def left_on_hosts(self, job: Job) -> dict[str, list[str]]:
        """Return the names of a job's containers, running or not, by host."""
        words = ("ps", "--all", "--filter", f"label=nimbus.job={job.id}", "--format", "{{.Names}}")
        return {host.name: host.docker(*words).split() for host in self.hosts}

    def until_clean(self, job: Job, seconds: float = 30) -> None:
        """Wait until no process, container and volume of a job is left on any host."""

        def left() -> list[str]:
            names = [name for names in self.left_on_hosts(job).values() for name in names]
            words = ("volume", "ls", "--quiet", "--filter", f"name={job.id}")
            names += [name for host in self.hosts for name in host.docker(*words).split()]
            return names + [str(each) for each in self.processes(job)]

        wait_for(lambda: not left(), seconds, f"nothing of {job.id} is left: {left()}")


@contextmanager
def swarm_service(directory: Path) -> Iterator[SwarmService]:
    """Give one whose hosts are ready."""
    needed = [Path(sys.prefix), Path(sys.base_prefix), *map(Path, ("/usr", "/lib", "/lib64"))]
    mounts: list[dict[str, object]] = [
        {"source": str(path.resolve()), "target": str(path)} for path in needed
    ]
    for name in ("shared", "digits", "state"):
        (directory / name).mkdir()
    shared = str(directory / "shared")
    mounts.append({"source": shared, "target": shared, "read_only": False})
    options = ["--insecure-registry", "10.0.0.0/8"]
    labels = [[f"rack={rack}"] for rack in RACKS]
    with cluster(3, labels=labels, options=options, disks={2: DISK}) as made:
        made.join()
        _give_image(made.hosts)
        files = _CLUSTER_FILE.format(manager=made.hosts[0].endpoint, tls=made.tls)
        (directory / "state" / "cluster.yaml").write_text(files)
        service = SwarmService(
            directory / "state",
            {"default": IMAGE},
            # The interpreter may be in root's home.
            containers={"user": "0:0", "mounts": mounts},
            hosts=made.hosts,
            outside=made.outside,
            shared=directory / "shared",
            digits=_with_digits(directory / "digits"),
        )
        service.start()
        try:
            service.until_stands("ready", 30)
            yield service
        finally:
            service.kill()


def _give_image(hosts: Sequence[ClusterHost]) -> None:
    root = busybox_image({"tmp/.keep": b""})
    path = f"ENV PATH={Path(sys.prefix) / 'bin'}:/usr/bin:/bin"
    for host in hosts:
        host.docker("import", "--change", path, "-", IMAGE, given=root)


def _with_digits(directory: Path) -> Path:
    """Return a directory with the scripts and their data."""
    images, labels = load_digits(return_X_y=True)
    numpy.savez(directory / "digits.npz", images=images / 16, labels=labels)
    for script in SCRIPTS.iterdir():
        (directory / script.name).write_bytes(script.read_bytes())
    return directory
