"""A PyTorch script on a held gang of 4 replicas, beside `torchrun` and beside a running Ray.

The gang runs the script once to warm up, as the others do; what is measured are later runs.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter, time

from nimbus_hub.client import Client, Gang, GangRequest, GroupRequest, JobRequest, scan
from tests.benchmarks.figures import Comparison, Limit, Series
from tests.benchmarks.hubs import Hub, user_token
from tests.benchmarks.jobs import SCRIPT, Run, installed, remove_jobs, run_command, seen_lines

__all__ = ["compare_held"]

_REPLICAS = 4
_TORCHRUN_GOAL = 0.15
_RAY_GOAL = 0.1
_START_GOAL_SECONDS = 0.1
_PLAIN = "import time\nprint(time.time(), flush=True)\n"
_RUN_SECONDS = 120.0
_OVER = "the run is over"

Say = Callable[[str], None]


async def compare_held(
    hub: Hub, directory: Path, rounds: int, ray: Path | None, say: Say
) -> tuple[list[Comparison], list[Limit]]:
    """Run the script every way in turn; return the figures."""
    work = directory / "held"
    work.mkdir()
    shutil.copy(SCRIPT, work)
    (work / "plain.py").write_text(_PLAIN)
    token = await user_token(hub)
    service = {"NIMBUS_API_URL": hub.service_url, "JUPYTERHUB_API_TOKEN": token}
    programs = Path(sys.executable).parent
    torchrun = ("--standalone", "--nproc-per-node", str(_REPLICAS))
    try:
        with Client(hub.service_url, token) as client:
            say(f"holding a gang of {_REPLICAS} ...")
            gang = await asyncio.to_thread(_hold, client)
            async with _notebook(programs, work, service) as cell, _ray(ray, directory) as submit:
                ways: dict[str, Callable[[], Awaitable[Run]]] = {
                    "a cell": cell,
                    "nimbus-run": lambda: run_command(
                        [str(programs / "nimbus-run"), "--on", "held", SCRIPT.name], work, service
                    ),
                    "torchrun": lambda: run_command(
                        [str(programs / "torchrun"), *torchrun, SCRIPT.name],
                        work,
                        {"OMP_NUM_THREADS": "1"},
                    ),
                }
                if submit is not None:
                    ways["ray job submit"] = submit
                runs = await _in_turn(ways, rounds, say)
            starts = await asyncio.to_thread(_starts, client, gang, work, rounds)
            client.release(gang.lease.id)
    finally:
        await asyncio.to_thread(remove_jobs, hub.service_url, token)
    return _comparisons(runs), [Limit("A plain script on a held gang", starts, _START_GOAL_SECONDS)]


async def _in_turn(
    ways: Mapping[str, Callable[[], Awaitable[Run]]], rounds: int, say: Say
) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            async with asyncio.timeout(_RUN_SECONDS):
                run = await way()
            kind = f"{number} of {rounds}" if number else "warm-up"
            say(f"held, {kind}, {name}: first line after {run.first:.3f} s")
            if number:
                runs[name].append(run)
    return runs


def _comparisons(runs: Mapping[str, list[Run]]) -> list[Comparison]:
    def series(name: str, read: Callable[[Run], float]) -> Series:
        return Series(name, tuple(map(read, runs[name])))

    def compare(measure: str, read: Callable[[Run], float], own: str, other: str) -> Comparison:
        goal = _RAY_GOAL if other.startswith("ray") else _TORCHRUN_GOAL
        return Comparison(measure, series(own, read), series(other, read), goal)

    first = f"First line of {_REPLICAS} held replicas, from Enter"
    group = "Their first collective, from Enter"
    found = []
    for own in ("a cell", "nimbus-run"):
        found.append(compare(first, lambda run: run.first, own, "torchrun"))
        found.append(compare(group, lambda run: run.group, own, "torchrun"))
        if "ray job submit" in runs:
            found.append(compare(first, lambda run: run.first, own, "ray job submit"))
    return found


def _hold(client: Client) -> Gang:
    """Ask for the gang and wait until it is warm."""
    group = GroupRequest("worker", _REPLICAS, "1", "1G")
    gang = client.request_gang(GangRequest("pytorch", (group,)))
    while gang.state in ("queued", "warming"):
        gang = client.gang(gang.lease.id, after=gang.version)
    if gang.state != "ready":
        raise RuntimeError(f"the gang is {gang.state}: {gang.reason}")
    return gang


def _starts(client: Client, gang: Gang, work: Path, rounds: int) -> Series:
    """Return the seconds from the request until the last replica ran a plain script."""
    seconds = []
    for _ in range(rounds + 1):
        digest = client.upload(scan(work))
        began = time()
        argv = ("python", "plain.py")
        job = client.submit(JobRequest(argv, gang=gang.lease.id, snapshot=digest))
        while not job.is_ended:
            job = client.job(job.id, after=job.version)
        texts = [client.logs(job.id, replica.name)[0].text for replica in job.replicas]
        seconds.append(max(map(float, texts)) - began)
    return Series("nimbus", tuple(seconds[1:]))


@asynccontextmanager
async def _notebook(
    programs: Path, work: Path, env: Mapping[str, str]
) -> AsyncIterator[Callable[[], Awaitable[Run]]]:
    """Start IPython with the magics; what is given back runs the script in it once."""
    options = ["--simple-prompt", "--no-banner", "--colors=NoColor", "--no-confirm-exit"]
    process = await asyncio.create_subprocess_exec(
        *(str(programs / "ipython"), *options),
        cwd=work,
        env=installed(env),
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        _type(process, "%load_ext nimbus_hub.magics")

        async def run() -> Run:
            began = perf_counter()
            _type(process, f"%nimbus_run --on held {SCRIPT.name}")
            _type(process, f"print({_OVER!r})")
            first, group = await seen_lines(process.stdout, began, until=_OVER)
            if not group:
                raise RuntimeError("the cell did not run the script to its end")
            return Run(first, group, perf_counter() - began)

        yield run
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _type(process: Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())


@asynccontextmanager
async def _ray(
    program: Path | None, directory: Path
) -> AsyncIterator[Callable[[], Awaitable[Run]] | None]:
    """Start Ray, if there is one; what is given back submits the script to it, alone."""
    if program is None:
        yield None
        return
    work = directory / "ray"
    work.mkdir()
    shutil.copy(SCRIPT, work)
    # Its processes outlive the command, so that their address has to be known: the default.
    start = [str(program), "start", "--head", "--num-cpus=4", "--disable-usage-stats"]
    started = await asyncio.create_subprocess_exec(*start, stdout=PIPE, stderr=STDOUT)
    output, _ = await started.communicate()
    if started.returncode:
        raise RuntimeError(f"Ray does not start:\n{output.decode()}")
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29911"}
    command = [str(program), "job", "submit", "--address=http://127.0.0.1:8265"]
    command += ["--working-dir", str(work), "--"]
    command += ["env", *(f"{name}={value}" for name, value in alone.items())]
    try:
        yield lambda: run_command([*command, sys.executable, SCRIPT.name], work, {})
    finally:
        stopped = await asyncio.create_subprocess_exec(str(program), "stop", stdout=PIPE)
        await stopped.communicate()
