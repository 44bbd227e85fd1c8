"""A session that was warm is one that was started: what it is, what it sees, and how it ends.

Processes are started and waited for, since what is checked is what they become. As root two
system users have sessions, otherwise the one who runs this.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from nimbus_spawner.forked import Forked, NotForked
from nimbus_spawner.forkservers import ForkServer

from tests.contract.people import EARLY, PATIENCE_SECONDS, Hub, Person, started, until

_LOOKING_AROUND = Path(__file__).with_name("looking_around.py")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that other accounts may enter; pytest's own may be closed to them any time."""
    with tempfile.TemporaryDirectory(prefix="nimbus-warm-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def python(place: Path) -> str:
    """A python that other accounts may run, with this one's packages; else this one."""
    system = Path(f"/usr/bin/python3.{sys.version_info.minor}")
    if os.getuid() != 0 or not system.exists():
        return sys.executable
    folder = place / "environment"
    packages = folder / "lib" / system.name / "site-packages"
    packages.mkdir(parents=True)
    root = Path(__file__).parents[2]
    paths = [
        path for path in sys.path if "site-packages" in path or Path(path).is_relative_to(root)
    ]
    (packages / "all.pth").write_text("\n".join(paths))
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(system)
    for name in ("etc", "share"):
        (folder / name).symlink_to(Path(sys.prefix) / name)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def people(place: Path, python: str) -> Iterator[list[Person]]:
    """Two people with homes in which a server that starts looks around."""
    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    found = []
    for name, account in (("ada", "daemon"), ("eve", "nobody")):
        home = place / name
        (home / ".jupyter").mkdir(parents=True)
        config = home / ".jupyter" / "jupyter_server_config.py"
        config.write_text(_LOOKING_AROUND.read_text())
        packages = home / ".local" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        if name == "eve":
            packages.mkdir(parents=True)
            (packages / "mine.py").touch()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        who = pwd.getpwnam(account) if python != sys.executable else None
        if who:
            for path in (home, *home.rglob("*")):
                os.chown(path, who.pw_uid, who.pw_gid)
            home.chmod(0o700)
        url = f"http://127.0.0.1:{hub.server_port}/hub/api"
        found.append(Person(name, home, url, who, port))
    yield found
    hub.shutdown()
    hub.server_close()


@pytest.fixture(scope="module")
def cold(python: str, people: list[Person]) -> list[dict[str, Any]]:
    """What the sessions of these people are when they are started, and not warm."""
    command = [python, "-m", "nimbus_spawner.singleuser", "--allow-root"]
    processes = [started(person, command, person.env) for person in people]
    reports = [person.report()[0] for person in people]
    for process in processes:
        process.terminate()
        assert process.wait() == 0
    return reports


@pytest.fixture(scope="module")
def server(python: str, monkeypatch_module: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    """A fork server of a hub with a secret of its own, ready."""
    server = ready_server(python)
    yield server
    server.retire()
    until(lambda: not server.is_alive)


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUB_SECRET", "the-hub's-own-secret")
        yield patch


def ready_server(python: str) -> ForkServer:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
    server = ForkServer(python, {**EARLY, "PATH": path, "HOME": "/nonexistent"})
    until(lambda: server.is_ready)
    return server


async def forked(server: ForkServer, person: Person, **change: Any) -> Forked:
    with person.log() as log:
        found, _ = await server.fork({**person.claim, **change}, log.fileno())
    return found


def exit_code(process: Forked) -> int:
    until(lambda: process.poll() is not None)
    code = process.poll()
    assert code is not None
    process.close()
    return code


@pytest.fixture
async def both(server: ForkServer, people: list[Person]) -> AsyncIterator[list[Forked]]:
    """The sessions of two people, forked one after the other."""
    found = [await forked(server, person) for person in people]
    yield found
    for process in found:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.close()


async def test_a_forked_session_is_what_a_started_one_is(
    cold: list[dict[str, Any]], both: list[Forked], people: list[Person]
) -> None:
    reports = [person.report() for person in people]
    assert [warm for warm, _ in reports] == cold
    assert all(not report["database"] for report in cold)
    for process, person, (warm, own) in zip(both, people, reports, strict=True):
        assert warm["environ"]["JUPYTERHUB_API_TOKEN"] == person.token
        assert own["pid"] == process.pid
        assert own["holders of the other home"] == []
        assert "not started warm" not in (person.home.parent / f"{person.name}.log").read_text()
    randoms = [own["random"] for _, own in reports]
    assert not set(randoms[0]) & set(randoms[1])


def memory_of(pid: int) -> Iterator[bytes]:
    """Yield all that a process could read of its own memory."""
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if found and not line.endswith(("[vvar]", "[vsyscall]")):
                begin, end = (int(each, 16) for each in found.groups())
                memory.seek(begin)
                with suppress(OSError):  # Behind the end of a mapped file there is nothing.
                    yield memory.read(end - begin)


async def test_nothing_of_another_session_or_the_hub_is_in_a_sessions_memory(
    both: list[Forked], people: list[Person]
) -> None:
    ada, eve = people
    eve.wait()
    found = dict.fromkeys((ada.token, eve.token, "the-hub's-own-secret"), 0)
    for area in memory_of(both[1].pid):
        for name in found:
            found[name] += area.count(name.encode())
    assert found.pop(eve.token) > 0
    assert set(found.values()) == {0}


async def test_the_way_a_session_ended_is_told(both: list[Forked], people: list[Person]) -> None:
    for person in people:
        person.wait()
    os.kill(both[0].pid, signal.SIGKILL)
    assert exit_code(both[0]) == -9
    assert both[1].poll() is None
    os.kill(both[1].pid, signal.SIGTERM)
    assert exit_code(both[1]) == 0


async def test_a_claim_that_cannot_be_met_says_why_and_leaves_nothing(
    server: ForkServer, people: list[Person], tmp_path: Path
) -> None:
    with pytest.raises(NotForked, match="cwd must be the absolute path of a directory"):
        await forked(server, people[0], cwd="/none/such")
    until(lambda: not children(server))


def children(server: ForkServer) -> list[str]:
    return Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"PYTHONPATH": "/opt"}, "PYTHONPATH is not what it was"),
        ({"PYZMQ_BACKEND": "cython"}, "PYZMQ_BACKEND is not what it was"),
    ],
)
async def test_what_a_fork_would_do_wrong_is_started_anew(
    server: ForkServer, people: list[Person], change: dict[str, str], reason: str
) -> None:
    person = people[0]
    process = await forked(server, person, env={**person.env, **change})
    report, own = person.report()
    assert own["pid"] == process.pid
    assert change.items() <= report["environ"].items()
    assert reason in (person.home.parent / "ada.log").read_text()
    os.kill(process.pid, signal.SIGKILL)
    assert exit_code(process) == -9


async def test_sessions_go_on_without_their_hub_or_fork_server(
    people: list[Person], python: str
) -> None:
    server = ready_server(python)
    ada, eve = people
    first, second = await forked(server, ada), await forked(server, eve)
    eve.wait()
    server.retire()  # As the end of the hub does.
    os.kill(first.pid, signal.SIGKILL)
    assert exit_code(first) == -9
    assert server.is_alive
    server.kill()
    until(lambda: not server.is_alive)
    eve.wait()
    assert second.poll() is None
    os.kill(second.pid, signal.SIGKILL)
    assert exit_code(second) == 0  # Whoever could have told is gone.


async def test_a_fork_server_ends_with_the_last_of_its_sessions(
    people: list[Person], python: str
) -> None:
    server = ready_server(python)
    process = await forked(server, people[0])
    server.retire()
    os.kill(process.pid, signal.SIGTERM)
    exit_code(process)
    until(lambda: not server.is_alive)


class Container:
    """Asks a process that waits on a port, as a container's would."""

    def __init__(self, port: int) -> None:
        self.port = port

    def call(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)

    def is_open(self) -> bool:
        with suppress(OSError):
            self.call().close()
            return True
        return False

    def ask(self, text: bytes) -> dict[str, Any]:
        with self.call() as connection:
            connection.sendall(text)
            with connection.makefile() as lines:
                answer: dict[str, Any] = json.loads(lines.readline())
                return answer


def test_a_container_becomes_the_server_of_who_knows_its_secret(
    cold: list[dict[str, Any]], people: list[Person], python: str
) -> None:
    person, secret = people[0], "the-secret-of-a-container"
    command = [python, "-m", "nimbus_spawner.warm", "--ip", "127.0.0.1", "--port", str(person.port)]
    env = {
        **EARLY,
        "HOME": "/nonexistent",
        "NIMBUS_WARM_ROOM": " " * 2**15,
        "NIMBUS_WARM_SHA256": hashlib.sha256(secret.encode()).hexdigest(),
        "PATH": os.defpath,
    }
    process = started(person, command, env)
    container = Container(person.port)
    until(container.is_open)
    claim = {name: person.claim[name] for name in ("args", "env", "cwd")}
    for text, reason in (
        (b"GET /user/ada/api HTTP/1.1\r\n", "Expecting value"),
        (b"[]\n", "there is no secret in it"),
        (json.dumps({**claim, "secret": "another"}).encode() + b"\n", "the secret is wrong"),
        (json.dumps({**claim, "secret": secret, "uid": 0}).encode() + b"\n", "there is no 'uid'"),
        (b"[" * 2**20 + b"\n", "at most 1048576 bytes"),
    ):
        assert reason in container.ask(text)["error"]
    with container.call() as silent:
        text = json.dumps({**claim, "secret": secret}).encode() + b"\n"
        assert container.ask(text) == {"claimed": True}
        assert silent.recv(1) == b""
    report, own = person.report()
    assert (report, own["pid"]) == (cold[0], process.pid)
    assert own["holders of the other home"] == []
    process.terminate()
    assert process.wait() == 0
