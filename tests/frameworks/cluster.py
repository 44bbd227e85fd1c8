"""What the tests of the frameworks train on: a service of its own, and what a job left."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from nimbus_hub.client import Client, Job, scan
from nimbus_hub.client.run_options import Script, job_request, parse_run
from nimbus_hub.errors import Unavailable
from tests.frameworks.environments import REQUIREMENTS, programs

__all__ = ["SCRIPTS", "Cluster", "Trained", "environment"]

SCRIPTS = Path(__file__).parent / "scripts"
TOKEN = "ada-token"


Line = str | Sequence[str]
"""What would stand after ``nimbus run``, as text or as words."""


@dataclass(frozen=True)
class Trained:
    """A job that is over: how it ended, what its replicas printed, what it left.

    ``first_step_seconds`` is from the submission to the line ``first step`` of any replica,
    which scripts print with the time after it.
    """

    job: Job
    output: Mapping[str, str]
    directory: Path
    wall_seconds: float
    first_step_seconds: float | None

    @property
    def text(self) -> str:
        """Return what all replicas printed."""
        return "\n".join(f"[{name}] {text}" for name, text in sorted(self.output.items()))

    def value(self, name: str, replica: str | None = None) -> float:
        """Return the last number printed as ``name=number`` (by one replica, or any)."""
        text = self.text if replica is None else self.output[replica]
        found = re.findall(rf"\b{name}=([-+.e\d]+)", text)
        assert found, f"nobody printed {name}=\n{text}"
        return float(found[-1])


@dataclass
class Cluster:
    """A service in a process, with the environments that the tests name.

    With the ``endpoint`` of a Docker engine these are images, and all runs in ``containers``.
    """

    state: Path
    environments: dict[str, str]
    packages: Path | None = None
    endpoint: str = ""
    containers: dict[str, object] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    client: Client = field(init=False)

    def start(self) -> None:
        """Start the service, again at the same port if it was killed."""
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        own = {} if self.packages is None else {"PYTHONPATH": str(self.packages)}
        env = {**os.environ, **own}
        with (self.state / "service.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=SCRIPTS.parents[2], env=env
            )
        self.client = Client(f"http://127.0.0.1:{self.port}/services/nimbus", TOKEN)
        end = time.monotonic() + 30
        while True:
            try:
                self.client.health()
                return
            except Unavailable:
                assert time.monotonic() < end, (self.state / "service.log").read_text()
                assert self.process.poll() is None, (self.state / "service.log").read_text()
                time.sleep(0.05)

    def command(self) -> list[str]:
        """Return the command line of the service."""
        told = {
            "state": str(self.state),
            "port": self.port,
            "environments": self.environments,
            "endpoint": self.endpoint,
            "containers": self.containers,
        }
        return [sys.executable, "-m", "tests.frameworks.serve", json.dumps(told)]

    def kill(self) -> None:
        """Kill the service; replicas go on."""
        assert self.process is not None
        self.client.close()
        self.process.kill()
        self.process.wait(10)

    def end(self) -> None:
        """Stop all jobs, and kill the service."""
        for job in self.client.jobs(state="live"):
            self.client.stop(job.id)
            self.wait(job, 30)
        self.kill()

    def submit(self, line: Line, files: Path = SCRIPTS) -> Job:
        """Submit what would stand after ``nimbus run``, with a directory's files."""
        options = parse_run(line.split() if isinstance(line, str) else line, "run")
        script = Script.find(options.argv, files)
        request = job_request(options, script.argv)
        digest = self.client.upload(scan(files))
        return self.client.submit(replace(request, snapshot=digest))

    def wait(self, job: Job, seconds: float = 120, states: Sequence[str] = ()) -> Job:
        """Return a job once it is in one of some states, or over; fail after a time."""
        end = time.monotonic() + seconds
        job = self.client.job(job.id)
        while job.state not in states and not job.is_ended:
            assert time.monotonic() < end, f"{job.state}: {job.reason}\n{self.text(job)}"
            job = self.client.job(job.id, after=job.version, timeout=1)
        return job

    def text(self, job: Job) -> str:
        """Return what the replicas of a job printed in all attempts, by name and attempt."""
        return "\n".join(
            f"[{part.replica} {part.attempt}] {part.text}"
            for part in self.client.whole_logs(job.id, attempt=0)
        )

    def train(self, line: Line, files: Path = SCRIPTS, seconds: float = 180) -> Trained:
        """Run a job to its end, which must be success, and print how long it took."""
        trained = self.run(line, files, seconds)
        assert trained.job.state == "succeeded", f"{trained.job.reason}\n{trained.text}"
        first = trained.first_step_seconds
        told = "" if first is None else f", first step after {first:.2f} s"
        print(f"\n{line}: {trained.wall_seconds:.2f} s{told}")
        return trained

    def run(self, line: Line, files: Path = SCRIPTS, seconds: float = 180) -> Trained:
        """Run a job to its end, whatever that is."""
        began, began_at = time.monotonic(), time.time()
        job = self.wait(self.submit(line, files), seconds)
        wall = time.monotonic() - began
        output: dict[str, str] = {}
        for part in self.client.whole_logs(job.id):
            output[part.replica] = output.get(part.replica, "") + part.text
        steps = re.findall(r"^first step ([\d.]+)", "\n".join(output.values()), re.MULTILINE)
        first = min(map(float, steps)) - began_at if steps else None
        directory = Path(job.output_dir).parent if job.output_dir else self.state
        return Trained(job, output, directory, wall, first)

    def processes(self, job: Job) -> list[psutil.Process]:
        """Return the processes of a job that are alive."""
        return [each for each in psutil.process_iter() if _is_of(each, job.id)]


def environment(name: str) -> str:
    """Return where the programs of an environment are."""
    if name in REQUIREMENTS:
        return str(programs(name))
    return str(Path(sys.executable).parent)


def _is_of(process: psutil.Process, job_id: str) -> bool:
    try:
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return not is_zombie and process.environ().get("NIMBUS_JOB_ID") == job_id
    except psutil.Error:
        return False
