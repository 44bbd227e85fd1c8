"""`python -m tests.benchmarks.containers`: sessions in containers beside stock DockerSpawner.

One image, one engine, three hubs: stock, Nimbus that starts cold, and Nimbus with a container
that waits. Exits with 1 if a goal is missed.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import click

from nimbus_hub.up.state import State
from tests.benchmarks.figures import Comparison, Series, as_table
from tests.benchmarks.hubs import nimbus_hub, stock_hub
from tests.benchmarks.sessions import start, stop
from tests.docker.standalone_image import standalone_image
from tests.frameworks.engine import Engine, engine

_COLD_GOAL = 0.4
_WARM_GOAL = 0.25
_WARM_SECONDS = 60.0
_KINDS = ("stock DockerSpawner", "Nimbus, cold", "Nimbus, warm")


async def measure(running: Engine, directory: Path, rounds: int) -> list[Comparison]:
    """Start sessions on the three hubs in turn."""
    prefix, token = f"bench-{secrets.token_hex(3)}", secrets.token_hex(32)
    found = ("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    env = {
        "BENCH_IMAGE": standalone_image(running),
        "BENCH_PYTHON": f"{sys.prefix}/bin/python3",
        "BENCH_GATEWAY": running.docker(*found),
    }
    if running.address:
        env["DOCKER_HOST"] = running.address
    seconds: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    try:
        async with AsyncExitStack() as stack:
            clients = {}
            for warm, kind in enumerate(_KINDS[1:]):
                own = {**env, "BENCH_PREFIX": f"{prefix}{warm}"}
                (directory / str(warm)).mkdir()
                hub = await stack.enter_async_context(
                    nimbus_hub(
                        directory / str(warm), token, "nimbus_docker.py", own, is_warm=bool(warm)
                    )
                )
                clients[kind] = await stack.enter_async_context(hub.client())
            (directory / "stock").mkdir()
            own, proxy = {**env, "BENCH_PREFIX": f"{prefix}s"}, State(directory / "0" / "state")
            hub = await stack.enter_async_context(
                stock_hub(directory / "stock", token, proxy, "stock_docker.py", own)
            )
            clients[_KINDS[0]] = await stack.enter_async_context(hub.client())
            for number in range(rounds + 1):
                for kind in _KINDS:
                    ready = await start(clients[kind])
                    await stop(clients[kind])
                    click.echo(f"round {number}, {kind}: ready after {ready:.2f} s", err=True)
                    if number:
                        seconds[kind].append(ready)
                await _until_warm(running, prefix)
    finally:
        _remove(running, prefix)
    stock, cold, warm_one = (Series(kind, tuple(seconds[kind])) for kind in _KINDS)
    measure = "Session in a container, from POST to ready"
    return [
        Comparison(f"{measure}, cold", cold, stock, _COLD_GOAL),
        Comparison(f"{measure}, warm", warm_one, stock, _WARM_GOAL),
    ]


async def _until_warm(running: Engine, prefix: str) -> None:
    """Return when there is a container that waits and has nothing to do any more."""
    async with asyncio.timeout(_WARM_SECONDS):
        while True:
            names = running.docker(
                "ps", "--format", "{{.Names}}", "--filter", f"name={prefix}1-warm"
            )
            for name in names.split():
                used = running.docker("stats", "--no-stream", "--format", "{{.CPUPerc}}", name)
                if float(used.rstrip("%")) < 1:
                    return
            await asyncio.sleep(1)


def _remove(running: Engine, prefix: str) -> None:
    """Remove what the hubs have left."""
    for kind, words in (("container", ("ps", "-aq")), ("volume", ("volume", "ls", "-q"))):
        left = running.docker(*words, "--filter", f"name={prefix}").split()
        if left:
            running.docker(kind, "rm", "-f", *left)


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 20))
def main(rounds: int) -> None:
    """Measure sessions in containers, cold and warm, beside stock DockerSpawner."""
    with engine() as running, tempfile.TemporaryDirectory(prefix="nimbus-bench-") as name:
        comparisons = asyncio.run(measure(running, Path(name), rounds))
    click.echo(as_table(comparisons, [], []))
    if not all(one.is_met for one in comparisons):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
