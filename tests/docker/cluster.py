"""Docker hosts on one machine: an engine each, in network namespaces on one bridge.

Engines speak TLS with client certificates, as real ones should. All that is started is ended:
processes by the namespace they are in, then namespaces, bridge and the rule of the firewall.
For root with CI=true alone; the tests say what they miss.
"""

from __future__ import annotations

import io
import itertools
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.docker.certificates import make_certificates

__all__ = [
    "BUSYBOX",
    "Cluster",
    "ClusterHost",
    "busybox_image",
    "cluster",
    "require_cluster",
    "wait_for",
]

BUSYBOX = "nimbus-test/busybox:1"
"""An image of one static program, that every host has."""

_NUMBERS = itertools.count()
_TOOLS = {
    "docker": "docker.io",
    "dockerd": "docker.io",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "busybox": "busybox-static",
}
"""The programs that are needed, and Debian's package of each."""


def require_cluster() -> None:
    """Skip where no cluster can be made, loudly; with CI=true that is a failure."""
    missing = sorted({package for tool, package in _TOOLS.items() if not shutil.which(tool)})
    is_ci = os.environ.get("CI") == "true"
    if missing or not is_ci or os.getuid() != 0:
        lacks = f"Debian's {', '.join(missing)}, " if missing else ""
        said = f"several Docker hosts need {lacks}root and CI=true"
        pytest.fail(said) if is_ci else pytest.skip(said)


def wait_for(is_so: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until something is so; return how long that took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began


@dataclass
class ClusterHost:
    """One host: a network namespace with an engine in it."""

    name: str
    space: str
    address: str
    directory: Path
    tls: Path
    bip: str
    labels: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        """Return where the engine is reached from other hosts."""
        return f"tcp://{self.address}:2376"

    @property
    def data(self) -> Path:
        """Return where the engine has all it keeps; a disk of its own if that is small."""
        return self.directory / "data"

    def start(self) -> None:
        """Start the engine."""
        words = ["--data-root", str(self.data)]
        words += ["--exec-root", str(self.directory / "run")]
        words += ["--pidfile", str(self.directory / "pid"), "--bip", self.bip]
        words += ["-H", f"unix://{self.directory}/sock", "-H", self.endpoint, "--tlsverify"]
        words += ["--tlscacert", str(self.tls / "ca.pem"), "--tlscert", str(self.tls / "cert.pem")]
        words += ["--tlskey", str(self.tls / "key.pem")]
        words += self.options
        words += [word for label in self.labels for word in ("--label", label)]
        # Not `ip netns exec`: it would hide the control groups. A host has its own name.
        entered = ["nsenter", f"--net=/var/run/netns/{self.space}", "--", "unshare", "--uts"]
        named = f'echo {self.name} > /proc/sys/kernel/hostname; exec dockerd "$@"'
        entered += ["sh", "-c", named, "sh", *words]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(entered, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        """Wait until the engine answers."""
        wait_for(self.answers, 60, f"{self.name} answers; {self.directory}/log says why")

    def answers(self) -> bool:
        """Tell whether the engine is there."""
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()[-3000:]
        words = self.command("version", "--format", "{{.Server.Version}}")
        return subprocess.run(words, capture_output=True, check=False, timeout=30).returncode == 0

    def stop(self) -> None:
        """End the engine, and with it its containers."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def kill(self) -> None:
        """Kill the engine at once; its containers go on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.process = None
        # Its containerd ends with it, and is a zombie where nobody reaps: who starts again
        # would take that for alive.
        pid_file = self.directory / "run" / "containerd" / "containerd.pid"
        with suppress(ProcessLookupError):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
        pid_file.unlink()

    def slow(self, rate: str) -> None:
        """Have what others send it come at a rate like ``20mbit``, empty for no bound."""
        where = ("dev", self.space, "root")
        rule = ("tbf", "rate", rate, "burst", "64kb", "latency", "50ms")
        _run("tc", "qdisc", *(("add", *where, *rule) if rate else ("del", *where)))

    def cut(self) -> None:
        """Take the host off the network."""
        _run("ip", "netns", "exec", self.space, "ip", "link", "set", "eth0", "down")

    def heal(self) -> None:
        """Put it on the network again."""
        _run("ip", "netns", "exec", self.space, "ip", "link", "set", "eth0", "up")

    def command(self, *words: str) -> list[str]:
        """Return the whole command line of the client, through the host's own socket."""
        return ["docker", "--host", f"unix://{self.directory}/sock", *words]

    def docker(self, *words: str, given: bytes | None = None) -> str:
        """Run a command of the client and return what it prints."""
        return _run(*self.command(*words), given=given)

    def end(self) -> None:
        """End everything that was started on this host."""
        for pid in _pids(self.space):
            for process in _family(pid):
                process.kill()
        if self.process is not None:
            self.process.wait(30)
        wait_for(lambda: not _pids(self.space), 20, f"{self.space} is empty")
        for mount in sorted(_mounts_below(self.directory), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=True, timeout=30)


@dataclass(frozen=True)
class Cluster:
    """All hosts, what to reach their engines with, and the network that they share."""

    hosts: tuple[ClusterHost, ...]
    tls: Path
    network: str

    @property
    def outside(self) -> str:
        """Return the address of this machine that the hosts reach."""
        return self.network.replace(".0/24", ".254")

    def join(self) -> None:
        """Make the hosts a Swarm; the first one is its manager."""
        manager, *others = self.hosts
        manager.docker("swarm", "init", "--advertise-addr", manager.address)
        token = manager.docker("swarm", "join-token", "--quiet", "worker")
        for host in others:
            host.docker(
                "swarm", "join", "--advertise-addr", host.address, "--token", token,
                f"{manager.address}:2377",
            )  # fmt: skip

    def load(self, tag: str, source: Sequence[str]) -> None:
        """Give every host an image that a command writes, ``docker save TAG`` of another engine."""
        saved = subprocess.run([*source], check=True, capture_output=True, timeout=300).stdout
        for host in self.hosts:
            if not host.docker("images", "--quiet", tag):
                host.docker("load", "--quiet", given=saved)


@contextmanager
def cluster(
    count: int,
    *,
    labels: Sequence[Sequence[str]] = (),
    options: Sequence[str] = (),
    disks: Mapping[int, str] | None = None,
) -> Iterator[Cluster]:
    """Give so many hosts; ``labels`` are those of each engine, ``options`` of all.

    ``disks`` are the sizes of the disks of some, by number: others share that of this machine.
    """
    require_cluster()
    name = f"nmb{os.getpid() % 100_000}{next(_NUMBERS)}"
    net = _free_network()
    hosts: list[ClusterHost] = []
    directory = Path(tempfile.mkdtemp(prefix="nmb"))
    try:
        _bridge(name, f"{net}.254/24")
        tls = make_certificates(directory / "tls", [f"{net}.{at + 1}" for at in range(count)])
        for at in range(count):
            own = directory / f"h{at + 1}"
            own.mkdir()
            host = ClusterHost(
                f"h{at + 1}", f"{name}h{at + 1}", f"{net}.{at + 1}", own, tls,
                f"172.{20 + at}.0.1/16", tuple(labels[at]) if labels else (), tuple(options),
            )  # fmt: skip
            hosts.append(host)
            if disks and at in disks:
                host.data.mkdir()
                _run("mount", "-t", "tmpfs", "-o", f"size={disks[at]}", "tmpfs", str(host.data))
            _join_bridge(host, name, f"{net}.254")
            host.start()
        for host in hosts:
            host.wait()
            host.docker("import", "-", BUSYBOX, given=busybox_image())
        yield Cluster(tuple(hosts), tls, f"{net}.0/24")
    finally:
        _tear_down(name, hosts)
        shutil.rmtree(directory)


def _bridge(name: str, address: str) -> None:
    _run("ip", "link", "add", name, "type", "bridge")
    _run("ip", "addr", "add", address, "dev", name)
    _run("ip", "link", "set", name, "up")
    # Where an engine runs beside these, it has all forwarding refused that is not its own.
    _run("iptables", "-w", "-I", "FORWARD", "-i", name, "-j", "ACCEPT")


def _join_bridge(host: ClusterHost, bridge: str, gateway: str) -> None:
    link, space = host.space, host.space
    _run("ip", "netns", "add", space)
    _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
    _run("ip", "link", "set", link, "master", bridge, "up")
    inside = ("ip", "-n", space)
    _run(*inside, "link", "set", "lo", "up")
    _run(*inside, "addr", "add", f"{host.address}/24", "dev", "eth0")
    _run(*inside, "link", "set", "eth0", "up")
    _run(*inside, "route", "add", "default", "via", gateway)


def _tear_down(bridge: str, hosts: Sequence[ClusterHost]) -> None:
    for host in hosts:
        if Path("/var/run/netns", host.space).exists():
            host.end()
            # A namespace whose name is gone lives on while anything refers to it.
            words = ["ip", "link", "del", host.space]
            subprocess.run(words, capture_output=True, check=False, timeout=30)
            _run("ip", "netns", "del", host.space)
    rule = ("FORWARD", "-i", bridge, "-j", "ACCEPT")
    subprocess.run(["iptables", "-w", "-D", *rule], capture_output=True, check=False, timeout=30)
    subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False, timeout=30)


def _free_network() -> str:
    """Return the first three numbers of a network that nothing on this machine is in."""
    routes = _run("ip", "-4", "route")
    return next(net for net in (f"10.99.{n}" for n in range(20, 250)) if f"{net}." not in routes)


def _pids(space: str) -> list[int]:
    return [int(pid) for pid in _run("ip", "netns", "pids", space).split()]


def _family(pid: int) -> list[psutil.Process]:
    """Return a process and all below it: what runs in containers is in namespaces of its own."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _mounts_below(directory: Path) -> list[str]:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [mount for mount in mounts if Path(mount).is_relative_to(directory)]


def busybox_image(files: Mapping[str, bytes] | None = None) -> bytes:
    """Return the archive of a root directory with one program under many names, and files."""
    program = Path(shutil.which("busybox") or "")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(program.resolve(), "bin/busybox")
        for name in ("sh", "sleep", "cat", "nc", "ping", "ip", "wget", "echo", "true", "df"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name, content in (files or {}).items():
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(content), 0o755
            archive.addfile(file, io.BytesIO(content))
    return packed.getvalue()


def _run(*words: str, given: bytes | None = None) -> str:
    ran = subprocess.run(words, input=given, capture_output=True, check=False, timeout=120)
    assert ran.returncode == 0, f"{' '.join(words)}: {ran.stderr.decode()}"
    return ran.stdout.decode().strip()
