"""A 2-worker PyTorch script: `nimbus-run` beside bare `torchrun`, from exec to its lines."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from nimbus_hub.client import Client
from tests.benchmarks.figures import Comparison, Series
from tests.benchmarks.hubs import Hub, user_token

__all__ = ["SCRIPT", "Run", "compare_jobs", "installed", "remove_jobs", "run_command", "seen_lines"]

_GOAL = 1.3
_WORKERS = "2"
_RUN_SECONDS = 90.0
SCRIPT = Path(__file__).with_name("workers.py")
_FIRST = "the first line"
_UNCOMPILED = "PYTHONDONTWRITEBYTECODE"
_GROUP = re.compile(r"a group of \d+ stands")


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds from exec until a line came, and until the command was over."""

    first: float
    group: float
    end: float


async def compare_jobs(
    hub: Hub, directory: Path, rounds: int, say: Callable[[str], None]
) -> list[Comparison]:
    """Run the script both ways in turn; return the figures."""
    work = directory / "work"
    work.mkdir()
    shutil.copy(SCRIPT, work)
    token = await user_token(hub)
    programs = Path(sys.executable).parent
    # torchrun sets one thread for each worker unless told; both are told the same.
    threads = {"OMP_NUM_THREADS": "1"}
    service = {"NIMBUS_API_URL": hub.service_url, "JUPYTERHUB_API_TOKEN": token}
    submit = ["--framework", "pytorch", "--workers", _WORKERS, "--follow"]
    own_env = [f"--env={name}={value}" for name, value in threads.items()]
    ways: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {
        "nimbus-run": ([str(programs / "nimbus-run"), *submit, *own_env], service),
        "torchrun": (
            [str(programs / "torchrun"), "--standalone", "--nproc-per-node", _WORKERS],
            threads,
        ),
    }
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    try:
        for number in range(rounds + 1):
            for name, (command, env) in ways.items():
                run = await run_command([*command, SCRIPT.name], work, env)
                kind = f"{number} of {rounds}" if number else "warm-up"
                say(f"job, {kind}, {name}: first line after {run.first:.2f} s")
                if number:
                    runs[name].append(run)
    finally:
        await asyncio.to_thread(remove_jobs, hub.service_url, token)
    return _comparisons(runs["nimbus-run"], runs["torchrun"])


def _comparisons(ours: Sequence[Run], theirs: Sequence[Run]) -> list[Comparison]:
    def compare(measure: str, read: Callable[[Run], float], goal: float | None) -> Comparison:
        nimbus = Series("nimbus-run", tuple(map(read, ours)))
        return Comparison(measure, nimbus, Series("torchrun", tuple(map(read, theirs))), goal)

    return [
        compare(
            f"First line of a {_WORKERS}-worker script, from exec", lambda run: run.first, _GOAL
        ),
        compare("Its process group stands, from exec", lambda run: run.group, None),
        compare("Its command is over, from exec", lambda run: run.end, None),
    ]


async def run_command(command: Sequence[str], work: Path, env: Mapping[str, str]) -> Run:
    """Run a script's command to its end; raise RuntimeError if it fails."""
    began = perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, cwd=work, env=installed(env), stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(_RUN_SECONDS):
            errors = asyncio.create_task(_read(process.stderr))
            first, group = await seen_lines(process.stdout, began)
            code = await process.wait()
            seconds = perf_counter() - began
            if code or not group:
                raise RuntimeError(f"{command[0]} ended with {code}:\n{await errors}")
    finally:
        # torchrun ends its workers when it is told to, and only then.
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return Run(first, group, seconds)


def installed(env: Mapping[str, str]) -> dict[str, str]:
    """Return this environment and more, in which Python keeps what it has compiled.

    What is installed is compiled already; a source tree is by its first start.
    """
    inherited = {key: value for key, value in os.environ.items() if key != _UNCOMPILED}
    return {**inherited, **env}


async def seen_lines(
    stream: asyncio.StreamReader | None, began: float, until: str = ""
) -> tuple[float, float]:
    """Return when the first line and that of the group came, of whichever worker.

    Reads to the end, or until a line with ``until``; 0.0 is what has not come.
    """
    first = group = 0.0
    while stream is not None and (line := (await stream.readline()).decode(errors="replace")):
        if _FIRST in line and not first:
            first = perf_counter() - began
        if _GROUP.search(line) and not group:
            group = perf_counter() - began
        if until and until in line:
            break
    return first, group


async def _read(stream: asyncio.StreamReader | None) -> str:
    return (await stream.read()).decode(errors="replace") if stream else ""


def remove_jobs(service_url: str, token: str) -> None:
    """Remove what the jobs left in the user's home; the hub had no other jobs.

    One that still runs, since measuring was interrupted, is stopped first.
    """
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir) / "nimbus"
    with Client(service_url, token) as client:
        for job in client.jobs(state="all"):
            if not job.is_ended:
                job = client.stop(job.id, reason="the benchmark was interrupted")
            while not job.is_ended:
                job = client.job(job.id, after=job.version, timeout=10)
            shutil.rmtree(home / job.id, ignore_errors=True)
    with suppress(OSError):
        home.rmdir()  # only if nothing else is in it
