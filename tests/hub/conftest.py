"""A real hub as `nimbus-hub up` starts it: proxy, service, log-in, sessions.

These tests start processes and wait for them: what they check is that the parts, which
other suites test alone, work together.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from nimbus_hub.client import Client
from nimbus_hub.up.account import own_name
from nimbus_hub.up.addresses import free_port
from nimbus_hub.up.processes import ProcessRecord
from nimbus_hub.up.proxy import install_proxy
from nimbus_hub.up.state import State

_READY_SECONDS = 90.0
ROOT = Path(__file__).parents[2]


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return what the condition gives as soon as it is true; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return found


@dataclass
class HubProcess:
    """A hub in a state directory of its own, that can be ended, killed and started again."""

    directory: Path
    port: int
    password: str = ""
    output: str = ""
    process: subprocess.Popen[str] | None = None
    config: Path | None = None
    python: str = sys.executable
    env: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> State:
        return State(self.directory / "state")

    @property
    def home(self) -> Path:
        return self.directory / "home"

    def command(self, *arguments: str) -> list[str]:
        state = ("--state", str(self.state.directory))
        return [self.python, "-m", "nimbus_hub.cli.hub", *arguments, *state]

    def start(self) -> float:
        """Start the hub; return the seconds until it was ready."""
        began = time.monotonic()
        log = self.directory / "up.log"
        config = ("--config", str(self.config)) if self.config else ()
        with log.open("w") as file:
            self.process = subprocess.Popen(
                self.command("up", "--port", str(self.port), *config),
                env={**os.environ, "HOME": str(self.home), **self.env},
                cwd=self.directory,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

        def is_ready() -> bool:
            self.output = log.read_text()
            assert self.process is not None
            assert self.process.poll() is None, self.output
            return "sessions and jobs go on" in self.output

        wait_for(is_ready, _READY_SECONDS, "hub ready")
        shown = re.search(r"with the password (\S+)", self.output)
        self.password = shown[1] if shown else self.password
        return time.monotonic() - began

    def interrupt(self) -> None:
        """End the hub as Ctrl-C in its terminal does."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)
        assert self.process.wait(timeout=60) == 0

    def kill(self) -> None:
        """Kill the hub itself with -9, as a crash would."""
        record = ProcessRecord.read(self.state.hub_record)
        assert record is not None
        record.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(timeout=30)

    def stop_all(self) -> None:
        """End everything, then what was recorded and is still there."""
        record = ProcessRecord.read(self.state.hub_record)
        hub = [] if record is None or not record.is_alive else [psutil.Process(record.pid)]
        below = [each for one in hub for each in one.children(recursive=True)]
        subprocess.run(
            self.command("stop-all"),
            env={**os.environ, "HOME": str(self.home), **self.env},
            cwd=self.directory,
            capture_output=True,
            timeout=120,
            check=True,
        )
        if self.process is not None:
            self.process.wait(timeout=60)
        assert psutil.wait_procs(below, timeout=10)[1] == []


class User:
    """A browser without a screen: logs in and uses the hub's pages and API."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.name = own_name().lower()
        self.http = httpx.Client(
            base_url=hub.url, follow_redirects=True, timeout=60, trust_env=False
        )

    @property
    def xsrf(self) -> str:
        jar = self.http.cookies.jar
        found = [one.value for one in jar if one.name == "_xsrf" and one.path == "/hub/"]
        return found[-1] or ""

    def log_in(self, password: str | None = None) -> httpx.Response:
        self.http.get("/hub/login")
        form = {
            "username": self.name,
            "password": self.hub.password if password is None else password,
            "_xsrf": self.xsrf,
        }
        return self.http.post("/hub/login", data=form)

    def api(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        headers = {"X-XSRFToken": self.xsrf, "Referer": f"{self.hub.url}/hub/home"}
        return self.http.request(method, f"/hub/api{path}", headers=headers, **kwargs)

    def start(self, **options: object) -> list[dict[str, Any]]:
        """Start the session; return what the progress page was told."""
        answer = self.api("POST", f"/users/{self.name}/server", json={"user_options": options})
        assert answer.status_code in (201, 202), answer.text
        return self.progress()

    def refusal(self, **options: object) -> str:
        """Start a session that must be refused; return the sentence.

        What takes a moment to find out is told by the progress page, the rest at once.
        """
        answer = self.api("POST", f"/users/{self.name}/server", json={"user_options": options})
        if answer.status_code == 202:
            last = self.progress()[-1]
            assert last["failed"], last
            return str(last["message"])
        assert answer.status_code == 400, answer.text
        return str(answer.json()["message"])

    def progress(self) -> list[dict[str, Any]]:
        events = self.api("GET", f"/users/{self.name}/server/progress").text
        return [json.loads(line[6:]) for line in re.findall("data: .*", events)]

    def stop(self) -> None:
        assert self.api("DELETE", f"/users/{self.name}/server").status_code in (202, 204)
        wait_for(lambda: not self.is_running, 30, "session stopped")

    @property
    def is_running(self) -> bool:
        return bool(self.api("GET", f"/users/{self.name}").json()["servers"])

    def leases(self, state: str = "all", kind: str = "session") -> list[dict[str, Any]]:
        """Return this user's leases of a kind as the service tells them, newest first."""
        token = self.api("POST", f"/users/{self.name}/tokens", json={"expires_in": 60}).json()
        answer = httpx.get(
            f"{self.hub.url}/services/nimbus/api/v1/leases",
            params={"state": state, "kind": kind},
            headers={"Authorization": f"token {token['token']}"},
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["items"]
        return found


class Terminal:
    """A user's terminal: the commands of a session, with the token of its user."""

    def __init__(self, user: User, directory: Path) -> None:
        token = user.api("POST", f"/users/{user.name}/tokens", json={"expires_in": 3600}).json()
        url = f"{user.hub.url}/services/nimbus"
        self.directory = directory
        self.client = Client(url, token["token"])
        self.env = {
            **os.environ,
            "NIMBUS_API_URL": url,
            "JUPYTERHUB_API_TOKEN": token["token"],
        }

    def start(self, command: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(Path(sys.executable).parent / command), *arguments],
            cwd=self.directory,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, *arguments: str) -> tuple[int, str, str]:
        process = self.start(command, *arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def job(self, job_id: str) -> Any:
        code, out, err = self.run("nimbus", "ps", "-a", "--json")
        assert code == 0, err
        return next(job for job in json.loads(out)["jobs"] if job["id"] == job_id)


@contextmanager
def running_hub(hub: HubProcess, proxy_cache: Path, configuration: str) -> Iterator[None]:
    """Start a hub with a configuration file of its own, if that says anything; end all of it."""
    if configuration:
        hub.config = hub.directory / "own.py"
        hub.config.write_text(configuration)
    hub.home.mkdir()
    hub.state.create()
    shutil.copytree(proxy_cache, hub.state.proxy, symlinks=True)
    try:
        hub.start()
        yield
    finally:
        hub.stop_all()


@contextmanager
def logged_in(hub: HubProcess) -> Iterator[User]:
    """Give the hub's one user; a session that still runs is stopped."""
    user = User(hub)
    with user.http:
        assert user.log_in().status_code == 200
        yield user
        if user.is_running:
            user.stop()


@pytest.fixture(scope="session")
def proxy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed proxy, so that npm runs once for all hubs."""
    state = State(tmp_path_factory.mktemp("proxy"))
    state.create()
    install_proxy(state, print)
    return state.proxy


@pytest.fixture(scope="module")
def configuration() -> str:
    """What the hub's own configuration file says; a module may say more."""
    return ""


@pytest.fixture(scope="module")
def hub(
    tmp_path_factory: pytest.TempPathFactory, proxy_cache: Path, configuration: str
) -> Iterator[HubProcess]:
    """A hub that is ready."""
    made = HubProcess(tmp_path_factory.mktemp("hub"), free_port())
    with running_hub(made, proxy_cache, configuration):
        yield made


@pytest.fixture
def user(hub: HubProcess) -> Iterator[User]:
    """The hub's one user, logged in."""
    with logged_in(hub) as user:
        yield user


@pytest.fixture
def terminal(user: User, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(user, tmp_path)
    yield terminal
    for job in terminal.client.jobs(state="all"):
        if not job.is_ended:
            terminal.client.stop(job.id)
            wait_for(lambda job=job: terminal.client.job(job.id).is_ended, 30, "job stopped")
        if job.output_dir is not None:
            shutil.rmtree(Path(job.output_dir).parent, ignore_errors=True)
    terminal.client.close()
